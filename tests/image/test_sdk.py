"""The published SDK against the daemon in a container of the image, which runs stand-alone there."""

import pytest
from daytona import CreateSandboxFromSnapshotParams, Daytona, DaytonaConfig, SessionExecuteRequest
from daytona.common.lsp_server import LspLanguageId
from daytona.common.process import CodeRunParams
from daytona.common.pty import PtySize
from sandboxes import start


@pytest.fixture(scope="module")
def sandbox(image):
    with start(image, DAYTONA_SANDBOX_ID="") as container:
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


def test_a_terminal(sandbox):
    shown = []
    terminal = sandbox.process.create_pty_session("t", on_data=shown.append, pty_size=PtySize(cols=100, rows=30))
    terminal.send_input("stty size; echo $((6 * 7)); exit 5\n")
    assert terminal.wait().exit_code == 5
    assert b"30 100" in b"".join(shown) and b"42" in b"".join(shown)


def test_code_in_three_languages_and_an_interpreter_that_keeps_its_state(sandbox):
    code = "import sys; print(sys.argv[1:])"
    assert sandbox.process.code_run(code, CodeRunParams(argv=["a b"])).result == "['a b']\n"
    for runner, type in (("node", ""), ("tsx", ": number")):
        sandbox.fs.upload_file(f"const n{type} = 6\nconsole.log(n * 7)\n".encode(), "answer.ts")
        assert sandbox.process.exec(f"{runner} answer.ts").result == "42\n"
    interpreter = sandbox.code_interpreter
    assert interpreter.run_code("x = 6").error is None
    assert interpreter.run_code("print(x * 7)").stdout.strip() == "42"


def test_a_repository(sandbox):
    git = sandbox.git
    commit = "git -c user.name=a -c user.email=a@b commit -q --allow-empty -m one"
    assert sandbox.process.exec(f"git init -q -b main up && cd up && {commit}").exit_code == 0
    git.clone("/home/daytona/up", "clone")
    sandbox.fs.upload_file(b"x", "clone/new")
    git.add("clone", ["new"])
    git.commit("clone", "two", "A", "a@example.com")
    status = git.status("clone")
    assert (status.current_branch, status.ahead, status.file_status) == ("main", 1, [])


@pytest.mark.parametrize(("language", "name", "text"), [
    ("python", "one.py", "class Greeter: pass\n"),
    ("typescript", "one.ts", "class Greeter {}\n"),
])
def test_language_servers_of_the_image(sandbox, language, name, text):
    sandbox.fs.create_folder(f"lsp-{language}", "755")
    sandbox.fs.upload_file(text.encode(), f"lsp-{language}/{name}")
    server = sandbox.create_lsp_server(LspLanguageId(language), f"lsp-{language}")
    server.start()
    server.did_open(f"lsp-{language}/{name}")
    assert "Greeter" in {symbol.name for symbol in server.document_symbols(f"lsp-{language}/{name}")}
    server.stop()

"""The first program that a person runs: nothing but the binary, started with no settings, and the published SDK."""

from conftest import start_on_default_port


def test_the_first_program_runs_unmodified():
    with start_on_default_port() as daemon:
        from daytona import Daytona, DaytonaConfig

        sandbox = Daytona(DaytonaConfig(api_url="http://127.0.0.1:2280/api", api_key="any", target="local")).create()
        sandbox.fs.upload_file(b"hello world\n", "project/hello.txt")
        response = sandbox.process.exec("cat project/hello.txt && wc -c < project/hello.txt")
        assert (response.exit_code, response.result.split()) == (0, ["hello", "world", "12"])
        assert sandbox.fs.download_file("project/hello.txt") == b"hello world\n"
        matches = sandbox.fs.find_files("project", "world")
        assert [(match.line, match.content) for match in matches] == [(1, "hello world")]
        results = sandbox.fs.replace_in_files(["project/hello.txt"], "world", "there")
        assert [result.success for result in results] == [True]
        listed = sandbox.fs.list_files(".", depth=2)
        assert [entry.path for entry in listed] == [
            str(daemon.work / "project"),
            str(daemon.work / "project/hello.txt"),
        ]
        assert (daemon.work / "project/hello.txt").read_text() == "hello there\n"

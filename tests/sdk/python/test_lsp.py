"""Every language server method of the Python SDK, with real servers."""

import asyncio
import os
import subprocess

import pytest
from conftest import ROOT, done, start, until
from daytona import LspLanguageId
from daytona.common.lsp_server import LspCompletionPosition

# The servers that the tests install.
SERVERS = os.pathsep.join(str(ROOT / place) for place in ("tests/.venv/bin", "tests/sdk/node_modules/.bin"))

PYTHON = "class Greeter:\n    def greet(self, name):\n        return name\n\n\ngreeter = Greeter()\ngreeter.\n"
TYPESCRIPT = "export class Greeter {\n  greet(name: string) { return name }\n}\nconst greeter = new Greeter()\ngreeter.\n"
SOURCES = {"python": ("sample.py", PYTHON, 6), "typescript": ("sample.ts", TYPESCRIPT, 4), "javascript": (
    "sample.js",
    TYPESCRIPT.replace(": string", ""),
    4,
)}


@pytest.fixture
def daemon():
    with start(PATH=f"{SERVERS}{os.pathsep}{os.environ['PATH']}") as one:
        yield one


def running(daemon):
    """Command lines of what the daemon has started."""
    listed = subprocess.run(["ps", "-eo", "ppid,pid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    family, grown = {str(daemon.process.pid)}, True
    while grown:
        more = {pid for parent, pid, _ in rows if parent in family} - family
        family, grown = family | more, bool(more)
    return [args for _, pid, args in rows if pid in family and pid != str(daemon.process.pid)]


def project(work, language):
    name, text, _ = SOURCES[language]
    directory = work / "e2e-lsp-project"
    directory.mkdir()
    (directory / name).write_text(text)
    return f"e2e-lsp-project/{name}"


@pytest.mark.parametrize("language", SOURCES)
async def test_the_scenario_of_the_sdks_own_suite(sandbox, daemon, work, language):
    path = project(work, language)
    lsp = sandbox.create_lsp_server(LspLanguageId(language), "e2e-lsp-project")
    await done(lsp.start())
    await done(lsp.did_open(path))
    symbols = await done(lsp.document_symbols(path))
    assert {"Greeter", "greet"} <= {symbol.name for symbol in symbols}
    greeter = next(symbol for symbol in symbols if symbol.name == "Greeter")
    assert greeter.kind == 5
    assert greeter.location.uri == f"file://{work / path}"
    assert greeter.location.range.start.line == 0
    found = await done(lsp.sandbox_symbols("Greeter"))
    assert "Greeter" in {symbol.name for symbol in found}
    _, _, line = SOURCES[language]
    completions = await done(lsp.completions(path, LspCompletionPosition(line=line, character=8)))
    assert any(item.label.startswith("greet") for item in completions.items)
    first = await done(lsp.completions(path, LspCompletionPosition(line=0, character=0)))
    assert first.items
    await done(lsp.did_close(path))
    await done(lsp.stop())
    assert running(daemon) == []


async def test_symbols_of_a_project_are_found_in_files_that_are_not_open(sandbox, work):
    for language, name in (("python", "other.py"), ("typescript", "other.ts"), ("javascript", "other.js")):
        directory = work / language
        (directory / "deep").mkdir(parents=True)
        text = "class Needle: pass\n" if language == "python" else "class Needle {}\n"
        (directory / "deep" / name).write_text(text)
        lsp = sandbox.create_lsp_server(LspLanguageId(language), str(directory))
        await done(lsp.start())
        found = await done(lsp.sandbox_symbols("needle" if language == "python" else "Needle"))
        assert [(symbol.name, symbol.location.uri) for symbol in found] == [
            ("Needle", f"file://{directory / 'deep' / name}")
        ]
        assert await done(lsp.sandbox_symbols("nothing_like_it")) == []
        await done(lsp.stop())


async def test_a_typescript_project_without_files_has_no_symbols(sandbox, work):
    (work / "empty").mkdir()
    lsp = sandbox.create_lsp_server(LspLanguageId.TYPESCRIPT, "empty")
    await done(lsp.start())
    assert await done(lsp.sandbox_symbols("Greeter")) == []


async def test_a_changed_file_is_seen_without_opening_it_again(sandbox, work):
    path = project(work, "python")
    lsp = sandbox.create_lsp_server(LspLanguageId.PYTHON, "e2e-lsp-project")
    await done(lsp.start())
    await done(lsp.did_open(path))
    (work / path).write_text("class Farewell:\n    pass\n")
    assert "Farewell" in {symbol.name for symbol in await done(lsp.document_symbols(path))}


async def test_errors_have_the_class_that_the_sdk_knows(sandbox, work):
    from daytona import DaytonaError

    path = project(work, "python")
    lsp = sandbox.create_lsp_server(LspLanguageId.PYTHON, "e2e-lsp-project")
    with pytest.raises(DaytonaError, match="server not initialized") as caught:
        await done(lsp.document_symbols(path))
    assert type(caught.value).__name__ == "DaytonaLspServerNotInitializedError"
    with pytest.raises(DaytonaError, match="error stopping LSP server"):
        await done(lsp.stop())
    await done(lsp.start())
    with pytest.raises(DaytonaError, match="failed to read file"):
        await done(lsp.did_open("e2e-lsp-project/none.py"))


@pytest.mark.parametrize("language", ["python", "typescript"])
async def test_what_goes_beyond_the_sdk_works_with_real_servers(sandbox, daemon, work, language):
    import httpx

    name, text, _ = SOURCES[language]
    path = project(work, language)
    if language == "python":
        (work / path).write_text("def greet(name):\n    return nam\n\n\ngreet(  1 )\n")
        line, column, new_line = 4, 2, 0
    else:
        (work / path).write_text("function greet(name: string) {\n  return nam\n}\n\ngreet(  'x' )\n")
        line, column, new_line = 4, 2, 0
    base = {"languageId": language, "pathToProject": "e2e-lsp-project", "uri": f"file://{path}"}
    async with httpx.AsyncClient(base_url=daemon.url, timeout=60) as http:

        async def post(operation, **more):
            reply = await http.post(f"/lsp/{operation}", json={**base, **more})
            assert reply.status_code == 200, reply.text
            return reply.json() if reply.content else None

        await post("start")
        position = {"line": line, "character": column}
        uri = f"file://{work / path}"
        assert "greet" in (await post("hover", position=position))["contents"]["value"]
        definition = await post("definition", position=position)
        assert [(place["uri"], place["range"]["start"]["line"]) for place in definition] == [(uri, new_line)]
        references = await post("references", position=position)
        assert sorted(place["range"]["start"]["line"] for place in references) == [0, 4]
        renamed = await post("rename", position=position, newName="hello")
        assert [change["uri"] for change in renamed["changes"]] == [uri]
        diagnostics = (await http.get("/lsp/diagnostics", params={**base, "timeoutMs": 30000})).json()
        assert diagnostics["settled"]
        assert any("nam" in item["message"] and item["uri"] == uri for item in diagnostics["items"])
        assert "greet(" in (work / path).read_text()
        if language == "typescript":
            assert await post("formatting")
        await post("stop")


async def test_many_at_once_on_five_projects_neither_crash_nor_hang(sandbox, daemon, work):
    for number in range(5):
        (work / f"p{number}").mkdir()
        (work / f"p{number}" / "a.py").write_text(PYTHON)

    def use(number):
        async def calls():
            lsp = sandbox.create_lsp_server(LspLanguageId.PYTHON, f"p{number % 5}")
            path = f"p{number % 5}/a.py"
            for call in (
                lsp.start,
                lambda: lsp.completions(path, LspCompletionPosition(line=6, character=8)),
                lsp.stop,
            ):
                try:
                    result = await asyncio.to_thread(call)
                    await done(result)
                except Exception as error:
                    # Others stop it meanwhile.
                    told = str(error)
                    assert "not initialized" in told or "none was started" in told, told

        return calls()

    await asyncio.gather(*(use(number) for number in range(50)))
    await until(lambda: not running(daemon))
    assert daemon.process.poll() is None

"""Every file method of both Python SDKs."""

import io
import os

import httpx
import pytest
from conftest import NOBODY, done, items, start
from daytona import (
    AsyncDaytona,
    Daytona,
    DaytonaConfig,
    DaytonaError,
    FileDownloadRequest,
    FileUpload,
)
from daytona.common.errors import (
    DaytonaBadRequestError,
    DaytonaConflictError,
    DaytonaFileAccessDeniedError,
    DaytonaFileNotFoundError,
    DaytonaInvalidFilePathError,
    DaytonaNotFoundError,
)

# Names that survive only when nobody re-encodes or normalises them.
NAMES = ["plain.txt", "with space", "plus+sign", "per%25cent", "q?&=#", "ünï·日本", "quote'\"\\", "semi;colon"]


async def test_list_gives_names_in_byte_order_and_all_facts(fs, work):
    (work / "b").mkdir()
    (work / "b" / "deep").mkdir()
    (work / "b" / "deep" / "x").write_text("x")
    (work / "a.txt").write_text("hello")
    (work / ".hidden").write_text("")
    (work / "Z").write_text("")
    (work / "a.txt").chmod(0o640)
    listed = await done(fs.list_files("."))
    assert [entry.name for entry in listed] == [".hidden", "Z", "a.txt", "b"]
    entry = listed[2]
    assert (entry.size, entry.is_dir, entry.permissions, entry.mode) == (5, False, "0640", "-rw-r-----")
    assert (entry.owner, entry.group) == (str(os.getuid()), str(os.getgid()))
    assert entry.path == str(work / "a.txt")
    assert listed[3].is_dir
    assert (await done(fs.list_files(str(work / "b" / "deep"))))[0].name == "x"


async def test_list_goes_as_deep_as_it_is_told(fs, work):
    (work / "a" / "b").mkdir(parents=True)
    (work / "a" / "b" / "c").write_text("")
    (work / "d").write_text("")

    async def listed(depth):
        return [os.path.relpath(entry.path, work) for entry in await done(fs.list_files(".", depth=depth))]

    assert await listed(1) == ["a", "d"]
    assert await listed(2) == ["a", "a/b", "d"]
    assert await listed(9) == ["a", "a/b", "a/b/c", "d"]
    with pytest.raises(DaytonaError):
        await listed(0)


async def test_info_tells_of_files_directories_and_links(fs, work):
    (work / "file").write_text("12345")
    (work / "link").symlink_to("file")
    info = await done(fs.get_file_info("file"))
    assert (info.name, info.size, info.is_dir, info.path) == ("file", 5, False, str(work / "file"))
    assert info.modified_at.startswith("20") and info.mod_time.startswith(info.modified_at[:10])
    assert (await done(fs.get_file_info("."))).is_dir
    link = await done(fs.get_file_info("link"))
    assert (link.name, link.size) == ("link", 5)


async def test_folders_are_made_with_parents_and_mode(fs, work):
    await done(fs.create_folder("one/two", "700"))
    assert (work / "one/two").is_dir()
    assert (work / "one/two").stat().st_mode & 0o777 == 0o700
    await done(fs.create_folder("one/two", "0700"))  # once more changes nothing


async def test_files_and_trees_are_deleted(fs, work):
    (work / "tree" / "leaf").mkdir(parents=True)
    (work / "file").write_text("")
    await done(fs.delete_file("file"))
    with pytest.raises(DaytonaBadRequestError):
        await done(fs.delete_file("tree"))
    assert (work / "tree" / "leaf").exists()
    await done(fs.delete_file("tree", recursive=True))
    assert list(work.iterdir()) == []


async def test_files_move_and_never_onto_another(fs, work):
    (work / "a").write_text("a")
    (work / "taken").write_text("t")
    await done(fs.move_files("a", "b"))
    assert (work / "b").read_text() == "a"
    with pytest.raises(DaytonaConflictError):
        await done(fs.move_files("b", "taken"))
    assert (work / "taken").read_text() == "t"


async def test_mode_owner_and_group_are_set(fs, work):
    (work / "a").write_text("")
    await done(fs.set_file_permissions("a", mode="600"))
    assert (work / "a").stat().st_mode & 0o777 == 0o600
    if os.getuid() == 0:
        await done(fs.set_file_permissions("a", owner="nobody", group=str(NOBODY)))
        found = (work / "a").stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (NOBODY, NOBODY, 0o600)
    with pytest.raises(DaytonaBadRequestError):
        await done(fs.set_file_permissions("a", owner="no-such-user"))
    with pytest.raises(DaytonaBadRequestError):
        await done(fs.set_file_permissions("a", mode="rwx"))


async def test_text_is_found_with_file_and_line(fs, work):
    (work / "src" / ".git").mkdir(parents=True)
    (work / "src" / "a.py").write_text("import os\n# TODO: one\nx = 1  # TODO: two\n")
    (work / "src" / ".git" / "config").write_text("TODO: hidden files count\n")
    (work / "src" / "b.py").write_text("nothing\n")
    matches = await done(fs.find_files("src", "TODO:"))
    found = sorted((os.path.basename(match.file), match.line, match.content.strip()) for match in matches)
    assert found == [
        ("a.py", 2, "# TODO: one"),
        ("a.py", 3, "x = 1  # TODO: two"),
        ("config", 1, "TODO: hidden files count"),
    ]
    assert await done(fs.find_files("src", "no such text")) == []


async def test_names_are_searched_by_pattern(fs, work):
    (work / "src" / "deep").mkdir(parents=True)
    for name in ("a.py", "b.txt", "deep/c.py"):
        (work / "src" / name).write_text("")
    files = (await done(fs.search_files(str(work / "src"), "*.py"))).files
    assert sorted(os.path.relpath(file, work / "src") for file in files) == ["a.py", "deep/c.py"]
    assert (await done(fs.search_files("src", "*.rs"))).files == []


async def test_text_is_replaced_and_each_file_is_accounted_for(fs, work):
    (work / "a").write_text("old and old\n")
    (work / "b").write_text("nothing\n")
    results = await done(fs.replace_in_files(["a", "b", "missing"], "old", "new"))
    assert [(result.file, result.success) for result in results] == [("a", True), ("b", True), ("missing", False)]
    assert results[2].error
    assert (work / "a").read_text() == "new and new\n"


@pytest.mark.parametrize("name", NAMES)
async def test_any_name_and_any_bytes_go_up_and_down(fs, work, name):
    content = bytes(range(256)) * 300
    await done(fs.upload_file(content, f"dir/{name}"))
    assert (work / "dir" / name).read_bytes() == content
    assert await done(fs.download_file(f"dir/{name}")) == content
    assert (await done(fs.get_file_info(f"dir/{name}"))).name == name


async def test_a_name_with_a_line_break_is_a_name(fs, work):
    # Written here: the asyncio SDK refuses to send such a name as a form field.
    (work / "new\nline").write_text("content")
    assert [entry.name for entry in await done(fs.list_files("."))] == ["new\nline"]
    assert await done(fs.download_file("new\nline")) == b"content"
    await done(fs.move_files("new\nline", "other\nline"))
    assert (work / "other\nline").exists()


async def test_local_files_go_up_and_down(fs, work, tmp_path):
    source, target = tmp_path / "source", tmp_path / "made" / "target"
    source.write_bytes(os.urandom(3 << 20))
    target.parent.mkdir()
    await done(fs.upload_file(str(source), "big"))
    await done(fs.download_file("big", str(target)))
    assert source.read_bytes() == (work / "big").read_bytes() == target.read_bytes()


async def test_an_upload_replaces_the_whole_file_and_keeps_its_mode(fs, work):
    (work / "script").write_text("something longer")
    (work / "script").chmod(0o755)
    await done(fs.upload_file(b"short", "script"))
    assert (work / "script").read_bytes() == b"short"
    assert (work / "script").stat().st_mode & 0o777 == 0o755


async def test_many_files_go_up_and_down_at_once(fs, work, tmp_path):
    (tmp_path / "local").write_text("from a file")
    await done(
        fs.upload_files(
            [
                FileUpload(source=b"one", destination="many/1"),
                FileUpload(source=b"", destination="many/empty"),
                FileUpload(source=str(tmp_path / "local"), destination=str(work / "many/2")),
            ]
        )
    )
    results = await done(
        fs.download_files(
            [
                FileDownloadRequest(source="many/1"),
                FileDownloadRequest(source="many/empty"),
                FileDownloadRequest(source="many/2", destination=str(tmp_path / "down")),
                FileDownloadRequest(source="many/missing"),
                FileDownloadRequest(source="many"),
            ]
        )
    )
    assert [result.source for result in results] == ["many/1", "many/empty", "many/2", "many/missing", "many"]
    assert results[0].result == b"one"
    assert results[1].error is None and not results[1].result
    assert (tmp_path / "down").read_text() == "from a file"
    missing, directory = results[3], results[4]
    assert missing.result is None and missing.error_details.status_code == 404
    assert (missing.error_details.code, missing.error_details.source) == ("FILE_NOT_FOUND", "DAYTONA_DAEMON")
    assert directory.error and directory.error_details.status_code == 400


async def test_streams_go_up_and_down(fs, work):
    content = os.urandom(2 << 20)
    sent = []
    await done(fs.upload_file_stream(io.BytesIO(content), "stream", on_progress=lambda now: sent.append(now.bytes_sent)))
    assert (work / "stream").read_bytes() == content
    assert sent[-1] == len(content)
    assert b"".join(await items(fs.download_file_stream("stream"))) == content
    with pytest.raises(DaytonaFileNotFoundError):
        await items(fs.download_file_stream("missing"))


async def test_signed_urls_need_nothing_but_http(sandbox, work):
    (work / "a b+c").write_text("content")
    url = await done(sandbox.download_url("a b+c"))
    assert httpx.get(url).text == "content"
    assert httpx.get(url, headers={"range": "bytes=0-2"}).text == "con"
    assert httpx.get(url.replace("a+b", "a+x")).status_code == 401
    assert httpx.get(await done(sandbox.download_url("a b+c", -1))).text == "content"  # for ever

    url = await done(sandbox.upload_url("up/form"))
    assert httpx.post(url, files={"file": ("name", b"as a form")}).status_code == 200
    assert (work / "up/form").read_text() == "as a form"
    url = await done(sandbox.upload_url("up/raw", 60))
    assert httpx.post(url, content=b"as it is", headers={"content-type": "application/octet-stream"}).status_code == 200
    assert (work / "up/raw").read_text() == "as it is"
    assert httpx.get(url).status_code in (401, 404)

    await done(sandbox.rotate_signing_key())
    assert httpx.post(url, content=b"late").status_code == 401
    assert httpx.get(await done(sandbox.download_url("a b+c"))).text == "content"


async def test_what_is_missing_is_said_to_be(fs):
    for call in (
        lambda: fs.get_file_info("missing"),
        lambda: fs.list_files("missing"),
        lambda: fs.download_file("missing"),
        lambda: fs.delete_file("missing"),
        lambda: fs.delete_file("missing", recursive=True),
        lambda: fs.move_files("missing", "anywhere"),
        lambda: fs.set_file_permissions("missing", mode="644"),
    ):
        with pytest.raises(DaytonaFileNotFoundError) as caught:
            await done(call())
        assert isinstance(caught.value, DaytonaNotFoundError)
        assert (caught.value.status_code, caught.value.code) == (404, "FILE_NOT_FOUND")
        assert "missing" in str(caught.value)


async def test_a_path_of_the_wrong_kind_is_refused(fs, work):
    (work / "file").write_text("")
    (work / "directory").mkdir()
    for call in (lambda: fs.list_files("file"), lambda: fs.download_file("directory"), lambda: fs.get_file_info("x" * 300)):
        with pytest.raises(DaytonaInvalidFilePathError):
            await done(call())


@pytest.mark.parametrize("form", ["sync", "async"])
async def test_what_the_system_forbids_is_said_to_be(form):
    with start(user=NOBODY if os.getuid() == 0 else None) as daemon:
        config = DaytonaConfig(api_url=f"{daemon.url}/api", api_key="any", target="local")
        client = Daytona(config) if form == "sync" else AsyncDaytona(config)
        fs = (await done(client.create())).fs
        closed = daemon.work / "closed"
        closed.mkdir(mode=0o755)
        (closed / "secret").write_text("")
        (closed / "secret").chmod(0)
        for call in (
            lambda: fs.download_file("closed/secret"),
            lambda: fs.delete_file("/etc/passwd"),
            lambda: fs.create_folder("/etc/new", "755"),
            lambda: fs.set_file_permissions("/etc/passwd", mode="777"),
        ):
            with pytest.raises(DaytonaFileAccessDeniedError):
                await done(call())
        if form == "async":
            await client.close()

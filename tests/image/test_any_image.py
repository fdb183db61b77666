"""The same binary put into roots that are not ours: it needs nothing from them."""

import shutil
import ssl
from pathlib import Path

import images
import pytest
import trustme
from images import run
from remotes import LOGIN, git, serve
from sandboxes import LIMIT, Bare, start


def busybox(root):
    """As busybox's own image: a shell and its tools, and no more."""
    (root / "bin").mkdir()
    shutil.copy("/bin/busybox", root / "bin/busybox")
    for name in run("/bin/busybox", "--list").stdout.split():
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "tmp").mkdir(mode=0o1777)


def alpine(root):
    """As Alpine has it: musl, busybox, its own idea of /etc."""
    busybox(root)
    (root / "lib").mkdir()
    for file in Path("/lib").rglob("ld-musl-*.so.1"):
        shutil.copy(file, root / "lib" / file.name)
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/ash\nguest:x:405:100:guest:/dev/null:/sbin/nologin\n")
    (root / "etc/group").write_text("root:x:0:root\nusers:x:100:\n")
    (root / "etc/shells").write_text("/bin/ash\n")
    (root / "root").mkdir()


ROOTS = {
    "nothing but the binary": {},
    "nothing, not even /proc": {"proc": False},
    "nothing, read-only": {"read_only": True},
    "nothing, an unknown user": {"user": 54321},
    "busybox": {"fill": busybox},
    "busybox without /proc": {"fill": busybox, "proc": False},
    "busybox, an unknown user": {"fill": busybox, "user": 54321},
    "busybox, read-only": {"fill": busybox, "read_only": True},
    "alpine": {"fill": alpine},
}


@pytest.fixture(scope="module")
def authority():
    """Who vouches for the servers of these tests; nobody else knows it."""
    return trustme.CA()


@pytest.fixture
def upstream(authority, tmp_path):
    """A repository that is served over HTTPS."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    with serve(tmp_path, tls) as upstream:
        yield upstream


def check_files(sandbox, is_read_only):
    """Files are served, written and searched, or it is said why they cannot be."""
    uploaded = sandbox.upload("/data/a", b"a needle\n")
    if is_read_only:
        assert uploaded[0] in (400, 403, 500) and b"read-only file system" in uploaded[1].lower(), uploaded
        return
    assert uploaded[0] == 200, uploaded
    assert sandbox.request("GET", "/files/download?path=/data/a") == (200, b"a needle\n")
    assert [match["line"] for match in sandbox.get("/files/find?path=/data&pattern=needle")] == [1]


def check_clone(sandbox, upstream, is_read_only):
    """A repository is cloned over HTTPS: whom the daemon does not know it does not trust, unless it is told to."""
    clone = {"url": upstream.url, "path": "/data/repo", "username": LOGIN[0], "password": LOGIN[1]}
    status, refused = sandbox.request("POST", "/git/clone", clone)
    assert status >= 400 and (is_read_only or b"certificate" in refused), refused
    status, reply = sandbox.request("POST", "/git/clone", {**clone, "insecure_skip_tls": True})
    if is_read_only:
        assert status >= 400 and b"read-only file system" in reply.lower(), reply
        return
    assert status == 200, reply
    assert sandbox.request("GET", "/files/download?path=/data/repo/README") == (200, b"one\n")
    state = sandbox.get("/git/status?path=/data/repo")
    assert (state["currentBranch"], state["ahead"], state["fileStatus"] or []) == ("main", 0, [])


@pytest.mark.parametrize("name", ROOTS)
def test_everything_works_that_can_and_the_rest_says_what_is_missing(name, upstream):
    options = ROOTS[name]
    is_read_only = options.get("read_only", False)
    with Bare(**options) as root:
        assert root.get("/work-dir") == {"dir": "/"}
        assert {entry["name"] for entry in root.get("/files?path=/")} >= {"toolboxd", "data"}
        check_files(root, is_read_only)
        check_clone(root, upstream, is_read_only)
        if is_read_only:
            assert list(root.root.joinpath("data").iterdir()) == [], "nothing is left behind"
        expected = (3, "one\n") if "fill" in options else (-1, "fork/exec sh: no such file or directory")
        assert root.execute("echo one; exit 3") == expected


def test_a_bundle_of_certificates_is_used_where_one_is_named(authority, upstream):
    def fill(root):
        authority.cert_pem.write_to_path(root / "ca.pem")

    with Bare(fill=fill, SSL_CERT_FILE="/ca.pem") as root:
        clone = {"url": upstream.url, "path": "/data/repo", "username": LOGIN[0], "password": LOGIN[1]}
        root.post("/git/clone", clone)
        assert git(root.root / "data/repo", "rev-parse", "HEAD") == upstream.tip("main")


def test_copied_into_debian_it_serves_a_user_that_has_no_name(upstream):
    with start(images.injected()) as container:
        check_files(container, is_read_only=False)
        check_clone(container, upstream, is_read_only=False)
        assert container.execute("id -u; echo ~; pwd") == (0, "1234\n/data\n/data\n")
        container.post("/process/session", {"sessionId": "s"})
        assert container.post("/process/session/s/exec", {"command": "cd /tmp; pwd"})["stdout"] == "/tmp\n"


def test_the_binary_installs_itself_where_nothing_else_could_copy_it():
    with Bare() as root:
        root.exec("/toolboxd", "--install", "/data/toolboxd")
        installed = root.root / "data/toolboxd"
        assert installed.read_bytes() == (root.root / "toolboxd").read_bytes()
        assert installed.stat().st_mode & 0o777 == 0o755


def test_in_a_microvm_it_mounts_what_an_init_system_would():
    with Bare(fill=busybox, proc=False, TOOLBOXD_MICROVM="true") as root:
        mounts = root.execute("cut -d' ' -f2,3 /proc/mounts")[1].splitlines()
        for mount in ["/proc proc", "/sys sysfs", "/dev devtmpfs", "/dev/pts devpts", "/dev/shm tmpfs", "/run tmpfs"]:
            assert mount in mounts
        assert root.execute("echo > /dev/null && ifconfig lo | grep -c UP") == (0, "1\n")
        # Being restarted is the end of a namespace (reboot(2)).
        root.stop(LIMIT)

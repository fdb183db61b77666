"""The same binary put into roots that are not ours: it needs nothing from them.

Each root is entered with chroot in namespaces of its own, as pid 1; only what a case names is there or mounted.
"""

import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from conftest import BINARY, LIMIT, free_port, run


class Root:
    """A daemon as pid 1 in a root; gone when the block ends, its log shown by pytest on failure."""

    def __init__(self, fill=lambda root: None, user=0, proc=True, read_only=False, **environment):
        self.directory = Path(tempfile.mkdtemp(prefix="toolboxd-root-"))
        self.root = self.directory / "root"
        self.root.mkdir()
        self.directory.chmod(0o755)
        self.root.chmod(0o755)
        run("strip", "-o", self.root / "toolboxd", BINARY)
        (self.root / "data").mkdir()
        os.chown(self.root / "data", user, user)
        fill(self.root)
        steps = [f"mount --bind {self.root} {self.root}"]
        if proc:
            (self.root / "proc").mkdir(exist_ok=True)
            steps.append(f"mount -t proc proc {self.root}/proc")
        if read_only:
            steps.append(f"mount -o remount,ro,bind {self.root} {self.root}")
        enter = f"exec chroot --userspec={user}:{user} --groups= {self.root} /toolboxd"
        self.port = free_port()
        self.log = self.directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", " && ".join([*steps, enter])],
                env={"DAYTONA_SANDBOX_ID": "box", "TOOLBOXD_LISTEN": f"127.0.0.1:{self.port}", **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while True:
            try:
                self.get("/version")
                return
            except urllib.error.URLError:
                assert self.process.poll() is None, self.log.read_text()

    def request(self, method, path, body=None, content_type="application/json"):
        """Status and body of a reply."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", body, {"Content-Type": content_type}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=LIMIT) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def get(self, path):
        status, body = self.request("GET", path)
        assert status == 200, body
        return json.loads(body)

    def execute(self, command):
        status, body = self.request("POST", "/process/execute", json.dumps({"command": command}).encode())
        return status, json.loads(body)

    def daemon(self):
        """The process that is pid 1 in the root."""
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()  # and with it what it started
        self.process.wait(timeout=LIMIT)
        print(self.log.read_text())
        shutil.rmtree(self.directory)


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


@pytest.mark.parametrize("name", ROOTS)
def test_files_are_served_and_commands_run_or_say_what_is_missing(name):
    options = ROOTS[name]
    with Root(**options) as root:
        assert root.get("/work-dir") == {"dir": "/"}
        assert {entry["name"] for entry in root.get("/files?path=/")} >= {"toolboxd", "data"}
        upload = root.request("POST", "/files/upload-v2?path=/data/a", b"a needle\n", "application/octet-stream")
        if options.get("read_only"):
            assert upload[0] in (400, 403, 500) and b"read-only file system" in upload[1].lower(), upload
            assert list(root.root.joinpath("data").iterdir()) == [], "nothing is left behind"
        else:
            assert upload[0] == 200, upload
            assert root.request("GET", "/files/download?path=/data/a") == (200, b"a needle\n")
            assert [match["line"] for match in root.get("/files/find?path=/data&pattern=needle")] == [1]
        status, reply = root.execute("echo one; exit 3")
        if "fill" in options:
            assert (status, reply) == (200, {"exitCode": 3, "result": "one\n"})
        else:
            assert (status, reply["exitCode"]) == (200, -1)
            assert reply["result"] == "fork/exec sh: no such file or directory"


def test_the_binary_installs_itself_where_nothing_else_could_copy_it():
    with Root() as root:
        # As root of the namespace that the daemon is in, which has /proc.
        run("nsenter", "--all", "--root", "--wd", "--target", str(root.daemon()), "/toolboxd", "--install", "/data/toolboxd")
        installed = root.root / "data/toolboxd"
        assert installed.read_bytes() == (root.root / "toolboxd").read_bytes()
        assert installed.stat().st_mode & 0o777 == 0o755


def test_in_a_microvm_it_mounts_what_an_init_system_would():
    with Root(fill=busybox, proc=False, TOOLBOXD_MICROVM="true") as root:
        mounts = root.execute("cut -d' ' -f2,3 /proc/mounts")[1]["result"].splitlines()
        for mount in ["/proc proc", "/sys sysfs", "/dev devtmpfs", "/dev/pts devpts", "/dev/shm tmpfs", "/run tmpfs"]:
            assert mount in mounts
        assert root.execute("echo > /dev/null && ifconfig lo | grep -c UP")[1] == {"exitCode": 0, "result": "1\n"}
        # Being restarted is the end of a namespace (reboot(2)).
        run("kill", "-TERM", str(root.daemon()))
        root.process.wait(timeout=LIMIT)

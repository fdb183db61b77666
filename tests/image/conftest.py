"""What the image tests stand on: the image, built once from the Dockerfile, and containers of it.

No registry is asked: the base is made with debootstrap under the name that the Dockerfile has for it, and the program is
the one that was built for the other tests. Everything is kept in the build directory.
"""

import json
import os
import shutil
import socket
import subprocess
import tarfile
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("TOOLBOXD_BINARY", ROOT / "target/debug/toolboxd"))
STATE = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "image"
BASE = "localhost/debian:trixie-slim"
IMAGE = "localhost/toolboxd"
BUILT = "localhost/toolboxd-built"
# Seconds.
LIMIT = 60
# Low enough for machines that do not let limits be raised.
LIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]


def run(*command, check=True, **options):
    """A program to its end; its output is shown when it fails."""
    result = subprocess.run(command, capture_output=True, text=True, **options)
    assert not check or result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result


def podman(*arguments, **options):
    # The runtime directory is short-lived and its path short: sockets are in it.
    return run("podman", "--root", STATE / "storage", "--runroot", "/run/toolboxd-image-test", *arguments, **options)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def import_directory(directory, name):
    archive = STATE / "import.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(directory, arcname=".")
    podman("import", "--quiet", archive, name)
    archive.unlink()


def make_base():
    """Debian as its image has it, apart from documentation that the image leaves out."""
    if podman("image", "exists", BASE, check=False).returncode == 0:
        return
    root = STATE / "base"
    shutil.rmtree(root, ignore_errors=True)
    run("debootstrap", "--variant=minbase", "trixie", root)
    shutil.rmtree(root / "var/cache/apt")
    import_directory(root, BASE)
    shutil.rmtree(root)


def certificates():
    """What npm in the build needs where the machine has roots of its own."""
    file = os.environ.get("SSL_CERT_FILE")
    if not file:
        return []
    settings = STATE / "npmrc"
    settings.write_text("cafile=/ca.pem\n")
    return ["--volume", f"{file}:/ca.pem:ro", "--volume", f"{settings}:/etc/npmrc:ro"]


@pytest.fixture(scope="session")
def image():
    """The sandbox image."""
    STATE.mkdir(parents=True, exist_ok=True)
    make_base()
    built = STATE / "built"
    shutil.rmtree(built, ignore_errors=True)
    built.mkdir()
    run("strip", "-o", built / "toolboxd", BINARY)
    import_directory(built, BUILT)
    podman(
        *("build", "--isolation", "chroot", "--network", "host", "--format", "docker", "--pull=never"),
        *certificates(),
        *("--build-arg", f"BUILT={BUILT}", "--target", "sandbox", "--tag", IMAGE, ROOT),
    )
    yield IMAGE
    podman("container", "prune", "--force")
    podman("image", "prune", "--force")


class Container:
    """A container of the image, on a port of its own; gone when the block ends, its log shown by pytest on failure."""

    def __init__(self, image, *command, options=(), **environment):
        self.name = f"toolboxd-{uuid.uuid4().hex[:12]}"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {"DAYTONA_SANDBOX_ID": "box", "TOOLBOXD_LISTEN": f"127.0.0.1:{self.port}", **environment}
        podman(
            *("run", "--detach", "--name", self.name, "--runtime", "runc", "--network", "host", "--no-healthcheck"),
            *LIMITS,
            *(word for item in environment.items() for word in ("--env", "=".join(item))),
            *options,
            image,
            *command,
        )
        try:
            self.ready()
        except BaseException:
            self.__exit__()
            raise

    def ready(self):
        """Asks, as a platform's runner does, until the daemon answers or the container has ended."""
        while True:
            try:
                return self.get("/version")
            except urllib.error.URLError:
                assert self.state("Running"), self.log()

    def request(self, method, path, body=None, content_type="application/json"):
        data = json.dumps(body).encode() if content_type == "application/json" and body is not None else body
        headers = {"Content-Type": content_type, "X-Daytona-SDK-Version": "0.226.0"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=LIMIT) as reply:
            return reply.read()

    def get(self, path):
        return json.loads(self.request("GET", path))

    def post(self, path, body):
        return json.loads(self.request("POST", path, body))

    def execute(self, command):
        """Exit code and output of a command in the sandbox."""
        reply = self.post("/process/execute", {"command": command})
        return reply["exitCode"], reply["result"]

    def state(self, field):
        return json.loads(podman("inspect", self.name).stdout)[0]["State"][field]

    def stop(self, seconds):
        """What `docker stop` does; gives the exit status of the container."""
        podman("stop", "--time", str(seconds), self.name)
        return self.state("ExitCode")

    def log(self):
        result = podman("logs", self.name)
        return result.stdout + result.stderr

    def __enter__(self):
        return self

    def __exit__(self, *_):
        print(self.log())
        podman("rm", "--force", "--time", "0", self.name)


@pytest.fixture
def container(image):
    with Container(image, "sh", "-c", "echo started; exec sleep infinity") as one:
        yield one

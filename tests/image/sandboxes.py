"""Where the program runs in these tests: containers of an image, and roots that are entered with chroot."""

import functools
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import images
from images import BINARY, podman, run

# Seconds.
LIMIT = 60
# Not above the machine's own: some do not let limits be raised.
FILES, PROCESSES = resource.getrlimit(resource.RLIMIT_NOFILE)[1], 4096
LIMITS = ["--ulimit", f"nofile={FILES}:{FILES}", "--ulimit", f"nproc={PROCESSES}:{PROCESSES}"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Sandbox:
    """A daemon in surroundings of its own; gone when the block ends, its log shown by pytest on failure."""

    def begin(self, environment):
        """What it is told: to be found, and not to be stand-alone unless a test wants that."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        return {"DAYTONA_SANDBOX_ID": "box", "TOOLBOXD_LISTEN": f"127.0.0.1:{self.port}", **environment}

    def ready(self):
        """Asks, as a platform's runner does, until the daemon answers or has ended."""
        try:
            while True:
                try:
                    return self.get("/version")
                except urllib.error.URLError:
                    assert self.is_running(), self.log()
        except BaseException:
            self.__exit__()
            raise

    def request(self, method, path, body=None, content_type="application/json"):
        """Status and body of a reply."""
        data = json.dumps(body).encode() if content_type == "application/json" and body is not None else body
        headers = {"Content-Type": content_type, "X-Daytona-SDK-Version": "0.226.0"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=LIMIT) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def upload(self, path, content):
        return self.request("POST", f"/files/upload-v2?path={path}", content, "application/octet-stream")

    def json(self, method, path, body=None):
        status, reply = self.request(method, path, body)
        assert 200 <= status < 300, reply
        return json.loads(reply) if reply else None

    def get(self, path):
        return self.json("GET", path)

    def post(self, path, body=None):
        return self.json("POST", path, body)

    def execute(self, command):
        """Exit code and output of a command in the sandbox."""
        reply = self.post("/process/execute", {"command": command})
        return reply["exitCode"], reply["result"]

    def __enter__(self):
        return self


class Container(Sandbox):
    """A container."""

    def __init__(
        self,
        image,
        *command,
        user=None,
        privileged=False,
        read_only=False,
        memory=None,
        network=True,
        mounts=(),
        **environment,
    ):
        self.name = f"toolboxd-{uuid.uuid4().hex[:12]}"
        options = [word for item in self.begin(environment).items() for word in ("--env", "=".join(item))]
        options += [word for path in mounts for word in ("--volume", f"{path}:{path}:ro")]
        options += ["--network", "host" if network else "none"]
        if user:
            options += ["--user", user]
        if privileged:
            options += ["--privileged"]
        if read_only:
            options += ["--read-only", "--read-only-tmpfs=false", "--tmpfs", "/tmp:mode=1777"]
        if memory:
            options += ["--memory", memory, "--memory-swap", memory]
        first = ["run", "--detach", "--name", self.name, "--runtime", "runc", "--no-healthcheck"]
        podman(*first, *LIMITS, *options, image, *command)
        if network:
            self.ready()

    def state(self, field):
        return json.loads(podman("inspect", self.name).stdout)[0]["State"][field]

    def is_running(self):
        return self.state("Running")

    def exec(self, *command, check=True, **environment):
        """A program beside the daemon, not below it."""
        options = [word for item in environment.items() for word in ("--env", "=".join(item))]
        return podman("exec", *options, self.name, *command, check=check)

    def stop(self, seconds):
        """What `docker stop` does; gives the exit status of the container."""
        podman("stop", "--time", str(seconds), self.name)
        assert not self.state("OOMKilled")
        return self.state("ExitCode")

    def log(self):
        result = podman("logs", self.name)
        return result.stdout + result.stderr

    def __exit__(self, *_):
        print(self.log())
        podman("rm", "--force", "--time", "0", self.name)


class Root(Sandbox):
    """A root that is entered with chroot, as pid 1 in namespaces of its own.

    Only what a test names is there or mounted: `proc`, the machine's `devices`, a `tmp` of its own.
    """

    def __init__(
        self,
        root,
        *command,
        user="0:0",
        groups="",
        proc=True,
        devices=False,
        tmp=False,
        read_only=False,
        network=True,
        mounts=(),
        **environment,
    ):
        self.root = root
        steps = [f"mount --bind {root} {root}", "echo localhost > /proc/sys/kernel/hostname"]
        if read_only:
            steps.append(f"mount -o remount,ro,bind {root}")
        if proc:
            steps.append(f"mount -t proc proc {root}/proc")
        if devices:
            steps.append(f"mount --rbind /dev {root}/dev")
        if tmp:
            steps.append(f"mount -t tmpfs -o mode=1777 tmp {root}/tmp")
        for path in mounts:
            (root / str(path).lstrip("/")).mkdir(parents=True, exist_ok=True)
            steps.append(f"mount --bind -o ro {path} {root}{path}")
        if not network:
            steps.append("ip link set lo up")
        enter = f'exec chroot --userspec={user} --groups={groups} {root} "$@"'
        descriptor, log = tempfile.mkstemp(prefix="toolboxd-log-")
        self.log_file = Path(log)
        namespaces = ["--mount", "--pid", "--uts", *([] if network else ["--net"])]
        self.process = subprocess.Popen(
            [*("unshare", *namespaces, "--fork", "--kill-child"), "sh", "-c", " && ".join([*steps, enter]), "-", *command],
            env=self.begin(environment),
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
        )
        os.close(descriptor)
        if network:
            self.ready()

    def is_running(self):
        return self.process.poll() is None

    def child(self):
        """Pid 1 of the namespace, which becomes the daemon."""
        while True:
            assert self.is_running(), self.log()
            child = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
            if child:
                return int(child)

    def daemon(self):
        """The process that is pid 1 in the root, once it is there."""
        child = self.child()
        while not os.path.samefile(f"/proc/{child}/root", self.root):
            assert self.is_running(), self.log()
        return child

    def exec(self, *command, check=True, **environment):
        """A program beside the daemon, not below it."""
        enter = ["nsenter", "--all", "--root", "--wd", "--target", str(self.daemon())]
        return run(*enter, *command, check=check, env={**os.environ, **environment})

    def stop(self, seconds):
        """What `docker stop` does; gives the exit status."""
        os.kill(self.daemon(), signal.SIGTERM)
        return self.process.wait(timeout=seconds)

    def log(self):
        return self.log_file.read_text()

    def __exit__(self, *_):
        if self.is_running():
            os.kill(self.child(), signal.SIGKILL)  # as pid 1 it takes all others with it
        self.process.wait(timeout=LIMIT)
        print(self.log())
        self.log_file.unlink()


class Bare(Root):
    """A root of a test's own, with the program in it and what `fill` puts there."""

    def __init__(self, fill=lambda root: None, user=0, proc=True, **options):
        self.directory = Path(tempfile.mkdtemp(prefix="toolboxd-root-"))
        root = self.directory / "root"
        for path in (self.directory, root):
            path.mkdir(exist_ok=True)
            path.chmod(0o755)
        run("strip", "-o", root / "toolboxd", BINARY)
        (root / "data").mkdir()
        os.chown(root / "data", user, user)
        fill(root)
        if proc:
            (root / "proc").mkdir(exist_ok=True)
        super().__init__(root, "/toolboxd", user=f"{user}:{user}", proc=proc, **options)

    def __exit__(self, *_):
        super().__exit__()
        shutil.rmtree(self.directory)


class Entered(Root):
    """What a container of an image would be, on a machine that has no containers: no limits, no layer of its own."""

    def __init__(self, image, *command, user=None, privileged=False, read_only=False, memory=None, **options):
        assert memory is None, "a limit on memory takes a container"
        self.name = podman("create", image).stdout.strip()
        root = Path(podman("mount", self.name).stdout.strip())
        settings = json.loads(podman("image", "inspect", image).stdout)[0]["Config"]
        name = user or settings.get("User", "0:0")
        groups = name if ":" not in name else ""
        environment = dict(entry.split("=", 1) for entry in settings.get("Env", []))
        environment.pop("TOOLBOXD_LISTEN", None)  # each has a port of its own
        directory = settings.get("WorkingDir", "/")
        environment["HOME"] = "/root" if name == "root" else directory
        enter = [] if directory == "/" else ["env", "-C", directory]
        for name_in_root in ("proc", "dev", "etc"):
            (root / name_in_root).mkdir(exist_ok=True)
        (root / "etc/hosts").write_text("127.0.0.1 localhost\n")
        super().__init__(
            root,
            *(*enter, *settings["Entrypoint"], *command),
            user=name if ":" in name else f"{name}:{name}",
            groups=groups,
            devices=True,
            read_only=read_only,
            tmp=read_only,
            **{**environment, **options},
        )

    def __exit__(self, *_):
        super().__exit__()
        podman("umount", "--force", self.name)
        podman("rm", "--force", self.name)


@functools.cache
def has_containers():
    """Whether this machine can run containers; where it cannot, it is told why."""
    images.sandbox()
    options = ["--rm", "--runtime", "runc", "--network", "host", *LIMITS, "--entrypoint", "true"]
    tried = podman("run", *options, images.SANDBOX, check=False)
    if tried.returncode:
        print(f"no containers on this machine: {tried.stderr.strip()}")
    return tried.returncode == 0


def start(image, *command, **options):
    """A container of the image, or its root file system entered with chroot where there are no containers."""
    return (Container if has_containers() else Entered)(image, *command, **options)

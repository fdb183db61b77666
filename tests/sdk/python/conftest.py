"""What the SDK tests stand on: a daemon of their own, and one way to drive both forms of the Python SDK.

Most tests run twice, with the blocking SDK and with the asyncio one. They are written once: `done` gives the value of
a call of either.
"""

import asyncio
import contextlib
import inspect
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from daytona import AsyncDaytona, Daytona, DaytonaConfig

ROOT = Path(__file__).resolve().parents[3]
BINARY = Path(os.environ.get("TOOLBOXD_BINARY", ROOT / "target/debug/toolboxd"))
NOBODY = 65534
# With the packages and programs that tests/run installs.
PATH = os.pathsep.join([str(Path(sys.executable).parent), str(ROOT / "tests/sdk/node_modules/.bin"), os.environ["PATH"]])
# Seconds.
LIMIT = 60


async def done(call):
    """The value of a call of either SDK."""
    return await call if inspect.isawaitable(call) else call


async def within(awaitable):
    """What a test waits for; the limit is reached only when something is broken."""
    return await asyncio.wait_for(awaitable, LIMIT)


async def until(check):
    """Asks again, at once, until the answer is no longer None or false."""

    async def ask():
        while not (answer := await done(check())):
            await asyncio.sleep(0)
        return answer

    return await within(ask())


async def items(stream):
    """Everything that an iterator of either SDK gives."""
    stream = await done(stream)
    if hasattr(stream, "__aiter__"):
        return [item async for item in stream]
    return list(stream)


class DaemonProcess:
    """The binary, in directories of its own; stopped when the block ends, its log shown by pytest on failure."""

    def __init__(self, *arguments, user=None, **environment):
        # Not pytest's directory: that one is closed to other users.
        self.directory = Path(tempfile.mkdtemp(prefix="toolboxd-test-"))
        self.directory.chmod(0o755)
        self.work = self.directory / "work"
        self.home = self.directory / "home"
        for directory in (self.work, self.home):
            directory.mkdir()
            if user is not None:
                os.chown(directory, user, user)
        binary = self.directory / "toolboxd"
        shutil.copy(BINARY, binary)
        self.log = self.directory / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [binary, *arguments],
                cwd=self.work,
                env={"PATH": PATH, "HOME": str(self.home), "LANG": "C.UTF-8", **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                start_new_session=True,
            )
        self.url = self._ready()

    def _ready(self):
        for line in self.process.stdout:
            _, found, url = line.partition(" is ready on ")
            if found:
                return url.strip()
        raise RuntimeError(f"the daemon did not start:\n{self.log.read_text()}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(timeout=30)
        self.process.stdout.close()
        print(self.log.read_text())
        shutil.rmtree(self.directory, ignore_errors=True)


def start(*arguments, **options):
    """A daemon on a free loopback port."""
    return DaemonProcess("--listen", "127.0.0.1:0", *arguments, **options)


def start_on_default_port():
    """A daemon started with no setting at all; waits while another one has the port."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return DaemonProcess()
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


@pytest.fixture
def daemon():
    with start() as one:
        yield one


@contextlib.asynccontextmanager
async def connect(daemon, form):
    """A client of a daemon, of the SDK of that form."""
    config = DaytonaConfig(api_url=f"{daemon.url}/api", api_key="any", target="local")
    if form == "sync":
        yield Daytona(config)
    else:
        async with AsyncDaytona(config) as client:
            yield client


@pytest.fixture(params=["sync", "async"])
def form(request):
    """Which SDK."""
    return request.param


@pytest.fixture
async def sdk(form, daemon):
    """A client of the daemon, of either SDK."""
    async with connect(daemon, form) as client:
        yield client


@pytest.fixture
async def sandbox(sdk):
    return await done(sdk.create())


@pytest.fixture
def fs(sandbox):
    return sandbox.fs


@pytest.fixture
def work(daemon):
    """The directory that relative paths are in."""
    return daemon.work

"""Every PTY method of both Python SDKs, and programs that draw.

What a terminal shows is read by a terminal emulator of the size that it was given, so that a program which draws for
another size is seen.
"""

import asyncio
import contextlib
import gc
import inspect
import os
import threading

import httpx
import pyte
import pytest
from conftest import done, within
from daytona.common.errors import DaytonaConflictError, DaytonaConnectionError, DaytonaError, DaytonaNotFoundError
from daytona.common.pty import PtySize

PROMPT = "prompt> "


class Screen(pyte.Screen):
    def select_graphic_rendition(self, *attributes, private=False):
        if not private:  # vim sets modes of the keyboard in this form
            super().select_graphic_rendition(*attributes)


class Terminal:
    """A handle of either SDK that is read in the background, and a screen that shows what came."""

    def __init__(self, cols, rows):
        self.raw = bytearray()
        self.screen = Screen(cols, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.arrived = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    @classmethod
    async def create(cls, process, id, cols=80, rows=24, **options):
        self = cls(cols, rows)
        await self._open(process.create_pty_session, id, pty_size=PtySize(cols=cols, rows=rows), **options)
        return self

    @classmethod
    async def connect(cls, process, id):
        self = cls(80, 24)
        await self._open(process.connect_pty_session, id)
        return self

    async def _open(self, method, id, **options):
        if inspect.iscoroutinefunction(inspect.unwrap(method)):
            self.handle = await within(method(id, on_data=self._show, **options))
            self.result = asyncio.create_task(self.handle.wait())
        else:
            self.handle = await within(asyncio.to_thread(method, id, **options))
            self.result = self.loop.create_future()
            # Of its own: one that waits is not woken by a disconnect, and the loop would wait for it at its end.
            threading.Thread(target=self._read, daemon=True).start()
        self.result.add_done_callback(lambda _: self.arrived.set())

    def _read(self):
        with contextlib.suppress(RuntimeError):  # the test is over
            result = self.handle.wait(lambda data: self.loop.call_soon_threadsafe(self._show, data))
            self.loop.call_soon_threadsafe(self.result.set_result, result)

    def _show(self, data):
        self.raw += data
        self.stream.feed(data)
        self.arrived.set()

    async def _call(self, method, *arguments):
        if inspect.iscoroutinefunction(method):
            return await within(method(*arguments))
        return await within(asyncio.to_thread(method, *arguments))

    async def send(self, data):
        await self._call(self.handle.send_input, data)

    async def resize(self, cols, rows):
        self.screen.resize(rows, cols)  # first: programs draw for the new size before the answer is here
        info = await self._call(self.handle.resize, PtySize(cols=cols, rows=rows))
        assert (info.cols, info.rows) == (cols, rows)

    async def kill(self):
        await self._call(self.handle.kill)

    async def disconnect(self):
        await self._call(self.handle.disconnect)

    async def shows(self, check):
        """Waits until the screen is right; the check is given its lines, without blanks at their ends."""

        async def watch():
            while not check([line.rstrip() for line in self.screen.display]):
                assert not self.result.done(), f"the terminal has ended:\n{self.text()}"
                self.arrived.clear()
                await self.arrived.wait()

        try:
            await within(watch())
        except TimeoutError:
            raise AssertionError(f"the screen does not become right:\n{self.text()}") from None

    async def line(self, line):
        await self.shows(lambda lines: line in lines)

    async def run(self, command, line):
        """Runs a command that shows the line, until the shell is ready for the next."""
        await self.send(command + "\n")
        await self.line(line)
        await self.prompt()

    async def prompt(self):
        """Waits until the shell is ready: what is typed before is not always for it."""
        await self.shows(lambda lines: PROMPT.strip() == next((line for line in reversed(lines) if line), ""))

    def text(self):
        return "\n".join(self.screen.display)

    async def ended(self):
        """Exit code and error, once the terminal has ended."""
        result = await within(self.result)
        return result.exit_code, result.error


@pytest.fixture
def process(daemon, sandbox):
    # Whichever shell the machine prefers, it is plain, and asks new users nothing.
    (daemon.home / ".zshrc").write_text(f"unsetopt zle prompt_sp prompt_cr\nPS1='{PROMPT}'\n")
    (daemon.home / ".bash_profile").write_text(f"bind 'set enable-bracketed-paste off'\nPS1='{PROMPT}'\n")
    return sandbox.process


async def ids(process):
    return [each.id for each in await done(process.list_pty_sessions())]


async def test_terminals_are_created_listed_got_resized_and_killed(process, work):
    first = await Terminal.create(process, "first", cols=100, rows=30)
    second = await Terminal.create(process, "zwei ü?#%", cwd="/", envs={"GREETING": "ünï 日本"})
    assert await ids(process) == ["first", "zwei ü?#%"]
    info = await done(process.get_pty_session_info("first"))
    assert (info.id, info.cwd, info.cols, info.rows) == ("first", str(work), 100, 30)
    assert (info.active, info.lazy_start, info.envs) == (True, False, {"TERM": "xterm-256color"})
    await first.prompt()
    await first.run("stty size", "30 100")
    await first.resize(120, 40)
    await first.run("stty size", "40 120")
    info = await done(process.resize_pty_session("first", PtySize(cols=90, rows=20)))
    assert (info.cols, info.rows) == (90, 20)
    await second.prompt()
    await second.run('echo "$GREETING $PWD $TERM"', "ünï 日本 / xterm-256color")
    await second.run("[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo terminal", "terminal")
    await second.kill()
    assert await second.ended() == (137, "SIGKILL")
    assert await ids(process) == ["first"]
    await done(process.kill_pty_session("first"))
    assert await first.ended() == (137, "SIGKILL")
    assert await ids(process) == []


async def test_the_exit_code_is_told(process):
    for code, error in ((0, None), (3, "non-zero exit"), (130, "Ctrl+C")):
        terminal = await Terminal.create(process, "mine")  # the id is free again
        await terminal.prompt()
        await terminal.send(f"echo last words; exit {code}\n")
        assert await terminal.ended() == (code, error)
        assert "last words\r\n" in terminal.raw.decode()
        assert not terminal.handle.is_connected()


async def test_what_cannot_be_is_refused(process):
    await Terminal.create(process, "mine")
    with pytest.raises(DaytonaConflictError):
        await Terminal.create(process, "mine")
    with pytest.raises(DaytonaError):
        await Terminal.create(process, "large", cols=1001)
    with pytest.raises((DaytonaConnectionError, DaytonaError), match="chdir /no/such: no such file"):
        await Terminal.create(process, "lost", cwd="/no/such")
    with pytest.raises((DaytonaConnectionError, DaytonaError), match="PTY session missing not found"):
        await Terminal.connect(process, "missing")
    for call in (process.get_pty_session_info, process.kill_pty_session):
        with pytest.raises(DaytonaNotFoundError):
            await done(call("missing"))
    with pytest.raises(DaytonaError, match="PTY session missing not found") as caught:
        await done(process.resize_pty_session("missing", PtySize(cols=80, rows=24)))
    assert caught.value.status_code == 410
    assert await ids(process) == ["mine"]


async def test_two_handles_share_a_terminal_that_outlives_them(process):
    one = await Terminal.create(process, "shared")
    await one.prompt()
    two = await Terminal.connect(process, "shared")
    await two.send("name=wörld; echo \"hello $name\"\n")
    await one.line("hello wörld")
    await two.line("hello wörld")
    await one.disconnect()
    await two.prompt()
    await two.run("echo still here", "still here")
    await two.disconnect()
    three = await Terminal.connect(process, "shared")
    await three.send(b"echo \"again $name\"; exit 5\n")
    assert await three.ended() == (5, "non-zero exit")
    assert "again wörld" in three.raw.decode()


async def test_unicode_passes_both_ways_however_it_is_cut(process):
    terminal = await Terminal.create(process, "mine")
    await terminal.prompt()
    await terminal.send("stty -echo; cat\n")
    await terminal.shows(lambda _: b"stty -echo; cat\r\n" in terminal.raw)
    text = "ünï·日本🦀 é"
    for byte in text.encode():
        await terminal.send(bytes([byte]))
    await terminal.send(f"\n{text}\n")
    await terminal.shows(lambda _: terminal.raw.decode(errors="replace").count(text) == 2)


async def test_several_megabytes_arrive_exactly(process):
    terminal = await Terminal.create(process, "mine")
    await terminal.prompt()
    await terminal.send("stty -opost; PS1=; seq 1 500000; exit\n")
    assert (await terminal.ended())[0] == 0
    assert "".join(f"{number}\n" for number in range(1, 500_001)).encode() in terminal.raw


async def test_jobs_are_interrupted_stopped_and_brought_back(process):
    terminal = await Terminal.create(process, "mine")
    await terminal.prompt()
    await terminal.send("sh -c 'echo running; exec sleep 1000'\n")
    await terminal.line("running")
    await terminal.send(b"\x03")
    await terminal.prompt()
    await terminal.run("echo \"code $?\"", "code 130")
    await terminal.send("sh -c 'echo again; exec cat'\n")
    await terminal.line("again")
    await terminal.send(b"\x1a")
    await terminal.prompt()
    await terminal.run("jobs > jobs; grep -ci -e stopped -e suspended jobs | sed 's/^/jobs: /'", "jobs: 1")
    await terminal.send("fg\n")
    # Typed, stopped, and by `fg`, which names the job before it is in front.
    await terminal.shows(lambda _: terminal.raw.count(b"exec cat'\r\n") == 3)
    await terminal.send("back\n")
    await terminal.shows(lambda _: terminal.raw.count(b"back\r\n") == 2)  # typed, and read by who is in front again
    await terminal.send(b"\x03")
    await terminal.prompt()
    await terminal.run("echo \"code $?\" again", "code 130 again")


async def test_vim_draws_at_the_size_and_edits(process, work):
    (work / "text").write_text("".join(f"line {number}\n" for number in range(1, 101)))
    terminal = await Terminal.create(process, "mine", cols=70, rows=20)
    await terminal.prompt()
    await terminal.send("vim.tiny -u NONE -N text\r")
    # All rows but the last have text, and that has what vim says.
    await terminal.shows(lambda lines: lines[:19] == [f"line {number}" for number in range(1, 20)])
    await terminal.shows(lambda lines: lines[19].startswith('"text" 100'))
    await terminal.resize(50, 30)
    await terminal.shows(lambda lines: lines[:29] == [f"line {number}" for number in range(1, 30)])
    await terminal.send("ggcwfirst ünï\x1b")
    await terminal.shows(lambda lines: lines[0] == "first ünï 1")
    await terminal.send(":wq\r")
    await terminal.prompt()
    assert (work / "text").read_text().startswith("first ünï 1\nline 2\n")


async def test_top_fills_the_screen(process):
    terminal = await Terminal.create(process, "mine", cols=90, rows=12)
    await terminal.prompt()
    await terminal.send("top\n")

    def is_full(rows):
        return lambda lines: len(lines) == rows and lines[0].startswith("top - ") and "PID" in lines[6] and lines[-1]

    await terminal.shows(is_full(12))
    await terminal.resize(80, 10)
    await terminal.shows(is_full(10))
    await terminal.send("q")
    await terminal.prompt()


@pytest.fixture
def no_collection():
    """Python's own collection of garbage stops all of the SDK's threads, for up to half a second on a busy machine."""
    gc.disable()
    yield
    gc.enable()


async def test_connected_comes_in_time_on_a_busy_machine(process, no_collection):
    # The blocking SDK gives it 100 ms.
    for number in range(2 * os.cpu_count()):
        busy = await Terminal.create(process, f"busy {number}")
        await busy.prompt()
        await busy.send("echo on; nice -n 1 yes > /dev/null\n")
        await busy.line("on")  # and then nothing more
    for number in range(40):
        terminal = await Terminal.create(process, f"quick {number}")
        await terminal.send("exit\n")
        again = await Terminal.connect(process, "busy 0")
        await again.disconnect()
        await terminal.ended()


async def test_a_client_of_rest_sees_the_prompt_that_came_before_it(daemon, process):
    # As SDKs before 0.200 make terminals.
    async with httpx.AsyncClient(base_url=daemon.url) as http:
        assert (await http.post("/process/pty", json={"id": "old"})).json() == {"sessionId": "old"}
    terminal = await Terminal.connect(process, "old")
    await terminal.prompt()
    await terminal.send("exit 4\n")
    assert await terminal.ended() == (4, "non-zero exit")

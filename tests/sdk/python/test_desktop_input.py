"""Mouse, keyboard and pictures of the desktop, with both Python SDKs.

On a display of the test's own, xev prints what its window gets, and a terminal keeps what is typed.
"""

import asyncio
import base64
import contextlib
import os
import re
import struct
import subprocess
import zlib

import pytest
from conftest import connect, done, start, until, within
from daytona import ScreenshotOptions, ScreenshotRegion
from daytona.common.errors import DaytonaBadRequestError, DaytonaError


@contextlib.contextmanager
def display(screen):
    """The name of a display of that size and depth."""
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", screen, "-noreset", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as number:
        name = f":{number.read().strip()}"
    try:
        yield name
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def screen():
    with display("800x600x24") as name:
        yield name


@pytest.fixture
def daemon(screen):
    with start(DISPLAY=screen) as one:
        yield one


@pytest.fixture
def computer(sandbox):
    return sandbox.computer_use


class Window:
    """What the window of xev is told: names of events, each with what belongs to it."""

    PLACE = re.compile(r"root:\((-?\d+),(-?\d+)\)")
    DETAIL = re.compile(r"(?:button (\d+)|keysym 0x\w+, (\w+)\))")

    def __init__(self, process):
        self.process = process

    async def next(self, *names):
        """The next event of one of these names: place on the screen, and button or key."""
        while True:
            line = (await within(self.process.stdout.readline())).decode()
            assert line, "xev has ended"
            name = line.split(" ")[0]
            if name in names:
                text = ""
                while "same_screen" not in text:
                    text += (await within(self.process.stdout.readline())).decode()
                x, y = self.PLACE.search(text).groups()
                detail = self.DETAIL.search(text)
                return name, int(x), int(y), detail and (detail[1] or detail[2])


@pytest.fixture
async def window(screen):
    process = await asyncio.create_subprocess_exec(
        "stdbuf", "-oL", "xev", "-geometry", "400x300+100+100", env={**os.environ, "DISPLAY": screen},
        stdout=asyncio.subprocess.PIPE,
    )
    # It says so when it can be seen.
    while not (await within(process.stdout.readline())).startswith(b"Expose"):
        pass
    yield Window(process)
    process.kill()
    await process.wait()


def decoded(screenshot):
    """Width, height and rows of a PNG, whose filters are undone."""
    file = base64.b64decode(screenshot.screenshot, validate=True)
    assert screenshot.size_bytes == len(file)
    assert file[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, colours = struct.unpack(">IIBB", file[16:26])
    assert (depth, colours) == (8, 2)
    at, data = 8, b""
    while at < len(file):
        (length,) = struct.unpack(">I", file[at : at + 4])
        if file[at + 4 : at + 8] == b"IDAT":
            data += file[at + 8 : at + 8 + length]
        at += length + 12
    data, size, rows, above = zlib.decompress(data), width * 3, [], bytes(width * 3)
    for start_of_row in range(0, len(data), size + 1):
        kind, row = data[start_of_row], bytearray(data[start_of_row + 1 : start_of_row + 1 + size])
        for index in range(size):
            left, up = (row[index - 3] if index >= 3 else 0), above[index]
            corner = above[index - 3] if index >= 3 else 0
            guess = left + up - corner
            paeth = min((left, up, corner), key=lambda value: abs(guess - value))
            row[index] = (row[index] + [0, left, up, (left + up) // 2, paeth][kind]) % 256
        rows.append(bytes(row))
        above = rows[-1]
    assert len(rows) == height
    return width, height, rows


async def test_the_pointer_moves_and_is_told(computer):
    mouse = computer.mouse
    moved = await done(mouse.move(150, 250))
    assert (moved.x, moved.y) == (150, 250)
    there = await done(mouse.get_position())
    assert (there.x, there.y) == (150, 250)
    edge = await done(mouse.move(99999, -5))
    assert (edge.x, edge.y) == (799, 0)


async def test_clicks_land_on_the_pixel(computer, window):
    mouse = computer.mouse
    for name, button in [("left", "1"), ("middle", "2"), ("right", "3")]:
        clicked = await done(mouse.click(123, 145, name))
        assert (clicked.x, clicked.y) == (123, 145)
        assert await window.next("ButtonPress") == ("ButtonPress", 123, 145, button)
        assert await window.next("ButtonRelease") == ("ButtonRelease", 123, 145, button)
    await done(mouse.click(200, 200, double=True))
    await done(mouse.click(201, 201, clicks=3, modifiers=["shift"]))
    presses = [await window.next("ButtonPress") for _ in range(5)]
    assert [x for _, x, _, _ in presses] == [200, 200, 201, 201, 201]
    assert (await window.next("KeyRelease"))[3] == "Shift_L"


async def test_a_drag_moves_with_the_button_down(computer, window):
    dragged = await done(computer.mouse.drag(150, 150, 350, 250))
    assert (dragged.x, dragged.y) == (350, 250)
    assert await window.next("ButtonPress") == ("ButtonPress", 150, 150, "1")
    steps = []
    while (step := await window.next("MotionNotify", "ButtonRelease"))[0] == "MotionNotify":
        steps.append(step[1])
    assert len(steps) >= 2 and steps == sorted(steps)
    assert step == ("ButtonRelease", 350, 250, "1")


async def test_the_wheel_turns(computer, window):
    for direction, button in [("up", "4"), ("down", "5"), ("left", "6"), ("right", "7")]:
        assert await done(computer.mouse.scroll(200, 200, direction, 2)) is True
        assert [(await window.next("ButtonPress"))[3] for _ in range(2)] == [button, button]


async def test_buttons_and_keys_stay_down(computer, window):
    down = await done(computer.mouse.down(120, 130))
    assert (down.x, down.y) == (120, 130)
    await done(computer.mouse.move(140, 150))
    up = await done(computer.mouse.up())
    assert (up.x, up.y) == (140, 150)
    assert await window.next("ButtonPress") == ("ButtonPress", 120, 130, "1")
    assert await window.next("ButtonRelease") == ("ButtonRelease", 140, 150, "1")
    await done(computer.keyboard.down("shift"))
    await done(computer.keyboard.up("shift"))
    assert (await window.next("KeyPress"))[3] == "Shift_L"
    assert (await window.next("KeyRelease"))[3] == "Shift_L"


async def test_keys_and_chords_are_pressed(computer, window):
    await done(computer.mouse.move(200, 200))
    keyboard = computer.keyboard
    await done(keyboard.press("Return"))
    await done(keyboard.press("c", ["ctrl"]))
    await done(keyboard.hotkey("ctrl+shift+f5"))
    await done(keyboard.press("f13"))
    pressed = [(await window.next("KeyPress"))[3] for _ in range(7)]
    assert pressed[:3] == ["Return", "Control_L", "c"]
    assert pressed[3:] == ["Control_L", "Shift_L", "F5", "F13"]


async def test_what_is_typed_arrives(computer, screen, tmp_path):
    script = "stty raw -echo; touch ready; exec cat > typed"
    text = "héllo 世界 🙂\n" + "".join(map(chr, range(0x20, 0x7F))) + "\n"
    terminal = subprocess.Popen(
        ["xterm", "-u8", "-geometry", "80x24+0+0", "-e", "sh", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "DISPLAY": screen, "LC_ALL": "C.UTF-8"},
    )
    try:
        await done(computer.mouse.move(60, 60))
        await until((tmp_path / "ready").exists)
        await done(computer.keyboard.type(text))
        await done(computer.keyboard.type("end\n", delay=5))
        expected = (text + "end\n").replace("\n", "\r").encode()
        await until(lambda: len((tmp_path / "typed").read_bytes()) >= len(expected))
        assert (tmp_path / "typed").read_bytes() == expected
    finally:
        terminal.kill()
        terminal.wait()


async def test_pictures_show_the_screen(computer, window):
    await done(computer.mouse.move(700, 500))
    shot = await done(computer.screenshot.take_full_screen())
    width, height, rows = decoded(shot)
    assert (width, height) == (800, 600)
    assert (shot.cursor_position.x, shot.cursor_position.y) == (700, 500)
    white, black = b"\xff" * 3, b"\0" * 3
    assert (rows[110][600:603], rows[20][60:63]) == (white, black)  # in the window, which is white, and beside it
    with_cursor = await done(computer.screenshot.take_full_screen(True))
    assert decoded(with_cursor)[2] != rows
    region = await done(computer.screenshot.take_region(ScreenshotRegion(x=90, y=100, width=40, height=30)))
    width, height, part = decoded(region)
    assert (width, height) == (40, 30)
    assert part == [row[90 * 3 : 130 * 3] for row in rows[100:130]]


async def test_pictures_are_made_small(computer):
    await done(computer.mouse.move(400, 300))
    small = await done(computer.screenshot.take_compressed(ScreenshotOptions(fmt="png", scale=0.5)))
    assert decoded(small)[:2] == (400, 300)
    assert (small.cursor_position.x, small.cursor_position.y) == (200, 150)
    for name, begin in [("jpeg", b"\xff\xd8"), ("webp", b"RIFF")]:
        options = ScreenshotOptions(fmt=name, quality=80, show_cursor=True)
        shot = await done(computer.screenshot.take_compressed(options))
        assert base64.b64decode(shot.screenshot).startswith(begin)
    region = ScreenshotRegion(x=10, y=20, width=200, height=100)
    part = await done(computer.screenshot.take_compressed_region(region, ScreenshotOptions(scale=0.25)))
    assert decoded(part)[:2] == (50, 25)


async def test_bad_requests_are_refused(computer):
    for call in [
        lambda: computer.mouse.click(1, 1, "wheel"),
        lambda: computer.mouse.click(1, 1, clicks=0),
        lambda: computer.mouse.scroll(1, 1, "sideways"),
        lambda: computer.keyboard.press("FooBar"),
        lambda: computer.keyboard.hotkey("ctrl++c"),
        lambda: computer.keyboard.type("a\tb"),
        lambda: computer.screenshot.take_compressed(ScreenshotOptions(quality=0)),
    ]:
        with pytest.raises(DaytonaBadRequestError):
            await done(call())


@pytest.mark.parametrize("form", ["sync", "async"])
async def test_without_a_display_the_error_says_so(form):
    with start(DISPLAY=":54321") as daemon:
        async with connect(daemon, form) as client:
            sandbox = await done(client.create())
            with pytest.raises(DaytonaError, match="computer use is not running") as caught:
                await done(sandbox.computer_use.mouse.get_position())
            assert caught.value.status_code == 503

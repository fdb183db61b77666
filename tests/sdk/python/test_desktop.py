"""The desktop's life, its displays and windows, with both Python SDKs: a desktop of the daemon's own."""

import itertools
import os
import socket
import subprocess
from pathlib import Path

import pytest
from conftest import connect, done, start, until
from daytona.common.errors import DaytonaError, DaytonaNotFoundError

PROCESSES = {"xvfb": 100, "xfce4": 200, "x11vnc": 300, "novnc": 400}
numbers = itertools.count(20000 + os.getpid() % 3000 * 10)


def free_display():
    """A number that no display has and no other test asks for."""
    return next(f":{number}" for number in numbers if not Path(f"/tmp/.X11-unix/X{number}").exists())


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


@pytest.fixture
def settings():
    return {
        "DISPLAY": free_display(),
        "VNC_RESOLUTION": "1280x800",
        "VNC_PORT": free_port(),
        "NO_VNC_PORT": free_port(),
    }


@pytest.fixture
async def desktop(form, settings):
    with start(**settings) as daemon:
        async with connect(daemon, form) as client:
            yield (await done(client.create())).computer_use


async def test_the_desktop_is_started_asked_and_stopped(desktop):
    assert (await done(desktop.get_status())).status == "inactive"
    started = await done(desktop.start())
    assert started.message == "Computer use processes started successfully"
    for name, priority in PROCESSES.items():
        process = started.status[name]
        assert (process.running, process.priority, process.auto_restart) == (True, priority, True)
        assert Path(f"/proc/{process.pid}").exists()
        assert (await done(desktop.get_process_status(name))).running is True
    assert (await done(desktop.get_status())).status == "active"
    restarted = await done(desktop.restart_process("xfce4"))
    assert (restarted.process_name, restarted.message) == ("xfce4", "Process xfce4 restarted successfully")
    again = await done(desktop.start())
    assert again.status["xfce4"].pid != started.status["xfce4"].pid
    assert "PORT=" in (await done(desktop.get_process_logs("x11vnc"))).logs
    assert "x11vnc version" in (await done(desktop.get_process_errors("x11vnc"))).errors
    stopped = await done(desktop.stop())
    assert stopped.message == "Computer use processes stopped successfully"
    assert not any(process.running for process in stopped.status.values())
    assert (await done(desktop.get_status())).status == "inactive"


async def test_displays_and_windows_are_told(desktop, settings):
    await done(desktop.start())
    [display] = (await done(desktop.display.get_info())).displays
    assert (display.id, display.x, display.y, display.width, display.height) == (0, 0, 0, 1280, 800)
    assert display.is_active is True

    async def listed():
        windows = (await done(desktop.display.get_windows())).windows
        return [window for window in windows if window.title == "a title"]

    assert await listed() == []
    command = ["xterm", "-T", "a title", "-geometry", "40x10+100+50", "-e", "cat"]
    terminal = subprocess.Popen(command, env={**os.environ, "DISPLAY": settings["DISPLAY"]})
    try:
        [window] = await until(listed)
        assert isinstance(window.id, int)
        assert window.width > 100 and window.height > 100 and window.x >= 100 and window.y >= 50
    finally:
        terminal.kill()
        terminal.wait()


async def test_what_cannot_be_done_is_said_in_words(desktop):
    with pytest.raises(DaytonaNotFoundError, match="process nothing not found"):
        await done(desktop.get_process_status("nothing"))
    with pytest.raises(DaytonaNotFoundError):
        await done(desktop.restart_process("nothing"))
    with pytest.raises(DaytonaError, match="call start first") as caught:
        await done(desktop.display.get_windows())
    assert caught.value.status_code == 503


async def test_an_image_without_a_desktop_says_so(form, settings, tmp_path):
    with start(**{**settings, "PATH": str(tmp_path)}) as daemon:
        async with connect(daemon, form) as client:
            desktop = (await done(client.create())).computer_use
            for call in (desktop.start, desktop.get_status, desktop.mouse.get_position):
                with pytest.raises(DaytonaError, match="Computer-use functionality is not available"):
                    await done(call())

"""The image with a desktop: a real one, seen and used through the API by the published SDK."""

import base64
import io

import images
import pytest
from daytona import CreateSandboxFromSnapshotParams, Daytona, DaytonaConfig
from PIL import Image
from sandboxes import start


@pytest.fixture(scope="module")
def container():
    with start(images.desktop(), DAYTONA_SANDBOX_ID="") as one:
        yield one


@pytest.fixture(scope="module")
def sandbox(container):
    config = DaytonaConfig(api_url=f"{container.url}/api", api_key="any", target="local")
    return Daytona(config).create(CreateSandboxFromSnapshotParams(language="python"))


def test_the_desktop_starts_and_is_seen_and_used(container, sandbox):
    computer = sandbox.computer_use
    started = computer.start()
    assert {name for name, process in started.status.items() if process.running} >= {"xvfb", "xfce4", "x11vnc"}
    launched = container.post("/computeruse/launch", {"command": ["mousepad", "/tmp/notes.txt"], "wait": True})
    assert launched["windowId"]
    computer.keyboard.type("Grüße aus dem Bild 世界")
    computer.keyboard.hotkey("ctrl+s")
    script = "until grep -q 世界 /tmp/notes.txt 2>/dev/null; do :; done; cat /tmp/notes.txt"
    assert sandbox.process.exec(f"timeout 60 sh -c '{script}'").result.strip() == "Grüße aus dem Bild 世界"
    shot = computer.screenshot.take_full_screen().screenshot
    picture = Image.open(io.BytesIO(base64.b64decode(shot)))
    (images.STATE / "desktop.png").write_bytes(base64.b64decode(shot))
    information = computer.display.get_info().displays[0]
    assert picture.size == (information.width, information.height)
    assert len(picture.convert("RGB").getcolors(1 << 24)) > 100, "wallpaper, panel and window are there"
    computer.stop()
    assert computer.get_status().status == "inactive"


def test_its_programs_are_there(sandbox):
    programs = "ffmpeg chromium xfce4-terminal fc-match dbus-launch"
    reply = sandbox.process.exec(f"for program in {programs}; do command -v $program || echo no $program; done")
    assert "no " not in reply.result, reply.result
    assert "Noto" in sandbox.process.exec("fc-match :lang=ja").result
    page = "data:text/html,<title>x</title><p>seen</p>"
    dump = f"chromium --headless --no-sandbox --disable-gpu --dump-dom '{page}' 2>/dev/null"
    assert "seen" in sandbox.process.exec(dump, timeout=100).result

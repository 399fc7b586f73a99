"""The window, on an X server without a monitor: looked at, typed into, resized, closed; and where there is none."""

from __future__ import annotations

import ctypes
import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.live import start_xvfb, stop
from unet_runtime.core.errors import BackendError, MissingDependencyError
from unet_runtime.live import window
from unet_runtime.live.views import open_view

# In a process of its own: a window library belongs to the whole process, and dies with the X server.
# The Qt in OpenCV's wheels from 4.12 on (5.15.16) now and then loses an event of the X server between two cores, and a
# window that misses its own appearance stays black, with cv2.imshow alone too. In 56 runs on one core it did not.
PROGRAM = """
import os, sys, time
if sys.platform == "linux":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import numpy as np
from unet_runtime.live.view import Status
from unet_runtime.live.views import open_view
view = open_view("window")
picture = np.zeros((240, 320, 3), np.uint8)
picture[:, :160, 0] = picture[:, 160:, 2] = 200
end = time.monotonic() + 600
print(view.name, flush=True)
while time.monotonic() < end:
    view.show(picture, Status(29.84, 41.6, 3, "camera lost, trying again in 2 s"))
    for key in view.keys():
        print(key, flush=True)
        if key == "q":
            view.close()
            view.close()
            view.show(picture, Status())
            sys.exit()
    time.sleep(0.02)
"""


class App:
    """The program above, and what its user sees and does."""

    def __init__(self, display: str) -> None:
        self.environment = {**os.environ, "DISPLAY": display, "QT_QPA_PLATFORM": "wayland"}  # as desktops set it
        command = [sys.executable, "-c", PROGRAM]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=self.environment, stdout=pipe, stderr=pipe, text=True)
        assert self.line() == "window"
        self.id = self.run("xdotool", "search", "--sync", "--onlyvisible", "--name", window.TITLE[:20]).split()[-1]
        self.run("xdotool", "windowfocus", "--sync", self.id)

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def run(self, *command: str) -> str:
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def press(self, key: str) -> None:
        self.run("xdotool", "key", key)

    def screenshot(self, path: Path, size: tuple[int, int]) -> np.ndarray:
        """The whole screen, int (600, 800, 3), once the window is painted on at least width and height of it."""
        for _ in range(300):
            self.run("import", "-window", "root", str(path))
            seen = np.asarray(Image.open(path).convert("RGB")).astype(int)
            if seen.any():
                left, top, right, bottom = box(seen.any(axis=2))
                if right - left >= size[0] and bottom - top >= size[1]:
                    return seen
            time.sleep(0.1)
        raise AssertionError(f"no window of {size} is seen: {path}")

    def is_painted(self) -> bool:
        for _ in range(6):
            time.sleep(0.1)
            shot = subprocess.run(["import", "-window", "root", "ppm:-"], env=self.environment, capture_output=True)
            if np.asarray(Image.open(io.BytesIO(shot.stdout))).any():
                return True
        return False

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def end(self) -> tuple[int, str]:
        """Exit status, and all that was written to the terminal beside our own lines."""
        errors = self.process.communicate(timeout=120)[1]
        return self.process.returncode, errors


@contextmanager
def app_on(display: str) -> Iterator[App]:
    for program in ("xdotool", "import"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program}: apt install xdotool imagemagick")
    app = App(display)
    for _ in range(3):
        if app.is_painted():
            break
        app.kill()
        app = App(display)
    try:
        yield app
    finally:
        app.kill()


def box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of what is True."""
    rows, columns = np.nonzero(mask)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def close_by_button(display: str, window_id: int) -> None:
    """What a window manager sends when its user clicks on the cross."""

    class Message(ctypes.Structure):
        _fields_ = (
            ("type", ctypes.c_int),
            ("serial", ctypes.c_ulong),
            ("send_event", ctypes.c_int),
            ("display", ctypes.c_void_p),
            ("window", ctypes.c_ulong),
            ("message_type", ctypes.c_ulong),
            ("format", ctypes.c_int),
            ("data", ctypes.c_long * 5),
            ("rest", ctypes.c_long * 24),
        )

    x11 = ctypes.CDLL("libX11.so.6")
    x11.XOpenDisplay.restype, x11.XInternAtom.restype = ctypes.c_void_p, ctypes.c_ulong
    server = ctypes.c_void_p(x11.XOpenDisplay(display.encode()))
    protocols, delete = (x11.XInternAtom(server, name, 0) for name in (b"WM_PROTOCOLS", b"WM_DELETE_WINDOW"))
    client_message = 33
    message = Message(client_message, 0, 1, server, window_id, protocols, 32, (ctypes.c_long * 5)(delete))
    assert x11.XSendEvent(server, ctypes.c_ulong(window_id), 0, ctypes.c_long(0), ctypes.byref(message))
    x11.XCloseDisplay(server)


def test_the_window_shows_the_picture_with_its_status_and_reports_keys(screen: str, tmp_path: Path) -> None:
    with app_on(screen) as app:
        seen = app.screenshot(tmp_path / "window.png", (320, 240))
        red, blue = ((abs(seen - colour) < 8).all(axis=2) for colour in ((200, 0, 0), (0, 0, 200)))
        left, top, middle, bottom = box(red)
        assert (middle - left, bottom - top) == (160, 240)
        assert box(blue) == (middle, top, middle + 160, bottom)
        corner, foot = seen[top : top + 24, left : left + 160], seen[bottom - 28 : bottom, left : left + 320]
        assert (corner.min(axis=2) > 240).any(), "no white figures in the corner"
        assert ((foot[..., 0] > 240) & (foot[..., 1] > 190) & (foot[..., 2] < 120)).any(), "no yellow message"
        for key in "bs":
            app.press(key)
            assert app.line() == key
        app.press("x")  # is not reported
        app.press("q")
        assert app.line() == "q"
        assert app.end() == (0, "")


def test_a_resized_window_keeps_the_aspect_ratio(screen: str, tmp_path: Path) -> None:
    with app_on(screen) as app:
        app.run("xdotool", "windowsize", "--sync", app.id, "700", "360")
        height = 0
        while height <= 340:  # until the picture has been drawn anew, too
            seen = app.screenshot(tmp_path / "resized.png", (700, 360))
            left, top, right, bottom = box((seen.max(axis=2) > 150) & (seen.min(axis=2) < 60) & (seen[..., 1] < 60))
            height = bottom - top
        assert (right - left) / height == pytest.approx(4 / 3, rel=0.02)


def test_a_window_closed_by_its_button_counts_as_q_and_stays_closed(screen: str) -> None:
    with app_on(screen) as app:
        close_by_button(screen, int(app.id))
        assert app.line() == "q"
        assert app.end() == (0, "")


@pytest.mark.parametrize("name", [None, "", ":98765", "localhost:54321", "nonsense"])
def test_without_a_display_the_picture_goes_to_a_web_page_and_a_note_says_why(name: str | None) -> None:
    """In a process of its own, because a window library would abort it."""
    environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment |= {} if name is None else {"DISPLAY": name}
    program = (
        "from unet_runtime.core.errors import BackendError\n"
        "from unet_runtime.live.views import open_view\n"
        "view = open_view(port=0)\n"
        "print(view.name); print(view.note); view.close()\n"
        "try: open_view('window')\n"
        "except BackendError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=180)
    assert (done.returncode, done.stderr) == (0, "")
    shown, note, error = done.stdout.splitlines()
    assert shown.startswith("web at http://127.0.0.1:")
    assert note == f"no window: {error}"
    assert "DISPLAY" in error
    assert "--view web" in error


def window_problem() -> str:
    with pytest.raises(BackendError) as caught:
        open_view("window")
    return str(caught.value)


def test_an_x_server_that_never_answers_is_no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "_PROBE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("DISPLAY", f"127.0.0.1:{server.getsockname()[1] - 6000}.0")
        assert "no X server answers within 0.5 s" in window_problem()


def test_an_x_server_that_wants_a_secret_is_a_display_only_for_who_knows_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if shutil.which("xauth") is None:
        pytest.skip("no xauth: apt install xauth")
    authority = tmp_path / "server"
    add_secret(authority, ":0", "11")
    server, name = start_xvfb("-auth", str(authority))
    try:
        add_secret(tmp_path / "right", name, "11")
        add_secret(tmp_path / "wrong", name, "22")
        (tmp_path / "damaged").write_bytes((tmp_path / "right").read_bytes()[:-20] + b"\xff")
        monkeypatch.setenv("DISPLAY", name)
        monkeypatch.setenv("XAUTHORITY", str(tmp_path / "right"))
        open_view("window").close()
        for file, reason in (("wrong", "Invalid MIT-MAGIC-COOKIE-1"), ("absent", "Authoriz"), ("damaged", "Authoriz")):
            monkeypatch.setenv("XAUTHORITY", str(tmp_path / file))
            problem = window_problem()
            assert reason in problem
            assert "are DISPLAY and XAUTHORITY right?" in problem
    finally:
        stop(server)


def add_secret(authority: Path, display: str, byte: str) -> None:
    add = ["xauth", "-q", "-f", str(authority), "add", display, ".", byte * 16]
    subprocess.run(add, check=True, capture_output=True)


def test_an_opencv_without_windows_is_an_error_that_names_the_one_with(
    screen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.setattr("cv2.currentUIFramework", lambda: "")  # what opencv-python-headless answers
    with pytest.raises(BackendError, match=r'pip install "opencv-python>='):
        open_view("window")
    view = open_view("auto", port=0)
    view.close()
    assert "opencv-python-headless" in view.note


def test_a_missing_opencv_is_an_error_that_names_the_command(screen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", screen)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingDependencyError, match='OpenCV, which is not installed: pip install "opencv-python>='):
        open_view("window")


@pytest.mark.skipif(sys.platform != "linux", reason="the wheels bring Qt on Linux only")
def test_a_window_system_that_lacks_a_library_is_an_error_that_names_it(tmp_path: Path) -> None:
    plugin = tmp_path / "qt" / "plugins" / "platforms" / "libqxcb.so"
    plugin.parent.mkdir(parents=True)
    plugin.write_bytes(b"no library")
    with pytest.raises(BackendError, match="libqxcb"):
        window._check_toolkit("QT", tmp_path)

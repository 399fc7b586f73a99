"""The live picture in a window of OpenCV's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unet_runtime.core.errors import BackendError
from unet_runtime.core.install import pip_command
from unet_runtime.io.video.opencv import load_opencv
from unet_runtime.live.picture import with_status
from unet_runtime.live.view import KEYS, Status

TITLE = "unet-run: q quits, s saves, b switches the background"

_LARGEST = (1280, 800)  # pixels, width and height, that a window opens with at most; its user may make it larger
_PROBE = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
library.XOpenDisplay.restype = ctypes.c_void_p
sys.exit(not library.XOpenDisplay(None))
"""
"""A program that connects to the X server as Qt will, by the same libraries. Without a connection Qt aborts the whole
process: https://github.com/opencv/opencv-python/issues/447"""

_PROBE_SECONDS = 10.0  # until the X server counts as silent; one behind a tunnel answers within some tenths
_FONTS = ("/usr/share/fonts/truetype/dejavu", "/usr/share/fonts/dejavu", "/usr/share/fonts/TTF", "/usr/share/fonts")


class Window:
    """A resizable window that keeps the picture's aspect ratio.

    Raises:
        BackendError: there is no display, or this OpenCV cannot open a window.
        MissingDependencyError: OpenCV is not installed.
    """

    name = "window"
    note = ""

    def __init__(self) -> None:
        if _needs_x_server() and not os.environ.get("DISPLAY"):
            raise BackendError("there is no display (DISPLAY is not set): use --view web")
        self._cv2 = load_opencv("a window", extra="window")
        _check_toolkit(self._cv2.currentUIFramework(), Path(self._cv2.__file__).parent)
        self._is_open = False
        self._is_closed = False
        self._pressed = ""

    def show(self, picture: npt.NDArray[np.uint8], status: Status) -> None:
        """See ``View``. A window that its user has closed stays closed."""
        self._notice_closing()
        if self._is_closed:
            return
        pixels = self._cv2.cvtColor(with_status(picture, status), self._cv2.COLOR_RGB2BGR)
        if not self._is_open:
            self._open(picture.shape[1], picture.shape[0])
        self._cv2.imshow(TITLE, pixels)

    def keys(self) -> str:
        if self._is_open:
            self._poll()
            self._notice_closing()
        pressed = self._pressed
        self._pressed = ""
        return pressed

    def close(self) -> None:
        self._is_closed = True
        if self._is_open:
            self._is_open = False
            self._cv2.destroyWindow(TITLE)
            self._poll()  # a window goes when its toolkit gets to run

    def _open(self, width: int, height: int) -> None:
        cv2 = self._cv2
        cv2.namedWindow(TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        scale = min(1.0, _LARGEST[0] / width, _LARGEST[1] / height)
        cv2.resizeWindow(TITLE, max(1, round(width * scale)), max(1, round(height * scale)))
        self._is_open = True

    def _poll(self) -> None:
        """Let the toolkit paint and listen, for a millisecond, and take a key from it."""
        code = self._cv2.waitKey(1)
        key = chr(code & 0xFF).lower() if code >= 0 else ""
        if key and key in KEYS:
            self._pressed += key

    def _notice_closing(self) -> None:
        # imshow would open a new window in a closed one's place.
        if self._is_open and not self._is_visible():
            self._is_open = False
            self._is_closed = True
            self._pressed += "q"

    def _is_visible(self) -> bool:
        try:
            return bool(self._cv2.getWindowProperty(TITLE, self._cv2.WND_PROP_VISIBLE) >= 1)
        except self._cv2.error:  # some toolkits forget a closed window
            return False


def _needs_x_server() -> bool:
    return sys.platform not in ("darwin", "win32")


def _check_toolkit(framework: str, package: Path) -> None:
    """Raise ``BackendError`` where this OpenCV cannot open a window, and prepare its Qt.

    Args:
        framework: ``QT...``, ``GTK...``, ``WIN32``, ``COCOA``, or empty for an OpenCV without windows.
        package: folder of cv2; the wheels for Linux bring their own Qt in it.
    """
    if not framework:
        raise BackendError(
            "this OpenCV (opencv-python-headless?) cannot open a window: pip uninstall opencv-python-headless, "
            f"then {pip_command('window')}, or use --view web"
        )
    if not _needs_x_server():
        return
    plugin = package / "qt" / "plugins" / "platforms" / "libqxcb.so"
    _check_display(str(plugin) if plugin.is_file() else "libX11.so.6")
    # The wheels bring this one plugin, and Qt aborts if the desktop's variables ask for another ("wayland"):
    # https://github.com/opencv/opencv-python/issues/729
    os.environ["QT_QPA_PLATFORM"] = "xcb"
    # Without a folder of fonts Qt prints a warning for each text it draws:
    # https://github.com/opencv/opencv-python/issues/1205
    if not Path(os.environ.get("QT_QPA_FONTDIR", "")).is_dir():
        os.environ["QT_QPA_FONTDIR"] = next((folder for folder in _FONTS if Path(folder).is_dir()), "/usr/share")


def _check_display(library: str) -> None:
    """Raise ``BackendError`` where a child process, with a library that is or uses libX11, finds no X server."""
    command = [sys.executable, "-I", "-S", "-c", _PROBE, library]
    try:
        probe = subprocess.run(command, capture_output=True, text=True, timeout=_PROBE_SECONDS)
        if probe.returncode == 0:
            return
        reason = (probe.stderr.strip() or "no X server answers").splitlines()[-1]
    except subprocess.TimeoutExpired:
        reason = f"no X server answers within {_PROBE_SECONDS:g} s"
    raise BackendError(
        f"no window can be opened on DISPLAY={os.environ.get('DISPLAY', '')} ({reason}): are DISPLAY and XAUTHORITY "
        "right? Or use --view web"
    )

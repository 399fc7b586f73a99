"""The live picture in a window of OpenCV's."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unet_runtime.core.errors import BackendError, SourceError
from unet_runtime.io.video.opencv import load_opencv
from unet_runtime.live.display import display_problem
from unet_runtime.live.picture import with_status
from unet_runtime.live.view import KEYS, Status

TITLE = "unet-run: q quits, s saves, b switches the background"

_LARGEST = (1280, 800)
"""Pixels, width and height, that a window opens with at most; its user may make it larger."""

_FONTS = ("/usr/share/fonts/truetype/dejavu", "/usr/share/fonts/dejavu", "/usr/share/fonts/TTF", "/usr/share/fonts")


class Window:
    """A resizable window that keeps the picture's aspect ratio.

    Raises:
        BackendError: there is no display, or no OpenCV that can open a window.
    """

    name = "window"
    note = ""

    def __init__(self) -> None:
        problem = display_problem()
        if problem:
            raise BackendError(f"{problem}: take --view web")
        try:
            self._cv2 = load_opencv("a window")
        except SourceError as error:
            raise BackendError(f"{error}; or take --view web") from error
        _check_toolkit(self._cv2.currentUIFramework(), Path(self._cv2.__file__).parent)
        self._is_open = self._is_closed = False
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
        pressed, self._pressed = self._pressed, ""
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
            self._is_open, self._is_closed = False, True
            self._pressed += "q"

    def _is_visible(self) -> bool:
        try:
            return bool(self._cv2.getWindowProperty(TITLE, self._cv2.WND_PROP_VISIBLE) >= 1)
        except self._cv2.error:  # some toolkits forget a closed window
            return False


def _check_toolkit(framework: str, package: Path) -> None:
    """Refuse an OpenCV without windows, and ready its Qt, which would abort the process over what it lacks.

    Args:
        framework: ``QT...``, ``GTK...``, ``WIN32``, ``COCOA``, or empty for an OpenCV without windows.
        package: folder of cv2; the wheels for Linux bring their own Qt in it.
    """
    if not framework:
        raise BackendError(
            "this OpenCV (opencv-python-headless?) cannot open a window: pip uninstall opencv-python-headless, "
            'then pip install "unet-edge-runtime[window]", or take --view web'
        )
    plugin = package / "qt" / "plugins" / "platforms" / "libqxcb.so"
    if not (sys.platform == "linux" and plugin.is_file()):
        return
    try:
        ctypes.CDLL(str(plugin))
    except OSError as error:
        raise BackendError(
            f"OpenCV's window system lacks a library ({error}): install it, or take --view web"
        ) from error
    # The wheels bring this one plugin, and Qt aborts if the desktop's variables ask for another ("wayland").
    os.environ["QT_QPA_PLATFORM"] = "xcb"
    # They bring no fonts either, which Qt would lament on the terminal whenever it draws a letter.
    if not Path(os.environ.get("QT_QPA_FONTDIR", "")).is_dir():
        os.environ["QT_QPA_FONTDIR"] = next((folder for folder in _FONTS if Path(folder).is_dir()), "/usr/share")

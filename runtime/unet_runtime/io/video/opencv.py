"""OpenCV, imported when it is needed, with its log messages turned off."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unet_runtime.core.errors import MissingDependencyError
from unet_runtime.core.install import missing, pip_command

_SETTINGS = {
    # FFmpeg and OpenCV print each problem of a decoder on the terminal, past Python. Our errors say what matters.
    "OPENCV_LOG_LEVEL": "SILENT",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
    # Seconds that V4L2 waits for a frame of a stalled camera; its default of 10 would delay the end of a program as
    # much: https://github.com/opencv/opencv/issues/10927
    "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "3",
}
"""Environment variables, read when OpenCV is imported or first used. What the user has set stays."""


@contextmanager
def plain_path(path: Path) -> Iterator[str]:
    """A path as FFmpeg inside OpenCV takes it: whole, or ``12:30.mp4`` would be a protocol, and in UTF-8.

    A name that is not UTF-8 ends the process (a segmentation fault): a link stands for it while the file is opened.
    """
    absolute = os.path.abspath(path)  # noqa: PTH100  # keeps links as they are
    if _is_unicode(absolute):
        yield absolute
        return
    with tempfile.TemporaryDirectory(prefix="unet-edge.") as folder:
        link = Path(folder, "video" + (path.suffix if _is_unicode(path.suffix) else ""))
        link.symlink_to(absolute)
        yield str(link)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def load_opencv(purpose: str, extra: str = "video") -> Any:
    """The module ``cv2``.

    Args:
        purpose: what needs it, as the subject of an error message: ``a camera``.
        extra: the extra of the runtime that brings an OpenCV fit for it: ``video``, or ``window``.

    Raises:
        MissingDependencyError: it is not installed, or does not start; the message says what to do.
    """
    is_level_set = "OPENCV_LOG_LEVEL" in os.environ
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        import cv2
    except ImportError as error:
        if getattr(error, "name", None) == "cv2":
            raise missing(purpose, "OpenCV", extra) from error
        raise MissingDependencyError(
            f"{purpose} needs OpenCV, which does not start ({error}): {pip_command('video')} installs one that needs "
            "no window system"
        ) from error
    if not is_level_set:  # if another library has imported it before
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2

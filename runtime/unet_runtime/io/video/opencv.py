"""OpenCV, imported when it is needed, with its chatter turned off."""

from __future__ import annotations

import os
from typing import Any

from unet_runtime.core.errors import SourceError

# FFmpeg and OpenCV write each stumble of a decoder to the terminal, past Python. What matters is told by our messages.
_QUIET = {"OPENCV_LOG_LEVEL": "SILENT", "OPENCV_FFMPEG_LOGLEVEL": "-8"}

# Seconds that V4L2 waits for a frame of a stalled camera; its default of 10 would delay the end of a program as much.
_V4L = {"OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "3"}


def load_opencv(purpose: str) -> Any:
    """The module ``cv2``.

    Args:
        purpose: what needs it, as the subject of an error message: ``a camera``.

    Raises:
        SourceError: it is not installed, or does not start; the message says what to do.
    """
    # Read when OpenCV is imported or first used. What the user has set stays.
    asked = "OPENCV_LOG_LEVEL" in os.environ
    for name, value in (_QUIET | _V4L).items():
        os.environ.setdefault(name, value)
    try:
        import cv2
    except ImportError as error:
        if getattr(error, "name", None) == "cv2":
            hint = 'pip install "unet-edge-runtime[video]", or [window] to see it in a window too'
            raise SourceError(f"{purpose} needs OpenCV, which is not installed: {hint}") from error
        raise SourceError(
            f'{purpose} needs OpenCV, which does not start ({error}): pip install "unet-edge-runtime[video]" takes one '
            "that needs no window system"
        ) from error
    if not asked:  # for the case that another library has imported it before
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2

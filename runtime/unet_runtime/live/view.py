"""The interface of a view of the live picture; views.py lists the views."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

KEYS = "qsb"
"""q quits, s saves, b switches the background; a view reports no other key."""


@dataclass(frozen=True)
class Status:
    """What is written beside a picture."""

    frame_rate: float = 0.0
    """Pictures shown per second."""
    latency: float = 0.0
    """Milliseconds from the capture of this picture to its display."""
    dropped: int = 0
    """Frames left out so far, because a newer one was there."""
    message: str = ""
    """For the user, in words: ``camera lost, trying again in 2 s``; empty if all is well."""
    is_lost: bool = False
    """Whether the camera is silent, so that the picture is an old one."""
    background: str = ""
    """What is shown, of ``picture.BACKGROUNDS``."""
    saved: tuple[Path, ...] = ()
    """Files of the frame that was saved last."""


@dataclass(frozen=True)
class About:
    """What is on show, all the time."""

    camera: str = ""
    model: str = ""
    """Name and precision."""
    engine: str = ""
    """Name, version and device."""
    legend: tuple[tuple[str, tuple[int, int, int]], ...] = ()
    """Name and RGB of each class that is tinted."""


NOTHING_KNOWN = About()


class View(Protocol):
    """All methods are called from the main thread: window systems insist on it."""

    name: str
    """``window``, ``web at http://127.0.0.1:8080/`` or ``none``, for the user."""
    note: str
    """Why a better view was not opened; empty if there is nothing to explain."""

    def show(self, picture: npt.NDArray[np.uint8], status: Status) -> None:
        """Show a picture, and ``status`` with it.

        Args:
            picture: uint8 (H, W, 3) RGB; not to be changed afterwards, for the view may still read it.
            status: of this picture.
        """

    def keys(self) -> str:
        """Keys pressed since the last call, in order, of ``KEYS``; a closed window counts as ``q``.

        To be called after every ``show`` and now and then while there is nothing to show: a window lives by it.
        """

    def close(self) -> None:
        """Remove the view. Closing it again does nothing."""


class NoView:
    """Shows nothing, for recording and for measuring."""

    name = "none"
    note = ""

    def show(self, picture: npt.NDArray[np.uint8], status: Status) -> None: ...

    def keys(self) -> str:
        return ""

    def close(self) -> None: ...

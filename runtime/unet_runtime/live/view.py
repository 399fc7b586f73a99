"""Where the live picture is shown: a window, a web page on this machine, or nowhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from unet_runtime.core.errors import BackendError

VIEWS = ("auto", "window", "web", "none")
KEYS = "qsb"
"""q quits, s saves, b switches the background; a view reports no other key."""


@dataclass(frozen=True)
class Status:
    """What is told beside a picture."""

    frame_rate: float = 0.0
    """Pictures shown per second."""
    latency: float = 0.0
    """Milliseconds from the capture of this picture to its display."""
    dropped: int = 0
    """Frames left out so far, because a newer one was there."""
    message: str = ""
    """For the user, in words: ``camera lost, trying again in 2 s``; empty if all is well."""


class View(Protocol):
    """All methods are called from the main thread: window systems insist on it."""

    name: str
    """``window``, ``web at http://127.0.0.1:8080/`` or ``none``: what a command tells its user."""
    note: str
    """Why it is this view and not the better one; empty if there is nothing to explain."""

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
        """Take the view away. Closing it again does nothing."""


class NoView:
    """Shows nothing, for recording and for measuring."""

    name = "none"
    note = ""

    def show(self, picture: npt.NDArray[np.uint8], status: Status) -> None: ...

    def keys(self) -> str:
        return ""

    def close(self) -> None: ...


def open_view(kind: str = "auto", *, port: int = 8080, host: str = "127.0.0.1") -> View:
    """Open a view, to be closed by the caller.

    Args:
        kind: ``window``, ``web``, ``none``, or ``auto``: a window where one can be opened, else the web page.
        port: of the web page; where it is taken, the next free one. 0 lets the system choose.
        host: address that the web page is served at; only this machine reaches the default.

    Raises:
        BackendError: no window can be opened here; the message says why and what to do.
        OutputError: no web page can be served at ``host`` and ``port``.
    """
    if kind not in VIEWS:
        raise BackendError(f"view {kind!r}, expected one of {', '.join(VIEWS)}")
    if kind == "none":
        return NoView()
    note = ""
    if kind in ("auto", "window"):
        try:
            return _window()
        except BackendError as error:
            if kind == "window":
                raise
            note = f"no window: {error}"
    # Imported when it is needed, as the window is: an HTTP server takes its time to load.
    from unet_runtime.live.web import WebView

    return WebView(host, port, note)


def _window() -> View:
    from unet_runtime.live.window import Window

    return Window()

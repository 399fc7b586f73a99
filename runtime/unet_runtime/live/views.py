"""The views by name: a window, a web page on this machine, or none. A new view is one file, and one entry here."""

from __future__ import annotations

from collections.abc import Callable

from unet_runtime.core.errors import BackendError
from unet_runtime.live.view import NOTHING_KNOWN, About, NoView, View


def _open_window(host: str, port: int, note: str, about: About) -> View:
    from unet_runtime.live.window import Window

    return Window()


def _open_web_page(host: str, port: int, note: str, about: About) -> View:
    from unet_runtime.live.web import WebView  # an HTTP server is slow to import

    return WebView(host, port, note, about)


def _open_nothing(host: str, port: int, note: str, about: About) -> View:
    return NoView()


_OPENERS: dict[str, Callable[[str, int, str, About], View]] = {
    "window": _open_window,
    "web": _open_web_page,
    "none": _open_nothing,
}
"""Take the web page's host and port, the view's note, and what is on show."""

VIEWS = ("auto", *_OPENERS)


def open_view(kind: str = "auto", *, port: int = 8080, host: str = "127.0.0.1", about: About = NOTHING_KNOWN) -> View:
    """Open a view, to be closed by the caller.

    Args:
        kind: of ``VIEWS``; ``auto`` is a window where one can be opened, else the web page.
        port: of the web page; if it is taken, the next free one. 0 lets the system choose.
        host: address of the web page; only this machine reaches the default.
        about: what the web page names.

    Raises:
        BackendError: no window can be opened here; the message says why and what to do.
        OutputError: no web page can be served at ``host`` and ``port``.
        MissingDependencyError: a window needs OpenCV, which is not installed.
    """
    if kind not in VIEWS:
        raise BackendError(f"view {kind!r}, expected one of {', '.join(VIEWS)}")
    if kind != "auto":
        return _OPENERS[kind](host, port, "", about)
    try:
        return _open_window(host, port, "", about)
    except BackendError as error:
        return _open_web_page(host, port, f"no window: {error}", about)

"""The live picture as a web page that this machine serves, for where there is no display.

    /         the page (page.html)
    /frame    the newest picture, a JPEG file; ?after=N waits for another than N. Its number and status are headers
    /stream   the pictures as multipart JPEG, for other programs than browsers: ffplay, VLC, OpenCV
    /status   JSON
    /keys     POST q, s or b

The page asks for one picture after the other, so none is under way but the newest, however slow the way is. A picture
is encoded once, when the first client asks for it, and by that client's thread: without a client it costs nothing.
"""

from __future__ import annotations

import errno
import json
import math
import socket
import socketserver
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import numpy.typing as npt

from unet_runtime.core.errors import OutputError
from unet_runtime.live.feed import Feed, Picture
from unet_runtime.live.newest import Numbered
from unet_runtime.live.view import KEYS, Status

_PORTS_TRIED = 20
_WAIT = 2.0  # seconds that ``/frame`` waits for a new picture before it responds that there is none
_CLIENT_TIMEOUT = 10.0  # seconds after which a client that neither asks nor takes anything is disconnected
_SEND_BUFFER = 1 << 16  # bytes. What the system would keep for a slow client of ``/stream`` is pictures of the past
_BOUNDARY = "picture"

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}
"""No other page may show or read anything here or press keys, and this one loads nothing from elsewhere."""


class WebView:
    """The web page, as a ``View``; serves from threads of its own.

    Args:
        host: address to serve at.
        port: where it is taken, the next free one; 0 lets the system choose.
        note: ``View.note``.

    Raises:
        OutputError: ``host`` is no address of this machine, or all those ports are taken.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8080, note: str = "") -> None:
        self._feed = Feed()
        self._server = _open_server(host, port, self._feed)
        self.port: int = self._server.server_address[1]
        self.name = f"web at http://{f'[{host}]' if ':' in host else host}:{self.port}/"
        taken = f"port {port} is taken" if port not in (0, self.port) else ""
        self.note = "; ".join(filter(None, (note, taken)))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="web view", daemon=True)
        self._thread.start()

    def show(self, picture: npt.NDArray[np.uint8], status: Status) -> None:
        """See ``View``. Returns at once."""
        self._feed.put(Picture(picture, status))

    def keys(self) -> str:
        return self._feed.take_keys()

    def close(self) -> None:
        self._feed.end()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _open_server(host: str, port: int, feed: Feed) -> _Server:
    ports = range(port, min(port + _PORTS_TRIED, 1 << 16)) if port else (0,)
    reason = "expected 0 to 65535"
    for candidate in ports:
        try:
            return _Server((host, candidate), feed)
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):  # no other port helps
                raise OutputError(f"web view: cannot serve at {host!r} ({reason}): use 127.0.0.1") from error
    tried = f"port {port}" if len(ports) < 2 else f"any port from {ports[0]} to {ports[-1]}"
    raise OutputError(f"web view: cannot serve at {tried} of {host} ({reason}): name another with --port")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


class _Server(ThreadingHTTPServer):
    allow_reuse_address = sys.platform != "win32"  # where it means that two programs share the port
    daemon_threads = True  # a program that ends without ``close`` ends

    def __init__(self, address: tuple[str, int], feed: Feed) -> None:
        self.feed = feed
        self.page = Path(__file__).with_name("page.html").read_bytes()
        self.address_family = _family(address[0])
        self.names = {"localhost", address[0].lower()}
        self._clients: dict[Any, threading.Thread] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the name service for a name that nobody needs, maybe for seconds.
        socketserver.TCPServer.server_bind(self)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._clients[request] = threading.current_thread()  # so that ``server_close`` can end it
        threading.current_thread().name = "web client"
        super().process_request_thread(request, client_address)

    def close_request(self, request: Any) -> None:
        with self._lock:
            self._clients.pop(request, None)
        super().close_request(request)

    def server_close(self) -> None:
        """Stop listening, and hang up on every client."""
        super().server_close()
        with self._lock:
            clients = list(self._clients.items())
        for request, _ in clients:
            with suppress(OSError):
                request.shutdown(socket.SHUT_RDWR)
        for _, thread in clients:
            thread.join(1)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that went away; report anything else."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = _CLIENT_TIMEOUT

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not self._is_from_here(is_page=path == "/"):
            self._respond(403, b"refused: open the address that unet-run printed\n")
        elif path == "/":
            self._respond(200, self.server.page, "text/html; charset=utf-8")
        elif path == "/frame":
            self._frame()
        elif path == "/stream":
            self._stream()
        elif path == "/status":
            self._respond(200, _status_json(self.server.feed.get()).encode(), "application/json")
        else:
            self._respond(404, b"no such page\n")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isdecimal() and int(length) <= 64):
            self.close_connection = True  # what follows is not read
            self._respond(413, b"expected some of the letters " + KEYS.encode() + b"\n")
            return
        keys = self.rfile.read(int(length)).decode("latin-1")
        if not self._is_from_here():
            self._respond(403, b"refused: keys are pressed on the page itself\n")
        elif urlsplit(self.path).path != "/keys":
            self._respond(404, b"no such page\n")
        elif not keys or set(keys) - set(KEYS):
            self._respond(400, b"expected some of the letters " + KEYS.encode() + b"\n")
        else:
            self.server.feed.press(keys)
            self._respond(204)

    def _is_from_here(self, *, is_page: bool = False) -> bool:
        """Whether this request comes from our own page, not from another web page, also not by DNS rebinding.

        Browsers send what shows it: Host is the name they believe to talk to (a number cannot be rebound), Origin and
        Sec-Fetch-Site say whose page asks. A link to our page may stand anywhere.
        """
        host = self.headers.get("Host", "")
        if not _is_address(host, self.server.names):
            return False
        origin = self.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return False
        return is_page or self.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")

    def _frame(self) -> None:
        after = parse_qs(urlsplit(self.path).query).get("after", ["0"])[0]
        if not (after.isascii() and after.isdecimal()):
            self._respond(400, b"expected after=NUMBER\n")
            return
        newest = self.server.feed.jpeg(int(after), _WAIT)
        if newest is None:
            self._respond(204)
            return
        picture, jpeg = newest
        headers = {"X-Frame": str(picture.number), "X-Status": _status_json(picture)}
        self._respond(200, jpeg, "image/jpeg", headers)

    def _stream(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self.close_connection = True
        self._start(200, f"multipart/x-mixed-replace; boundary={_BOUNDARY}", {"Connection": "close"})
        separator = f"--{_BOUNDARY}\r\n".encode()
        self.wfile.write(separator)
        number = 0
        while not self.server.feed.ended:
            newest = self.server.feed.jpeg(number, _WAIT)
            if newest is None:
                continue
            picture, jpeg = newest
            number = picture.number
            head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
            # The separator behind the picture, not before the next, so that browsers know it is complete and show it:
            # https://github.com/miguelgrinberg/flask-video-streaming/pull/75
            self.wfile.write(head + jpeg + b"\r\n" + separator)

    def _respond(
        self,
        code: int,
        body: bytes = b"",
        kind: str = "text/plain; charset=utf-8",
        headers: dict[str, str] | None = None,
    ) -> None:
        self._start(code, kind, {"Content-Length": str(len(body))} | (headers or {}) if code != 204 else {})
        self.wfile.write(body)

    def _start(self, code: int, kind: str, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {"Content-Type": kind, **_HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def version_string(self) -> str:
        return "unet-run"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal belongs to the command."""


def _is_address(host: str, names: set[str]) -> bool:
    """Whether a Host header is one of ``names``, or a number, with or without a port."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        if name in names:
            return True
        ip_address(name)
    except ValueError:
        return False
    return True


def _status_json(picture: Numbered[Picture] | None) -> str:
    """ASCII, in one line, so that a header can hold it; null for a number that is not known."""
    status = picture.value.status if picture else Status()
    content: dict[str, Any] = {"frame": picture.number if picture else 0, **asdict(status)}
    for key in ("frame_rate", "latency"):
        if not math.isfinite(content[key]):
            content[key] = None
    return json.dumps(content)

"""The live picture as a web page that this machine serves, for where there is no display.

    /         the page (page.html)
    /frame    the newest picture, a JPEG file; ?after=N waits for another than N. Its number and status are headers
    /stream   the pictures as multipart JPEG, for other programs than browsers: ffplay, VLC, OpenCV
    /status   JSON
    /about    JSON: camera, model, engine, legend
    /saved/NAME   a file of the frame that was saved last
    /keys     POST q, s or b

The page asks for one picture after the other, so none is under way but the newest, however slow the way is. A picture
is encoded once, when the first client asks for it, and by that client's thread: without a client it costs nothing.
"""

from __future__ import annotations

import errno
import json
import math
import mimetypes
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, quote, unquote, urlsplit

import numpy as np
import numpy.typing as npt

from unet_runtime.core.errors import OutputError
from unet_runtime.io import web_access
from unet_runtime.live.feed import Feed, Picture
from unet_runtime.live.newest import Numbered
from unet_runtime.live.view import KEYS, NOTHING_KNOWN, About, Status

_PORTS_TRIED = 20
_WAIT = 2.0  # seconds that ``/frame`` waits for a new picture before it responds that there is none
_CLIENT_TIMEOUT = 10.0  # seconds after which a client that neither asks nor takes anything is disconnected
_SEND_BUFFER = 1 << 16  # bytes. What the system would keep for a slow client of ``/stream`` is pictures of the past
_MAX_CLIENTS = 32
"""Connections at a time: each has a thread and a descriptor, and slow clients must not take all of these."""
_MAX_DIGITS = 18
"""Length of a number in a request, at most: Python refuses to read thousands of digits, with an error of its own."""
_MAX_KEYS = 64
_BOUNDARY = "picture"
_BUSY = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 17\r\n\r\ntoo many clients\n"


class WebView:
    """The web page, as a ``View``; serves from threads of its own.

    Args:
        host: address to serve at. Where other machines reach it, clients need ``token``.
        port: where it is taken, the next free one; 0 lets the system choose.
        note: ``View.note``.
        about: what is on show.

    Raises:
        OutputError: ``host`` is no address of this machine, or all those ports are taken.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8080, note: str = "", about: About = NOTHING_KNOWN) -> None:
        self._feed = Feed()
        self.token = "" if web_access.is_private(host) else web_access.new_token()
        """What a client must know; empty where only this machine's programs can ask."""
        self._server = _open_server(host, port, self._feed, self.token, about)
        self.port: int = self._server.server_address[1]
        self.name = f"web at http://{web_access.shown(host)}:{self.port}/" + (
            f"?token={self.token}" if self.token else ""
        )
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


def _open_server(host: str, port: int, feed: Feed, token: str, about: About) -> _Server:
    ports = range(port, min(port + _PORTS_TRIED, 1 << 16)) if port else (0,)
    reason = "expected 0 to 65535"
    for candidate in ports:
        try:
            return _Server((host, candidate), feed, token, about)
        except (TypeError, ValueError) as error:  # a name that no name service takes
            raise OutputError(f"web view: {host!r} is no address of a machine: use 127.0.0.1") from error
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):  # no other port helps
                raise OutputError(f"web view: cannot serve at {host!r} ({reason}): use 127.0.0.1") from error
    tried = f"port {port}" if len(ports) < 2 else f"any port from {ports[0]} to {ports[-1]}"
    raise OutputError(f"web view: cannot serve at {tried} of {host} ({reason}): name another with --port")


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


@dataclass
class _Client:
    """One connection."""

    request: Any
    silent_since: float | None
    """Monotonic time since when its request is waited for; None while it is answered."""
    thread: threading.Thread | None = None


def _silent_since(client: _Client) -> float:
    return client.silent_since or 0.0


def _hang_up(request: Any) -> None:
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    allow_reuse_address = sys.platform != "win32"  # where it means that two programs share the port
    daemon_threads = True  # a program that ends without ``close`` ends

    def __init__(self, address: tuple[str, int], feed: Feed, token: str, about: About) -> None:
        self.feed = feed
        self.token = token
        self.about = json.dumps(asdict(about)).encode()
        self.page = web_access.read_page(Path(__file__).with_name("page.html"))
        self.address_family = _family(address[0])
        self.names = {"localhost", address[0].lower()}
        self._clients: dict[Any, _Client] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the name service for a name that nobody needs, maybe for seconds.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a new client a thread; where there are too many, the one silent longest goes, else the new one."""
        with self._lock:
            is_full = len(self._clients) >= _MAX_CLIENTS
            silent = [client for client in self._clients.values() if client.silent_since is not None]
            oldest = min(silent, key=_silent_since, default=None) if is_full else None
            if oldest is not None:
                del self._clients[oldest.request]
            if not is_full or oldest is not None:
                self._clients[request] = _Client(request, time.monotonic())
        if oldest is not None:
            _hang_up(oldest.request)
        elif is_full:
            with suppress(OSError):
                request.setblocking(False)
                request.send(_BUSY)
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        with self._lock:
            client = self._clients.get(request)
            if client is not None:
                client.thread = threading.current_thread()  # so that ``server_close`` can end it
        threading.current_thread().name = "web client"
        super().process_request_thread(request, client_address)

    def set_silent(self, request: Any, is_silent: bool) -> None:
        """Note whether a client is waited for (its request is incomplete), or waits itself."""
        with self._lock:
            client = self._clients.get(request)
            if client is not None:
                client.silent_since = time.monotonic() if is_silent else None

    def close_request(self, request: Any) -> None:
        with self._lock:
            self._clients.pop(request, None)
        super().close_request(request)

    def server_close(self) -> None:
        """Stop listening, and hang up on every client."""
        super().server_close()
        with self._lock:
            clients = list(self._clients.values())
        for client in clients:
            _hang_up(client.request)
        for client in clients:
            if client.thread is not None:
                client.thread.join(1)

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
        if "Content-Length" in self.headers or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # a body that is not read must not be taken for the next request
        with self._answering():
            url = self._url()
            if url is None:
                self._respond(400, b"not an address\n")
            elif not self._is_from_here(url, is_page=url.path == "/"):
                self._refuse()
            elif url.path == "/":
                self._page()
            elif url.path == "/frame":
                self._frame(url)
            elif url.path == "/stream":
                self._stream()
            elif url.path == "/status":
                self._respond(200, _status_json(self.server.feed.get()).encode(), "application/json")
            elif url.path == "/about":
                self._respond(200, self.server.about, "application/json")
            elif url.path.startswith("/saved/"):
                self._saved(unquote(url.path.removeprefix("/saved/")))
            else:
                self._respond(404, b"no such page\n")

    def do_POST(self) -> None:
        length = _number(self._only("Content-Length"))
        if length is None or length > _MAX_KEYS or "Transfer-Encoding" in self.headers:
            self.close_connection = True  # what follows is not read
            self._respond(413, b"expected some of the letters " + KEYS.encode() + b"\n")
            return
        keys = self.rfile.read(length).decode("latin-1")
        with self._answering():
            url = self._url()
            if url is None:
                self._respond(400, b"not an address\n")
            elif not self._is_from_here(url):
                self._refuse()
            elif url.path != "/keys":
                self._respond(404, b"no such page\n")
            elif not keys or set(keys) - set(KEYS):
                self._respond(400, b"expected some of the letters " + KEYS.encode() + b"\n")
            else:
                self.server.feed.press(keys)
                self._respond(204)

    @contextmanager
    def _answering(self) -> Iterator[None]:
        self.server.set_silent(self.connection, False)
        try:
            yield
        finally:
            self.server.set_silent(self.connection, True)

    def _url(self) -> SplitResult | None:
        try:
            return urlsplit(self.path)
        except ValueError:  # a bracket that nobody closes, ...
            return None

    def _only(self, name: str) -> str:
        """A header's value; empty where it is missing or comes twice."""
        values = self.headers.get_all(name, [])
        return str(values[0]).strip() if len(values) == 1 else ""

    def _is_from_here(self, url: SplitResult, *, is_page: bool = False) -> bool:
        """Whether this request comes from our own page, not from another web page, also not by DNS rebinding.

        See io/web_access.py. A link to our page may stand anywhere. A token shows more than a name: no
        other page knows it, and browsers keep its cookie from them.
        """
        host = self.headers.get("Host", "")
        if not (self._has_token(url) if self.server.token else web_access.is_address(host, self.server.names)):
            return False
        origin = self.headers.get("Origin")
        if origin is not None and web_access.authority(origin) != host:
            return False
        return is_page or self.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")

    def _has_token(self, url: SplitResult) -> bool:
        given = _parameter(url, "token", "")
        if not given:
            given = web_access.cookie(self.headers.get("Cookie", ""), self._cookie)
        return web_access.is_token(given, self.server.token)

    @property
    def _cookie(self) -> str:
        return f"unet-run-{self.server.server_address[1]}"  # a browser shares cookies among a machine's ports

    def _refuse(self) -> None:
        self._respond(403, b"refused: open the address that unet-run printed, with its token if it has one\n")

    def _page(self) -> None:
        headers = {}
        if self.server.token:
            headers["Set-Cookie"] = f"{self._cookie}={self.server.token}; Path=/; HttpOnly; SameSite=Strict"
        self._respond(200, self.server.page, "text/html; charset=utf-8", headers)

    def _saved(self, name: str) -> None:
        newest = self.server.feed.get()
        for path in newest.value.status.saved if newest else ():
            if path.name == name:
                with suppress(OSError):
                    content = path.read_bytes()
                    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
                    download = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name)}"}
                    self._respond(200, content, kind, download)
                    return
        self._respond(404, b"not among the files that were saved last\n")

    def _frame(self, url: SplitResult) -> None:
        after = _number(_parameter(url, "after", "0"))
        if after is None:
            self._respond(400, b"expected after=NUMBER\n")
            return
        newest = self.server.feed.jpeg(after, _WAIT)
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
        if self.close_connection:
            headers = {"Connection": "close", **headers}
        for name, value in {"Content-Type": kind, **web_access.HEADERS, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def version_string(self) -> str:
        return "unet-run"

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal belongs to the command."""


def _number(text: str) -> int | None:
    """A whole number of few digits; None for anything else."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS else None


def _parameter(url: SplitResult, name: str, default: str) -> str:
    """The first value of a query's parameter."""
    try:
        return parse_qs(url.query).get(name, [default])[0]
    except ValueError:  # too many of them
        return ""


def _status_json(picture: Numbered[Picture] | None) -> str:
    """ASCII, in one line, so that a header can hold it; null for a number that is not known."""
    status = picture.value.status if picture else Status()
    content: dict[str, Any] = {"frame": picture.number if picture else 0, **asdict(status)}
    content["saved"] = [path.name for path in status.saved]
    for key in ("frame_rate", "latency"):
        if not math.isfinite(content[key]):
            content[key] = None
    return json.dumps(content)

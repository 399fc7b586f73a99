"""Cameras that give one picture per request, with and without a password; where that password goes."""

from __future__ import annotations

import io
import re
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from tests.helpers.live import IMPATIENT, QUICK, closed_port, wait_for
from unet_runtime.core.errors import SourceError
from unet_runtime.live.camera import Camera

Answer = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """Answers each GET as ``answer`` says; keeps every request's path and password."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.seen: list[tuple[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.seen.append((self.path, self.headers.get("Authorization", "")))
                server.answer(self)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def picture(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (value, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def send(request: BaseHTTPRequestHandler, code: int, body: bytes = b"", **headers: str) -> None:
    request.send_response(code)
    for name, value in {"Content_Length": str(len(body)), **headers}.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    request.wfile.write(body)


def snapshot(request: BaseHTTPRequestHandler) -> None:
    send(request, 200, picture(200), Content_Type="image/jpeg")


def behind_password(request: BaseHTTPRequestHandler) -> None:
    if request.headers.get("Authorization") == "Basic " + b64encode(b"admin:p@s/s").decode():
        snapshot(request)
    else:
        send(request, 401, WWW_Authenticate='Basic realm="camera"')


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(snapshot)
    yield server
    server.close()


@pytest.fixture
def other() -> Iterator[Server]:
    server = Server(snapshot)
    yield server
    server.close()


def test_each_request_is_a_frame(server: Server) -> None:
    with Camera(f"http://127.0.0.1:{server.port}/snap.jpg?channel=1", QUICK) as camera:
        wait_for(lambda: camera.captured > 5)
        frame = camera.newest()
        assert frame is not None
        assert frame.picture.shape == (48, 64, 3)
        assert abs(frame.picture.astype(int).mean(axis=(0, 1)) - (200, 0, 0)).max() < 4
        before, start = camera.captured, time.monotonic()
        time.sleep(1)
        assert (camera.captured - before) / (time.monotonic() - start) < 20  # a request as often as needed


@pytest.mark.parametrize(
    "failure",
    [
        lambda request: send(request, 503),
        lambda request: send(request, 200, picture(9)[:300], Content_Type="image/jpeg"),
        lambda request: send(request, 200, b"<html>busy</html>", Content_Type="text/html"),
        lambda request: send(request, 200, b"", Content_Type="image/jpeg"),
        lambda request: request.connection.shutdown(socket.SHUT_RDWR),
        lambda request: time.sleep(2),
    ],
)
def test_a_snapshot_camera_that_fails_is_found_again(server: Server, failure: Answer) -> None:
    with Camera(f"http://127.0.0.1:{server.port}/", QUICK) as camera:
        server.answer = failure
        wait_for(lambda: camera.message.startswith("camera lost"))
        before = camera.captured
        server.answer = snapshot
        wait_for(lambda: camera.captured > before)
        wait_for(lambda: camera.reconnects and not camera.message)


def test_the_password_goes_to_the_camera_and_is_not_shown(server: Server) -> None:
    server.answer = behind_password
    with Camera(f"http://admin:p@s%2Fs@127.0.0.1:{server.port}/", QUICK) as camera:
        wait_for(lambda: camera.captured > 2)
        assert camera.source.name == f"http://admin:***@127.0.0.1:{server.port}/"
    with pytest.raises(SourceError, match=r"401 Unauthorized.*%40 %3A %2F") as caught:
        Camera(f"http://admin:wrong@127.0.0.1:{server.port}/?pwd=hidden", QUICK).start()
    assert "wrong" not in str(caught.value)
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize("kind", ["snapshot", "video"])
def test_a_redirect_takes_no_password_to_another_host(server: Server, other: Server, kind: str) -> None:
    def redirect(request: BaseHTTPRequestHandler) -> None:
        send(request, 302, Location=f"http://localhost:{other.port}/elsewhere")

    server.answer = redirect
    if kind == "video":
        other.answer = lambda request: send(request, 401, WWW_Authenticate='Basic realm="evil"')
    else:
        other.answer = behind_password
    address = f"http://admin:p%40s%2Fs@127.0.0.1:{server.port}/snap?password=secret"
    with pytest.raises(SourceError, match="302: it sends to another host"):
        Camera(address, QUICK).start()
    for path, password in other.seen:
        assert (path, password) == ("/elsewhere", "")


def test_a_redirect_on_the_same_host_is_followed(server: Server) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        if request.path == "/":
            send(request, 302, Location="/now.jpg")
        else:
            behind_password(request)

    server.answer = answer
    with Camera(f"http://admin:p%40s%2Fs@127.0.0.1:{server.port}/", QUICK) as camera:
        wait_for(lambda: camera.captured > 2)


def test_what_a_server_says_is_not_printed(server: Server) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 403 \x1b[2Jevil\r\nContent-Length: 0\r\n\r\n")

    server.answer = answer
    with pytest.raises(SourceError, match=re.escape("403 Forbidden: is the path right")) as caught:
        Camera(f"http://127.0.0.1:{server.port}/", QUICK).start()
    assert "evil" not in str(caught.value)


def test_udp_is_not_asked_by_tcp() -> None:
    with pytest.raises(SourceError, match="gives no video") as caught:
        Camera(f"udp://127.0.0.1:{closed_port()}?timeout=300000", IMPATIENT).start()
    assert "no connection" not in str(caught.value)


def test_a_name_that_no_name_service_takes_is_no_crash() -> None:
    with pytest.raises(SourceError, match=r"no connection to .* \(.*\): is the camera on"):
        Camera(f"rtsp://{'a' * 70}..example/s", QUICK).start()

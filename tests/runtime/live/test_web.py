"""The web view, asked as a program asks it."""

from __future__ import annotations

import http.client
import io
import itertools
import json
import socket
import struct
import threading
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.live import STATUS, wait_for
from unet_runtime.core.errors import OutputError
from unet_runtime.live import feed, web
from unet_runtime.live.view import Status
from unet_runtime.live.web import WebView


def ask(
    view: WebView, path: str, method: str = "GET", body: str | None = None, **headers: str
) -> tuple[int, Any, bytes]:
    """(status, headers, body) of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", view.port, timeout=60)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def mean_colour(jpeg: bytes) -> list[int]:
    return [round(value) for value in np.asarray(Image.open(io.BytesIO(jpeg))).mean(axis=(0, 1))]


def plain(value: int) -> np.ndarray:
    return np.full((48, 64, 3), value, np.uint8)


def noise(seed: int) -> np.ndarray:
    """A picture whose JPEG file is large: 640x480 pixels, 300 kB."""
    return np.random.default_rng(seed).integers(0, 255, (480, 640, 3), np.uint8)


# What it answers


def test_the_newest_picture_comes_with_its_status(view: WebView, halves: np.ndarray) -> None:
    view.show(plain(0), Status())
    view.show(halves, STATUS)
    code, headers, body = ask(view, "/frame")
    assert (code, headers["Content-Type"], headers["X-Frame"]) == (200, "image/jpeg", "2")
    seen = np.asarray(Image.open(io.BytesIO(body))).astype(int)
    assert abs(seen - halves)[:, 8:150].max() < 6
    assert abs(seen - halves)[:, 170:312].max() < 6
    expected = {"frame": 2, "frame_rate": 29.84, "latency": 41.6, "dropped": 1234, "message": STATUS.message}
    expected |= {"is_lost": True, "background": "", "saved": []}
    assert json.loads(headers["X-Status"]) == expected
    assert json.loads(ask(view, "/status")[2]) == expected


def test_a_figure_that_is_unknown_and_a_message_in_any_language_are_json_too(view: WebView) -> None:
    view.show(plain(0), Status(float("nan"), float("inf"), 0, "gespeichert: Übung\r\nX-Evil: 1"))
    headers = ask(view, "/frame")[1]
    status = json.loads(headers["X-Status"])
    assert (status["frame_rate"], status["latency"]) == (None, None)
    assert status["message"] == "gespeichert: Übung\r\nX-Evil: 1"
    assert "X-Evil" not in headers


def test_a_client_waits_for_a_picture_that_it_has_not_seen(view: WebView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_WAIT", 60.0)
    view.show(plain(10), Status())
    later = threading.Timer(0.3, view.show, (plain(200), Status()))
    later.start()
    _, headers, body = ask(view, "/frame?after=1")
    assert (headers["X-Frame"], mean_colour(body)) == ("2", [200, 200, 200])
    later.join()


def test_no_new_picture_is_answered_so(view: WebView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_WAIT", 0.1)
    assert ask(view, "/frame")[0] == 204
    view.show(plain(10), Status())
    assert ask(view, "/frame?after=1")[0] == 204
    assert ask(view, "/frame?after=7")[0] == 200, "7 is of an earlier run at this address"


def test_other_programs_can_read_the_stream(view: WebView) -> None:
    cv2 = pytest.importorskip("cv2")
    done = threading.Event()

    def show() -> None:
        for value in range(1, 250):
            view.show(plain(value), Status())
            if done.wait(0.1):
                return

    shower = threading.Thread(target=show)
    shower.start()
    capture = cv2.VideoCapture(f"http://127.0.0.1:{view.port}/stream")
    seen = [int(capture.read()[1].mean()) for _ in range(10)]
    capture.release()
    done.set()
    shower.join()
    assert all(later > earlier for earlier, later in itertools.pairwise(seen))


def test_a_picture_of_the_stream_is_complete_without_the_next_one(view: WebView) -> None:
    view.show(plain(10), Status())
    with socket.create_connection(("127.0.0.1", view.port), timeout=60) as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        received = b""
        while received.count(b"--picture\r\n") < 2:
            received += client.recv(65536)
    jpeg = received.split(b"\r\n\r\n")[2].removesuffix(b"\r\n--picture\r\n")
    assert mean_colour(jpeg) == [10, 10, 10]


def test_a_slow_client_neither_slows_the_loop_nor_gets_pictures_of_the_past(view: WebView) -> None:
    view.show(noise(0), Status())
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        client.settimeout(60)
        client.connect(("127.0.0.1", view.port))
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        time.sleep(0.2)
        picture = noise(1)
        for _ in range(100):  # would wait for ever, were the client waited for
            view.show(picture, Status())
            time.sleep(0.002)
        view.show(plain(77), Status())
        received = b""
        while b"\xff\xd9\r\n--picture\r\n" not in received[-20:] or received.count(b"Content-Length") < 2:
            received += client.recv(1 << 16)
            if b"Content-Length" in received and len(received.rsplit(b"\r\n\r\n", 1)[-1]) < 4000:
                break
        count = received.count(b"Content-Length")
    assert count <= 4, "of 102 pictures"


def test_a_picture_is_encoded_once_for_all_who_watch_and_never_for_nobody(
    view: WebView, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []

    class Counted:
        @staticmethod
        def fromarray(picture: np.ndarray) -> Image.Image:
            encoded.append(int(picture[0, 0, 0]))
            return Image.fromarray(picture)

    monkeypatch.setattr(feed, "Image", Counted)
    for value in range(50):
        view.show(plain(value), Status())
    assert encoded == []
    clients = [threading.Thread(target=ask, args=(view, "/frame")) for _ in range(5)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert encoded == [49]


# Whom it obeys


def test_keys_are_reported_once_and_in_order(view: WebView) -> None:
    assert ask(view, "/keys", "POST", "b")[0] == 204
    assert ask(view, "/keys", "POST", "sq", Origin=f"http://127.0.0.1:{view.port}")[0] == 204
    assert (view.keys(), view.keys()) == ("bsq", "")


@pytest.mark.parametrize(
    ("headers", "path", "body", "code"),
    [
        ({"Origin": "http://evil.example"}, "/keys", "q", 403),
        ({"Origin": "http://127.0.0.1:1"}, "/keys", "q", 403),  # another server's page on this machine
        ({"Origin": "null"}, "/keys", "q", 403),
        ({"Sec_Fetch_Site": "cross-site"}, "/keys", "q", 403),
        ({"Sec_Fetch_Site": "same-site"}, "/keys", "q", 403),
        ({"Host": "evil.example:8080", "Origin": "http://evil.example:8080"}, "/keys", "q", 403),
        ({}, "/keys", "x", 400),
        ({}, "/keys", "", 400),
        ({}, "/keys", "q" * 65, 413),
        ({"Content_Length": "-1"}, "/keys", "q", 413),
        ({}, "/", "q", 404),
    ],
)
def test_no_other_page_presses_keys(view: WebView, headers: dict[str, str], path: str, body: str, code: int) -> None:
    assert ask(view, path, "POST", body, **headers)[0] == code
    assert view.keys() == ""


@pytest.mark.parametrize(
    ("headers", "path", "code"),
    [
        ({"Host": "evil.example"}, "/frame", 403),
        ({"Host": "evil.example:80"}, "/", 403),
        ({"Host": ""}, "/", 403),
        ({"Host": "[::1"}, "/", 403),
        ({"Sec_Fetch_Site": "cross-site"}, "/stream", 403),
        ({"Sec_Fetch_Site": "cross-site"}, "/", 200),  # a link to it
        ({"Host": "localhost:9000"}, "/", 200),  # the near end of a tunnel
        ({"Host": "192.168.1.7:9000"}, "/", 200),
        ({}, "/../web.py", 404),
        ({}, "/page.html", 404),
        ({}, "/frame?after=-1", 400),
        ({}, "/frame?after=%C2%B2", 400),
    ],
)
def test_no_other_page_reads_anything(view: WebView, headers: dict[str, str], path: str, code: int) -> None:
    view.show(plain(10), Status())
    assert ask(view, path, **headers)[0] == code


def test_it_is_served_to_this_machine_alone(view: WebView) -> None:
    assert view.name == f"web at http://127.0.0.1:{view.port}/"
    assert view._server.socket.getsockname()[0] == "127.0.0.1"


# What is not friendly


def exchange(view: WebView, request: bytes) -> bytes:
    """All that comes back until the connection is closed."""
    with socket.create_connection(("127.0.0.1", view.port), timeout=60) as client:
        client.sendall(request)
        received = b""
        while block := client.recv(65536):
            received += block
        return received


def test_a_key_pressed_often_counts_once(view: WebView) -> None:
    assert ask(view, "/keys", "POST", "s" * 64)[0] == 204
    for _ in range(50):
        assert ask(view, "/keys", "POST", "bs")[0] == 204
    assert view.keys() == "sb"


@pytest.mark.parametrize(
    ("request_line", "headers", "code"),
    [
        (b"GET /frame?after=" + b"9" * 5000, b"", 400),
        (b"GET /frame?after=1e3", b"", 400),
        (b"GET /frame?" + b"a&" * 2000 + b"after=x", b"", 400),
        (b"GET http://[::1", b"", 400),
        (b"GET //[", b"", 404),
        (b"GET /", b"Origin: http://[::1\r\n", 403),
        (b"POST /keys", b"Content-Length: " + b"9" * 5000 + b"\r\n", 413),
        (b"POST /keys", b"Content-Length: 1\r\nContent-Length: 2\r\n", 413),
        (b"POST /keys", b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 413),
        (b"POST http://[::1", b"Content-Length: 0\r\n", 400),
        (b"GET \xff\xfe", b"", 404),
        (b"PUT /keys", b"Content-Length: 1\r\n", 501),
        (b"GET /" + b"a" * 70000, b"", 414),
    ],
)
def test_no_request_ends_in_a_traceback(
    view: WebView, request_line: bytes, headers: bytes, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    view.show(plain(10), Status())
    answer = exchange(
        view, request_line + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n" + headers + b"Connection: close\r\n\r\nx"
    )
    assert answer.startswith(b"HTTP/1.1 %d " % code), answer[:80]
    assert capfd.readouterr() == ("", "")


def test_a_body_is_never_taken_for_the_next_request(view: WebView) -> None:
    inner = b"POST /keys HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\nq"
    for header in (b"Content-Length: %d" % len(inner), b"Transfer-Encoding: chunked"):
        answer = exchange(view, b"GET /status HTTP/1.1\r\nHost: 127.0.0.1\r\n" + header + b"\r\n\r\n" + inner)
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"Connection: close" in answer
    assert view.keys() == ""


def test_slow_clients_take_no_more_than_their_places(view: WebView, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_MAX_CLIENTS", 4)
    view.show(plain(10), Status())
    slow = []
    for _ in range(20):
        client = socket.create_connection(("127.0.0.1", view.port), timeout=60)
        client.sendall(b"GET /frame HTT")  # and no more
        slow.append(client)
    assert ask(view, "/frame")[0] == 200
    assert len(view._server._clients) <= 4
    for client in slow:
        client.close()


def test_where_all_places_are_taken_by_clients_that_watch_the_next_is_sent_away(
    view: WebView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_MAX_CLIENTS", 2)
    view.show(plain(10), Status())
    watching = []
    for _ in range(2):
        client = socket.create_connection(("127.0.0.1", view.port), timeout=60)
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200")
        watching.append(client)
    assert exchange(view, b"").startswith(b"HTTP/1.1 503 ")
    for client in watching:
        client.close()


# Other machines


def test_other_machines_need_the_token() -> None:
    view = WebView("0.0.0.0", port=0)
    try:
        view.show(plain(10), Status())
        assert view.name == f"web at http://localhost:{view.port}/?token={view.token}"
        assert len(view.token) >= 20
        for path in ("/", "/frame", "/?token=", "/?token=x", "/?token=%C3%A9", "/stream"):
            assert ask(view, path, Host="camera.example:8080")[0] == 403
        assert ask(view, "/keys", "POST", "q")[0] == 403
        code, headers, _ = ask(view, f"/?token={view.token}", Host="camera.example:8080")
        assert code == 200
        cookie, _, rest = headers["Set-Cookie"].partition(";")
        assert "HttpOnly" in rest
        assert "SameSite=Strict" in rest
        assert ask(view, "/frame", Cookie=f"other=1; {cookie}")[0] == 200
        assert ask(view, f"/frame?token={view.token}")[0] == 200
        assert ask(view, "/keys", "POST", "s", Cookie=cookie, Origin="http://evil.example")[0] == 403
        assert ask(view, "/keys", "POST", "s", Cookie=cookie)[0] == 204
        assert view.keys() == "s"
    finally:
        view.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.2"])
def test_this_machine_needs_none(host: str) -> None:
    view = WebView(host, port=0)
    view.close()
    assert view.token == ""
    assert "token" not in view.name


@pytest.mark.parametrize("host", ["a" * 70, "ü..b", "a\ud800b", "256.1.1.1"])
def test_a_name_that_no_machine_has_is_an_error(host: str) -> None:
    with pytest.raises(OutputError, match=r"web view: .*: use 127\.0\.0\.1"):
        WebView(host, port=0)


# Ports, and the end


def test_a_taken_port_gives_the_next_one_and_a_note(view: WebView) -> None:
    second = WebView(port=view.port)
    second.close()
    assert view.port < second.port <= view.port + 19
    assert second.note == f"port {view.port} is taken"


def test_no_free_port_is_an_error_that_names_them_and_the_option(
    view: WebView, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_PORTS_TRIED", 1)
    with pytest.raises(OutputError, match=rf"port {view.port} of 127\.0\.0\.1 \(.*in use\).*--port"):
        WebView(port=view.port)
    with pytest.raises(OutputError, match=r"port 70000 .*expected 0 to 65535.*--port"):
        WebView(port=70000)


def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(OutputError, match=r"192\.0\.2\.1.*use 127\.0\.0\.1"):
        WebView("192.0.2.1", 8080)


def test_closing_ends_all_threads_whoever_still_watches(capfd: pytest.CaptureFixture[str]) -> None:
    before = set(threading.enumerate())
    view = WebView(port=0)
    view.show(plain(1), Status())
    clients = [socket.create_connection(("127.0.0.1", view.port)) for _ in range(3)]
    for client, path in zip(clients, ("/stream", "/frame?after=1"), strict=False):  # the third says nothing
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    wait_for(lambda: sum(thread.name == "web client" for thread in set(threading.enumerate()) - before) == 3)
    view.close()
    view.close()
    wait_for(lambda: not set(threading.enumerate()) - before)
    for client in clients:
        client.close()
    assert capfd.readouterr() == ("", "")


def test_a_client_that_goes_away_is_no_error(view: WebView, capfd: pytest.CaptureFixture[str]) -> None:
    view.show(noise(0), Status())
    for request in (
        b"GET /stream HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /frame HTTP/1.1\r\nHost: 127",
        b"\xff\0\r\n\r\n",
    ):
        client = socket.create_connection(("127.0.0.1", view.port))
        client.sendall(request)
        time.sleep(0.05)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # so that close() resets
        client.close()
    for value in range(5):
        view.show(noise(value), Status())
        time.sleep(0.02)
    assert ask(view, "/frame")[0] == 200
    assert capfd.readouterr() == ("", "")

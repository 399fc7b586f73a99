"""A camera that serves MJPEG over HTTP on the loopback interface, with a clock that can be read from its picture.

The clock is milliseconds of ``time.monotonic``, drawn as a row of black and white squares that survive JPEG and
H.264: the age of a frame is read from the frame itself, whatever it has been through.

    python -m tests.helpers.mjpeg PHOTO RATE      prints the address; ends with its standard input
"""

from __future__ import annotations

import io
import socket
import sys
import threading
import time
from base64 import b64encode
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from PIL import Image

Frame = npt.NDArray[np.uint8]

BITS = 24
SQUARE = 12
"""Pixels."""
SIZE = (640, 480)
"""Width, height."""

_BOUNDARY = "frame"


def draw_number(frame: Frame, number: int) -> Frame:
    """A copy of ``frame`` uint8 (H, W, 3) with the low 24 bits of ``number`` along its top edge.

    Each bit is a square and its inverse beside it: the brighter one tells, even under an overlay's tint.
    """
    bits = [(number >> shift) & 1 for shift in reversed(range(BITS))]
    squares = np.array([[bit, 1 - bit] for bit in bits], np.uint8) * 255
    strip = np.repeat(squares.ravel(), SQUARE)  # (2 * BITS * SQUARE,)
    drawn = frame.copy()
    drawn[:SQUARE, : len(strip)] = strip[np.newaxis, :, np.newaxis]
    return drawn


def read_number(frame: Frame) -> int:
    """The number that ``draw_number`` drew into a frame of ``SIZE``."""
    row = frame[SQUARE // 2, SQUARE // 2 : 2 * BITS * SQUARE : SQUARE].mean(axis=-1)
    return int("".join("1" if first > second else "0" for first, second in row.reshape(BITS, 2)), 2)


def milliseconds() -> int:
    return int(time.monotonic() * 1000) % (1 << BITS)


def age(frame: Frame) -> float:
    """Milliseconds since the camera drew its clock into ``frame``."""
    return (milliseconds() - read_number(frame)) % (1 << BITS)


def photo_frame(photo: Path) -> Frame:
    """The photo as uint8 (480, 640, 3) RGB."""
    with Image.open(photo) as image:
        return np.asarray(image.convert("RGB").resize(SIZE))


class MjpegCamera:
    """Serves ``url``; ``mode`` may change at any time.

    ``play``; ``stall`` (connected, silent); ``drop`` (every connection is cut); ``garbage`` (noise for pictures);
    ``refuse`` (HTTP 503, and every connection is cut). With ``login`` (``name:password``) it asks for it.
    """

    def __init__(self, photo: Path, rate: float = 30, *, lengths: bool = True, port: int = 0) -> None:
        self.frame = photo_frame(photo)
        self.rate = rate
        self.lengths = lengths
        self.mode = "play"
        self.login = ""
        self.connections = 0
        self.sent = 0
        self._closed = threading.Event()
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera._answer(self)

            def log_message(self, format: str, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/video.mjpg"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def __enter__(self) -> MjpegCamera:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.connections += 1
        if self.mode == "refuse":
            request.send_error(503)
            return
        if self.login and request.headers["Authorization"] != "Basic " + b64encode(self.login.encode()).decode():
            request.send_response(401)
            request.send_header("WWW-Authenticate", 'Basic realm="camera"')
            request.end_headers()
            return
        # A camera's buffers are small: what the reader does not fetch is soon dropped, not kept for minutes.
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        request.send_response(200)
        request.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        request.end_headers()
        with suppress(ConnectionError):
            self._play(request)

    def _play(self, request: BaseHTTPRequestHandler) -> None:
        due = time.monotonic()
        while not self._closed.is_set() and self.mode not in ("drop", "refuse"):
            if self.mode != "stall":
                request.wfile.write(self._part())
                self.sent += 1
            due = max(due + 1 / self.rate, time.monotonic())
            self._closed.wait(due - time.monotonic())

    def _part(self) -> bytes:
        if self.mode == "garbage":
            body = np.random.default_rng(self.sent).bytes(20_000)
        else:
            buffer = io.BytesIO()
            Image.fromarray(draw_number(self.frame, milliseconds())).save(buffer, "JPEG", quality=85)
            body = buffer.getvalue()
        length = f"Content-Length: {len(body)}\r\n" if self.lengths else ""
        return f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\n{length}\r\n".encode() + body + b"\r\n"


if __name__ == "__main__":
    with MjpegCamera(Path(sys.argv[1]), float(sys.argv[2])) as served:
        print(served.url, flush=True)
        sys.stdin.read()

"""Under load: many clients at once, a signal in the middle, clients that leave, memory.

SERVE_CLIENTS=400, SERVE_REQUESTS=20000 and SERVE_MALFORMED=2000 are what docs/results.md quotes.
"""

from __future__ import annotations

import http.client
import io
import os
import signal
import socket
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.live import wait_for
from tests.helpers.memory import needs_proc
from tests.helpers.serving import TIMEOUT, Running, form, jpeg, serving

CLIENTS = int(os.environ.get("SERVE_CLIENTS", "60"))
REQUESTS = int(os.environ.get("SERVE_REQUESTS", "100"))
STOPPED = 50
GROWTH = 5.0  # MB
ROUNDS = 3  # a leak grows in each; what the allocator keeps, in one of them


def status_of(connection: http.client.HTTPConnection) -> int:
    """Status of the response to one client."""
    response = connection.getresponse()
    response.read()
    connection.close()
    if response.status == 429:
        assert 1 <= int(response.headers["Retry-After"]) <= 30
    return response.status


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="a system without SIGSTOP")
def test_every_client_gets_an_answer(tmp_path: Path, colour_model: Path) -> None:
    """The service stands still until all have asked: however slow this machine is, most find the queue full."""
    body = jpeg(800, 600)
    with serving(tmp_path, "--model", colour_model, "--queue", "8") as service:
        service.process.send_signal(signal.SIGSTOP)
        connections = []
        for _ in range(CLIENTS):
            connections.append(http.client.HTTPConnection("127.0.0.1", service.port, timeout=TIMEOUT))
            connections[-1].request("POST", "/segment?save=mask", body)
        service.process.send_signal(signal.SIGCONT)
        found = list(map(status_of, connections))
        assert set(found) == {200, 429}
        refused = f'unet_refused_total{{reason="queue full"}} {found.count(429)}.0'
        assert refused in service.get("/metrics").body.decode()
        assert service.get("/health").json["waiting"] == 0
        assert "Traceback" not in service.log()


def test_a_signal_loses_nobody(tmp_path: Path, colour_model: Path) -> None:
    """Some requests are worked on, some wait, some lie in the system's queue of connections."""
    body = jpeg(640, 480)
    head = f"POST /segment?save=mask HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with serving(tmp_path, "--model", colour_model, "--timeout", "600") as service:
        clients = []
        for _ in range(STOPPED):
            client = socket.create_connection(("127.0.0.1", service.port), timeout=TIMEOUT)
            client.sendall(head + body)
            clients.append(client)
        service.process.send_signal(signal.SIGTERM)
        answers = []
        for client in clients:
            with client, client.makefile("rb") as file:
                answers.append(file.read())
        for answer in answers:
            top, _, rest = answer.partition(b"\r\n\r\n")
            assert top.startswith(b"HTTP/1.1 200 ")
            assert rest.startswith(b"\x89PNG")
            assert rest.endswith(b"IEND\xaeB`\x82")
        assert service.stop() == 0
        assert "Traceback" not in service.log()
        assert service.log().count(" 200 ") == STOPPED


def test_a_second_signal_is_patient(tmp_path: Path, colour_model: Path) -> None:
    with serving(tmp_path, "--model", colour_model, "--timeout", "600") as service:
        service.process.send_signal(signal.SIGINT)
        service.process.send_signal(signal.SIGTERM)
        assert service.stop() == 0
        assert "Traceback" not in service.log()


def test_a_client_that_leaves_is_not_worked_for(tmp_path: Path, colour_model: Path, photo: bytes) -> None:
    body = jpeg(1500, 1000)
    head = f"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with serving(tmp_path, "--model", colour_model, "--threads", "1") as service:
        for _ in range(30):
            with socket.create_connection(("127.0.0.1", service.port), timeout=TIMEOUT) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # leaves at once
                client.sendall(head + body)
        wait_for(lambda: service.log().count("POST /segment") == 30)
        assert " 499 " in service.log()
        assert service.post("/segment", photo).status == 200
        assert "Traceback" not in service.log()


def test_a_slow_body_ends(tmp_path: Path, colour_model: Path, photo: bytes) -> None:
    head = b"POST /segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    with serving(tmp_path, "--model", colour_model, "--timeout", "4") as service:
        assert service.raw(head + b"x", ends=False).startswith(b"HTTP/1.1 408 ")
        assert service.post("/segment", photo).status == 200


@needs_proc
def test_memory_does_not_grow(tmp_path: Path, colour_model: Path) -> None:
    """Good and bad photos of many sizes, one after the other on few connections."""
    rng = np.random.default_rng(0)
    photos = []
    for _ in range(12):
        width, height = rng.integers(50, 250, 2).tolist()
        photos.append(jpeg(width, height))
    photos += [photos[0][:300], b"", b"<html>", b"\x89PNG\r\n\x1a\n"]
    saves = ("mask", "overlay", "cutout", "json")

    def ask(service: Running, count: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=TIMEOUT)
        for index in range(count):
            body, kind = form(photos[index % len(photos)])
            path = f"/segment?save={saves[index % len(saves)]}"
            connection.request("POST", path, body, {"Content-Type": kind})
            response = connection.getresponse()
            response.read()
            assert response.status in (200, 400)
        connection.close()

    with serving(tmp_path, "--model", colour_model, "-q") as service:
        ask(service, REQUESTS)
        growth = []
        for _ in range(ROUNDS):
            before = service.resident()
            ask(service, REQUESTS)
            growth.append(service.resident() - before)
            if growth[-1] < GROWTH:
                return
    pytest.fail(f"grew by {growth} MB")


def test_a_client_that_takes_nothing_blocks_nobody(tmp_path: Path, colour_model: Path, photo: bytes) -> None:
    """Its response is larger than what the system keeps for it."""
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (1500, 1500, 3), np.uint8)).save(file, "JPEG")
    body = file.getvalue()
    head = f"POST /segment?save=overlay HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with serving(tmp_path, "--model", colour_model, "--timeout", "600", "--threads", "1") as service:
        clients = []
        for _ in range(4):
            client = socket.create_connection(("127.0.0.1", service.port), timeout=TIMEOUT)
            client.sendall(head + body)
            clients.append(client)
        assert service.post("/segment", photo).status == 200
        for client in clients:
            with client, client.makefile("rb") as answer:
                assert answer.readline().startswith(b"HTTP/1.1 200 ")
        assert service.post("/segment", photo).status == 200
        assert "Traceback" not in service.log()


def test_connections_leave_files_to_the_decoders(tmp_path: Path, colour_model: Path, photo: bytes) -> None:
    """A process that may open few files: connections beyond are told to come again, the others are served."""
    with serving(tmp_path, "--model", colour_model, "--timeout", "600", files=96) as service:
        idle = []
        for _ in range(60):
            idle.append(socket.create_connection(("127.0.0.1", service.port), timeout=TIMEOUT))
        found = set()
        for client in idle:
            with client, client.makefile("rb") as answer:
                client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                found.add(answer.readline().split()[1])
        assert found == {b"200", b"429"}
        assert service.post("/segment", photo).status == 200
        assert "out of system resource" not in service.log()

"""Several processes behind one address: counts add up, connections are shared, a dead one is replaced, all end."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.live import wait_for
from tests.helpers.memory import needs_proc
from tests.helpers.serving import TIMEOUT, Running, jpeg, serving

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="workers are forked")

OPTIONS = ("--threads", "2", "--workers", "2")


@pytest.fixture(scope="module")
def service(colour_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with serving(tmp_path_factory.mktemp("workers"), "--model", colour_model, *OPTIONS) as running:
        yield running
        assert "Traceback" not in running.log()


def workers_of(service: Running) -> list[int]:
    """Process ids."""
    return service.processes()[1:]


def value(service: Running, sample: str) -> list[float]:
    """Values of a metric's samples whose name and labels match."""
    text = service.get("/metrics").body.decode()
    return [float(found) for found in re.findall(rf"^{sample} (\S+)$", text, re.MULTILINE)]


def wait_until_whole(service: Running) -> None:
    wait_for(lambda: service.get("/health").json["workers"] == 2)


def test_counts_are_those_of_all(service: Running, photo: bytes) -> None:
    assert "2 workers, threads of each: 1, 1" in service.lines
    for _ in range(30):
        assert service.post("/segment", photo).status == 200
    # A worker that is slow to report counts as it last did.
    wait_for(lambda: value(service, r'unet_requests_total{code="200",route="/segment"}') == [30])
    assert value(service, r'unet_stage_seconds_count{stage="infer"}') == [30]
    assert value(service, r'unet_stage_seconds_bucket{le="\+Inf",stage="infer"}') == [30]
    assert value(service, "unet_queue_limit") == [64]
    assert value(service, "unet_workers") == [2]
    assert value(service, r"unet_model_ready{.*}") == [1]
    assert len(value(service, r'process_resident_memory_bytes{worker="\d"}')) == 2
    health = service.get("/health").json
    assert (health["status"], health["workers"], health["limit"], len(health["models"])) == ("ok", 2, 64, 1)


@needs_proc
def test_connections_that_stay_open_are_shared(service: Running, photo: bytes) -> None:
    """On a busy machine a worker waits for the other's turn in vain, and takes it: not each time."""

    def shares() -> list[int]:
        connections = []
        for _ in range(8):
            connections.append(http.client.HTTPConnection("127.0.0.1", service.port, timeout=TIMEOUT))
            connections[-1].connect()
        for connection in connections:
            connection.request("POST", "/segment", photo)
            response = connection.getresponse()
            response.read()
            assert response.status == 200
        found = sorted(map(open_connections, workers_of(service)))
        for connection in connections:
            connection.close()
        wait_for(lambda: not any(map(open_connections, workers_of(service))))
        return found

    wait_for(lambda: shares() == [4, 4])


def open_connections(process: int) -> int:
    """TCP connections of a process that are established."""
    established = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "01":
            established.add(f"socket:[{fields[9]}]")
    return sum(str(file.readlink()) in established for file in Path(f"/proc/{process}/fd").iterdir())


@needs_proc
def test_a_dead_worker_is_replaced(service: Running, photo: bytes) -> None:
    before = value(service, r'unet_requests_total{code="200",route="/segment"}')
    old = workers_of(service)
    os.kill(old[0], signal.SIGKILL)
    for _ in range(10):
        assert service.post("/segment", photo).status == 200
    wait_until_whole(service)
    assert len(set(workers_of(service)) - set(old)) == 1
    assert f"(process {old[0]}) has ended (SIGKILL): another begins" in service.log()
    assert value(service, "unet_worker_restarts_total") == [1]
    wait_for(lambda: value(service, r'unet_requests_total{code="200",route="/segment"}') == [before[0] + 10])
    os.kill(workers_of(service)[0], signal.SIGTERM)  # answers what it has, and is replaced too
    wait_for(lambda: value(service, "unet_worker_restarts_total") == [2])
    wait_until_whole(service)


def test_a_signal_loses_nobody(tmp_path: Path, colour_model: Path) -> None:
    body = jpeg(640, 480)
    head = f"POST /segment?save=mask HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with serving(tmp_path, "--model", colour_model, "--timeout", "600", *OPTIONS) as service:
        clients = []
        for _ in range(50):
            client = socket.create_connection(("127.0.0.1", service.port), timeout=TIMEOUT)
            client.sendall(head + body)
            clients.append(client)
        service.process.send_signal(signal.SIGTERM)
        for client in clients:
            with client, client.makefile("rb") as file:
                assert file.read().startswith(b"HTTP/1.1 200 ")
        assert service.stop() == 0
        assert "Traceback" not in service.log()
        assert service.log().count(" 200 ") == 50
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", service.port), timeout=TIMEOUT)


@needs_proc
def test_workers_of_a_dead_supervisor_end(tmp_path: Path, colour_model: Path, photo: bytes) -> None:
    with serving(tmp_path, "--model", colour_model, *OPTIONS) as service:
        processes = workers_of(service)
        service.process.kill()
        service.process.wait(TIMEOUT)
        wait_for(lambda: not any(Path(f"/proc/{process}/stat").exists() for process in processes))


def test_many_clients_at_once(tmp_path: Path, colour_model: Path) -> None:
    body = jpeg(800, 600)
    with (
        serving(tmp_path, "--model", colour_model, "--queue", "8", *OPTIONS) as service,
        ThreadPoolExecutor(60) as pool,
    ):
        answers = list(pool.map(lambda _: service.post("/segment?save=mask", body).status, range(60)))
        assert set(answers) <= {200, 429}
        wait_for(lambda: sum(value(service, r'unet_requests_total{code="(?:200|429)",route="/segment"}')) == 60)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--threads", "1"), 2, "--workers 2 with 1 threads: each needs a thread at least; name fewer workers"),
        (("--threads", "2", "--model", "missing.onnx"), 3, "missing.onnx: no such file or folder"),
    ],
)
def test_what_cannot_begin(arguments: tuple[str, ...], code: int, said: str, tmp_path: Path) -> None:
    start = "from unet_runtime.cli.serve import main; main()"
    ended = subprocess.run(
        [sys.executable, "-c", start, "--workers", "2", "--port", "0", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert ended.returncode == code
    assert said in ended.stderr
    assert ended.stderr.count("error:") + ended.stderr.count("Error:") == 1

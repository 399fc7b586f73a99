"""unet-serve under load: throughput beside unet-run, latency beside Segmenter, memory after many requests.

    python benchmarks/serve.py [--photos 400] [--requests 20000] [--warm 1000] [--clients 8] PHOTO_FOLDER

Three measurements, each on the bundled model and with its masks written, one after the other:

    throughput  photos a second of a service with ``--clients`` clients, and of ``unet-run`` on the same folder,
                both with as many threads as there are cores; in turns, the median of three; goal 90 %
    latency     of single requests at half that rate, against Segmenter with the mask encoded; goals +3 ms at p50,
                +10 ms at p95
    memory      resident size after ``--requests`` requests, one in five of them no photo, against ``--warm``; goal 5 MB

The first two mean nothing on a machine that is busy with other things: the load is printed.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.helpers.serving import Running, serving
from unet_runtime import Segmenter
from unet_runtime.core import cores
from unet_runtime.io.sinks import encode

ROUNDS = 3
PATH = "/segment?save=mask"
_local = threading.local()


def ask(port: int, body: bytes) -> tuple[int, float]:
    """(status, seconds) of a request, on the thread's own connection."""
    if getattr(_local, "port", None) != port:
        _local.connection, _local.port = http.client.HTTPConnection("127.0.0.1", port, timeout=600), port
    start = time.perf_counter()
    _local.connection.request("POST", PATH, body)
    response = _local.connection.getresponse()
    response.read()
    return response.status, time.perf_counter() - start


def served_rate(service: Running, bodies: list[bytes], clients: int) -> float:
    """Photos a second."""
    with ThreadPoolExecutor(clients) as pool:
        start = time.perf_counter()
        found = list(pool.map(lambda body: ask(service.port, body)[0], bodies))
        seconds = time.perf_counter() - start
    assert set(found) == {200}, set(found)
    return len(bodies) / seconds


def folder_rate(photos: list[Path]) -> float:
    """Photos a second of unet-run, its start not counted: the difference between all photos and few."""
    seconds = []
    few = photos[: max(1, len(photos) // 10)]
    for some in (few, photos):
        with tempfile.TemporaryDirectory() as output:
            start = "from unet_runtime.cli.run import main; main()"
            command = [sys.executable, "-c", start, "-q", "--save", "mask", "--output-dir", output, *map(str, some)]
            begun = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - begun)
    return (len(photos) - len(few)) / (seconds[1] - seconds[0])


def own_times(photos: list[Path]) -> list[float]:
    """Seconds of Segmenter for each photo, mask encoded."""
    found = []
    with Segmenter(threads=1) as segmenter:
        for photo in photos:
            content = photo.read_bytes()
            start = time.perf_counter()
            encode(segmenter(content), "mask")
            found.append(time.perf_counter() - start)
    return found


def paced_times(service: Running, bodies: list[bytes], rate: float) -> list[float]:
    """Seconds of requests that begin at random times, ``rate`` of them a second."""
    rng = np.random.default_rng(0)
    with ThreadPoolExecutor(32) as pool:
        calls = []
        for body in bodies:
            calls.append(pool.submit(ask, service.port, body))
            time.sleep(rng.exponential(1 / rate))
        return [call.result()[1] for call in calls]


def growth(service: Running, bodies: list[bytes], count: int, warm: int) -> float:
    """MB."""
    mixed = [*bodies[:40], *(body[: len(body) // 3] for body in bodies[:10])]
    readings = []
    for index, body in enumerate(itertools.islice(itertools.cycle(mixed), count), 1):
        ask(service.port, body)
        if index in (warm, count):
            readings.append(service.resident())
    print(f"memory: {readings[0]:.1f} MB after {warm:,} requests, {readings[-1]:.1f} MB after {count:,}")
    return readings[-1] - readings[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--warm", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--only", choices=["throughput", "latency", "memory"])
    options = parser.parse_args()
    photos = sorted(options.folder.glob("*.jpg"))[: options.photos]
    bodies = [photo.read_bytes() for photo in photos]
    print(f"{cores.usable_cores()} cores, load {os.getloadavg()[0]:.1f}, {len(photos)} photos")
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), "-q") as service:
        rates: list[tuple[float, float]] = []
        if options.only in (None, "throughput", "latency"):
            served_rate(service, bodies[:50], options.clients)
            for _ in range(ROUNDS):
                rates.append((served_rate(service, bodies, options.clients), folder_rate(photos)))
                print(f"throughput: {rates[-1][0]:.1f} served a second, unet-run {rates[-1][1]:.1f}")
            share = statistics.median(served / run for served, run in rates)
            print(f"throughput: {share:.0%} of unet-run")
        if options.only in (None, "latency"):
            rate = statistics.median(served for served, _ in rates) / 2
            served = np.percentile(paced_times(service, bodies, rate), (50, 95)) * 1000
            own = np.percentile(own_times(photos), (50, 95)) * 1000
            print(f"latency at {rate:.1f} a second: p50 {served[0]:.1f} ms, p95 {served[1]:.1f} ms")
            print(
                f"  Segmenter alone {own[0]:.1f} and {own[1]:.1f}: {served[0] - own[0]:+.1f}, {served[1] - own[1]:+.1f}"
            )
        if options.only in (None, "memory"):
            print(f"growth {growth(service, bodies, options.requests, options.warm):+.1f} MB, goal below 5")
    return 0


if __name__ == "__main__":
    sys.exit(main())

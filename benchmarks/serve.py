"""unet-serve under load: throughput beside unet-run, latency beside Segmenter, memory after many requests.

    python benchmarks/serve.py [--photos 400] [--requests 20000] [--warm 1000] [--clients 8] [--workers 1] PHOTO_FOLDER

Five measurements, each on the bundled model and with its masks written, one after the other:

    throughput  photos a second of a service with ``--clients`` clients, and of ``unet-run`` on the same folder,
                both with as many threads as there are cores; in turns, the median of three; goal 90 %. The same in
                processor time, which other work on the machine hardly changes
    latency     of single requests, in turns with Segmenter and the mask encoded; goals +3 ms at p50, +10 ms at p95
    half        the same at half load: requests at half the rate that the service can answer, in turns with calls of
                Segmenters at the same times
    batches     time of the engine for a photo alone and in batches of 4 and 8: why neither the service nor a video
                batches on the CPU
    memory      resident size after ``--requests`` requests for masks, overlays, cut-outs and JSON, one in five of them
                no photo, against ``--warm``; goal 5 MB

Times by the clock mean nothing on a machine that is busy with other things: the load is printed.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.helpers.serving import Running, serving
from unet_runtime import Segmenter
from unet_runtime.core import cores
from unet_runtime.engines.base import FLOAT_ONNX, INT8_ONNX
from unet_runtime.io.sinks import encode

ROUNDS = 3
BATCH = 8
BATCHES = (1, 4, 8)
TURN = 50
SAVES = ("mask", "overlay", "cutout", "json")
_local = threading.local()


def ask(port: int, body: bytes, save: str = "mask") -> tuple[int, float]:
    """(status, seconds) of a request, on the thread's own connection."""
    if getattr(_local, "port", None) != port:
        _local.connection, _local.port = http.client.HTTPConnection("127.0.0.1", port, timeout=600), port
    start = time.perf_counter()
    _local.connection.request("POST", f"/segment?save={save}", body)
    response = _local.connection.getresponse()
    response.read()
    return response.status, time.perf_counter() - start


class Cost(NamedTuple):
    """What a photo costs, on average."""

    rate: float
    """Photos a second."""
    processor: float
    """Seconds of the processor for each."""


def processor_seconds(service: Running) -> float:
    """Processor time of all threads of all processes of a service."""
    ticks = 0
    for process in service.processes():
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def served(service: Running, bodies: list[bytes], clients: int) -> Cost:
    """Cost of a photo to the service; its clients are not counted."""
    with ThreadPoolExecutor(clients) as pool:
        start, used = time.perf_counter(), processor_seconds(service)
        found = list(pool.map(lambda body: ask(service.port, body)[0], bodies))
        seconds, used = time.perf_counter() - start, processor_seconds(service) - used
    assert set(found) == {200}, set(found)
    return Cost(len(bodies) / seconds, used / len(bodies))


def segmented(photos: list[Path]) -> Cost:
    """Cost of a photo to unet-run, its start not counted: the difference between all photos and few."""
    seconds, used = [], []
    few = photos[: max(1, len(photos) // 10)]
    for some in (few, photos):
        with tempfile.TemporaryDirectory() as output:
            start = "from unet_runtime.cli.run import main; main()"
            command = [sys.executable, "-c", start, "-q", "--save", "mask", "--output-dir", output, *map(str, some)]
            begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            seconds.append(time.perf_counter() - begun)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    count = len(photos) - len(few)
    return Cost(count / (seconds[1] - seconds[0]), (used[1] - used[0]) / count)


def latencies(service: Running, bodies: list[bytes]) -> tuple[list[float], list[float]]:
    """Seconds of a request and of Segmenter with the mask encoded, photo by photo in turns, the service half idle."""
    asked, own = [], []
    with Segmenter(threads=1) as segmenter:
        for body in bodies:
            asked.append(ask(service.port, body)[1])
            start = time.perf_counter()
            encode(segmenter(body), "mask")
            own.append(time.perf_counter() - start)
    return asked, own


def paced(call: Callable[[bytes], float], bodies: list[bytes], rate: float) -> list[float]:
    """Seconds of each call, begun ``rate`` times a second whatever the others take."""
    start = time.perf_counter()

    def run(index: int) -> float:
        time.sleep(max(0.0, start + index / rate - time.perf_counter()))
        return call(bodies[index])

    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(run, range(len(bodies))))


def half_load(service: Running, bodies: list[bytes]) -> tuple[list[float], list[float]]:
    """As ``latencies``, with requests at half the rate that the service can answer."""
    rate = served(service, bodies[:TURN], 8).rate / 2
    segmenters: SimpleQueue[Segmenter] = SimpleQueue()
    for _ in range(cores.usable_cores()):
        segmenters.put(Segmenter(threads=1))

    def segment(body: bytes) -> float:
        start = time.perf_counter()
        segmenter = segmenters.get()
        encode(segmenter(body), "mask")
        segmenters.put(segmenter)
        return time.perf_counter() - start

    asked: list[float] = []
    own: list[float] = []
    for first in range(0, len(bodies), TURN):
        asked += paced(lambda body: ask(service.port, body)[1], bodies[first : first + TURN], rate)
        own += paced(segment, bodies[first : first + TURN], rate)
    return asked, own


def batches() -> None:
    """Print what a photo costs alone and in batches: the median of some turns, and the least, by the clock."""
    for model in (FLOAT_ONNX, INT8_ONNX):
        for threads in (1, cores.default_threads()):
            with Segmenter(model, backend="onnx", threads=threads) as segmenter:
                taken = _batches_of(segmenter)
            for count, turns in taken.items():
                medians = [1000 * statistics.median(kind) / BATCH for kind in zip(*turns, strict=True)]
                least = 1000 * min(turn[0] for turn in turns) / BATCH
                print(
                    f"{model.name}, {threads} threads, batches of {count}: {medians[1]:.2f} ms of processor a photo, "
                    f"{medians[0]:.2f} by the clock (least {least:.2f})"
                )


def _batches_of(segmenter: Segmenter) -> dict[int, list[tuple[float, float]]]:
    """Size of a batch -> (by the clock, of the processor) seconds for ``BATCH`` photos, in each turn."""
    size = segmenter.spec.input
    images = np.random.default_rng(0).integers(0, 256, (BATCH, size.height, size.width, 3), np.uint8)
    taken: dict[int, list[tuple[float, float]]] = {count: [] for count in BATCHES}
    for _ in range(ROUNDS * 5):
        for count, turns in taken.items():
            start, processor = time.perf_counter(), time.process_time()
            for first in range(0, BATCH, count):
                segmenter.infer(images[first : first + count])
            turns.append((time.perf_counter() - start, time.process_time() - processor))
    return taken


def growth(service: Running, bodies: list[bytes], count: int, warm: int) -> float:
    """MB."""
    mixed = [*bodies[:40], *(body[: len(body) // 3] for body in bodies[:10])]
    readings = []
    for index, body in enumerate(itertools.islice(itertools.cycle(mixed), count), 1):
        ask(service.port, body, SAVES[index % len(SAVES)])
        if index in (warm, count):
            readings.append(service.resident())
    print(f"memory: {readings[0]:.1f} MB after {warm:,} requests, {readings[-1]:.1f} MB after {count:,}")
    return readings[-1] - readings[0]


def report_latencies(title: str, asked: list[float], own: list[float]) -> None:
    """Print percentiles of both, and how far they are apart."""
    of_requests, of_calls = (np.percentile(seconds, (50, 95)) * 1000 for seconds in (asked, own))
    for name, (p50, p95) in (("request", of_requests), ("Segmenter", of_calls), ("more", of_requests - of_calls)):
        print(f"{title}: {name} p50 {p50:.1f} ms, p95 {p95:.1f} ms")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=400)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--warm", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--only", choices=["throughput", "latency", "half", "batches", "memory"])
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    photos = sorted(options.folder.glob("*.jpg"))[: options.photos]
    bodies = [photo.read_bytes() for photo in photos]
    print(f"{cores.usable_cores()} cores, load {os.getloadavg()[0]:.1f}, {len(photos)} photos")
    with (
        tempfile.TemporaryDirectory() as place,
        serving(Path(place), "-q", "--workers", str(options.workers)) as service,
    ):
        costs: list[tuple[Cost, Cost]] = []
        if options.only in (None, "throughput"):
            served(service, bodies[:50], options.clients)
            for _ in range(ROUNDS):
                costs.append((served(service, bodies, options.clients), segmented(photos)))
                print(f"throughput: {costs[-1][0].rate:.1f} served a second, unet-run {costs[-1][1].rate:.1f}")
                own, run = (1000 * cost.processor for cost in costs[-1])
                print(f"  processor: {own:.1f} ms a photo served, unet-run {run:.1f}")
            share = statistics.median(one.rate / other.rate for one, other in costs)
            used = statistics.median(other.processor / one.processor for one, other in costs)
            print(f"throughput: {share:.0%} of unet-run; by processor time {used:.0%}")
        if options.only in (None, "latency"):
            report_latencies("latency", *latencies(service, bodies))
        if options.only in (None, "half"):
            report_latencies("half load", *half_load(service, bodies))
        if options.only in (None, "batches"):
            batches()
        if options.only in (None, "memory"):
            print(f"growth {growth(service, bodies, options.requests, options.warm):+.1f} MB, goal below 5")
    return 0


if __name__ == "__main__":
    sys.exit(main())

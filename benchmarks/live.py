"""The live view behind a camera of 30 frames a second with a model that manages 10: how old is what is shown?

    python -m benchmarks.live [--seconds 30] [--inference 100] [--rate 30] [--view none]

The camera is a process of its own that serves MJPEG on the loopback interface and draws its clock into each picture, so
the age is read from what is shown: it holds encoding, transport and decoding too. The model is the bundled one; each
inference sleeps until its time is up. CPU is that of this process, 100 % being one core.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.helpers.mjpeg import age
from unet_runtime import Segmenter
from unet_runtime.core.timings import Timings
from unet_runtime.engines.base import Backend
from unet_runtime.live.camera import Camera
from unet_runtime.live.loop import Live
from unet_runtime.live.view import Status, View
from unet_runtime.live.views import open_view

REPOSITORY = Path(__file__).parents[1]
PHOTO = REPOSITORY / "runtime/unet_runtime/samples/chelsea.jpg"


class Slowed:
    """A backend whose inferences take ``seconds`` at least."""

    def __init__(self, backend: Backend, seconds: float) -> None:
        self.name, self.device, self.engine, self.note = backend.name, backend.device, backend.engine, backend.note
        self._backend, self._seconds = backend, seconds

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        due = time.perf_counter() + self._seconds
        result = self._backend.run(images)
        time.sleep(max(0.0, due - time.perf_counter()))
        return result


class MeasuringView:
    """Passes pictures on, and notes when each was shown and how old it was then, in milliseconds."""

    def __init__(self, view: View) -> None:
        self.name, self.note = view.name, view.note
        self._view = view
        self.ages: list[tuple[float, float]] = []
        self.memory: list[int] = []

    def show(self, picture: npt.NDArray[np.uint8], status: Status) -> None:
        self._view.show(picture, status)
        self.ages.append((time.perf_counter(), age(picture)))
        self.memory.append(resident_bytes())

    def keys(self) -> str:
        return self._view.keys()

    def close(self) -> None:
        self._view.close()


def resident_bytes() -> int:
    """Memory of this process (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--inference", type=float, default=100, help="milliseconds")
    parser.add_argument("--rate", type=float, default=30)
    parser.add_argument("--view", default="none")
    options = parser.parse_args()
    command = [sys.executable, "-m", "tests.helpers.mjpeg", str(PHOTO), str(options.rate)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        measure(served.stdout.readline().strip(), options)
        served.communicate()


def measure(address: str, options: argparse.Namespace) -> None:
    segmenter = Segmenter()
    segmenter._backend = Slowed(segmenter.backend, options.inference / 1000)
    timings = Timings()
    view = MeasuringView(open_view(options.view))
    with Camera(address, timings=timings) as camera:
        cpu, start = sum(os.times()[:2]), time.perf_counter()
        session = Live(segmenter, camera, view, timings).run(threading.Event(), options.seconds)
        cpu, seconds = sum(os.times()[:2]) - cpu, time.perf_counter() - start
    view.close()
    inference = timings.percentiles("inference", 50)[0]
    print(f"camera {options.rate:g} a second, inference {inference:.0f} ms, view {view.name}")
    for third in range(3):
        begin = start + third * seconds / 3
        ages = [value for shown, value in view.ages if begin <= shown < begin + seconds / 3]
        memory = [used for (shown, _), used in zip(view.ages, view.memory, strict=True) if shown < begin + seconds / 3]
        p50, p95 = np.percentile(ages, (50, 95))
        print(
            f"third {third + 1}: {len(ages):4} shown, age p50 {p50:4.0f} ms, p95 {p95:4.0f} ms = "
            f"{p95 / inference:.2f} inference times, memory {memory[-1] / 1e6:.1f} MB"
        )
    for stage in timings.stages:
        p50, p95 = timings.percentiles(stage, 50, 95)
        print(f"{stage:12} p50 {p50:6.1f} ms   p95 {p95:6.1f} ms")
    print(f"{session.shown} shown, {session.dropped} dropped, CPU {cpu / seconds:.0%}")


if __name__ == "__main__":
    main()

"""Memory growth over many frames: resident size after 1,000 frames against after 20,000.

    python benchmarks/growth.py [--frames 20000] [--warm 1000] [--backends onnx,tflite] [--stream]

Frames are arrays of 320x240 pixels, each segmented with its mask and opacity, each backend in a process of its own.
Goal: less than 5 MB. Ends with exit code 1 above it.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

GOAL = 5.0  # MB
SIZE = (240, 320)
PICTURES = 16
MARKS = 10  # readings on the way, to see a slope


def resident() -> float:
    """MB."""
    fields = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in fields if line.startswith("VmRSS"))


def frames(count: int) -> Iterator[np.ndarray]:
    """A new array each, of a few pictures: another photo, other classes, other open pixels."""
    rng = np.random.default_rng(0)
    pictures = [
        np.kron(rng.integers(0, 256, (6, 8, 3), np.uint8), np.ones((40, 40, 1), np.uint8)) for _ in range(PICTURES)
    ]
    for index in range(count):
        yield np.roll(pictures[index % PICTURES], index % SIZE[1], axis=1)


def child(backend: str, count: int, warm: int, streamed: bool) -> None:
    from unet_runtime import Segmenter

    segmenter = Segmenter(backend=backend)
    results: Iterable[object] = segmenter.stream(frames(count)) if streamed else map(segmenter, frames(count))
    readings: list[tuple[int, float]] = []
    start = time.monotonic()
    for done, result in enumerate(results, start=1):
        assert result.mask.shape == result.opacity.shape == SIZE  # type: ignore[attr-defined]
        if done == warm or (done > warm and (done - warm) % max(1, (count - warm) // MARKS) == 0):
            gc.collect()
            readings.append((done, resident()))
    print(json.dumps({"readings": readings, "seconds": time.monotonic() - start}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=20_000)
    parser.add_argument("--warm", type=int, default=1000)
    parser.add_argument("--backends", default="onnx,tflite")
    parser.add_argument("--stream", action="store_true", help="through Segmenter.stream instead of calls")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.frames, options.warm, options.stream)
        return 0
    worst = 0.0
    for backend in options.backends.split(","):
        command = [sys.executable, __file__, *sys.argv[1:], "--child", backend]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        report = json.loads(output.splitlines()[-1])
        readings = report["readings"]
        growth = readings[-1][1] - readings[0][1]
        worst = max(worst, growth)
        print(
            f"{backend}: {readings[0][1]:.1f} MB after {readings[0][0]:,} frames, {readings[-1][1]:.1f} MB after "
            f"{readings[-1][0]:,}: {growth:+.1f} MB ({options.frames / report['seconds']:.0f} frames/s)"
        )
        print("  " + "  ".join(f"{done}: {size:.1f}" for done, size in readings))
    print(f"worst {worst:+.1f} MB, goal below {GOAL} MB")
    return 0 if worst < GOAL else 1


if __name__ == "__main__":
    sys.exit(main())

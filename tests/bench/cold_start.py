"""Whole process from a cold start: unet-run against the least that does the same (bare_onnx.py).

    python tests/bench/cold_start.py [--runs 21]

The two take turns, so a drift of the machine's speed hits both; the ratio is taken pair by pair.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
MODEL = REPOSITORY / "runtime/unet_runtime/models/pets-edge-160.float32.onnx"
PHOTO = REPOSITORY / "runtime/unet_runtime/samples/chelsea.jpg"


def commands(folder: str) -> dict[str, list[str]]:
    """What is timed; the first is what the others are compared with."""
    python, bare = sys.executable, Path(__file__).with_name("bare_onnx.py")
    unet_run = [str(Path(python).with_name("unet-run")), "--backend", "onnx", "--output-dir", folder, str(PHOTO)]
    return {
        "bare script": [python, str(bare), str(MODEL), str(PHOTO), f"{folder}/m.png"],
        "unet-run (overlay and mask)": unet_run,
        "unet-run --save mask": [*unet_run, "--save", "mask"],
    }


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=21)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        timed: dict[str, list[float]] = {name: [] for name in commands(folder)}
        for turn in range(runs + 1):
            for name, command in commands(folder).items():
                taken = seconds(command)
                if turn:  # the first turn warms the disk cache
                    timed[name].append(taken)
    base = next(iter(timed.values()))
    for name, values in timed.items():
        ratio = statistics.median(value / other for value, other in zip(values, base, strict=True))
        print(f"{name:28} {statistics.median(values) * 1000:6.0f} ms   {ratio:.2f} x the bare script")


if __name__ == "__main__":
    main()

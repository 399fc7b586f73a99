"""Whole process from a cold start: unet-run against the least that does the same (bare_onnx.py, bare_litert.py).

    python benchmarks/cold_start.py [--runs 21]

The commands take turns, so a drift of the machine's speed hits all; ratios are taken turn by turn.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
MODELS = REPOSITORY / "runtime/unet_runtime/models"
PHOTO = REPOSITORY / "runtime/unet_runtime/samples/chelsea.jpg"
GOAL = 1.25
"""Times the bare script, for ``unet-run PHOTO``."""


def commands(folder: str) -> dict[str, dict[str, list[str]]]:
    """Engine -> what is compared; the first of each is what the others are compared with."""
    python = sys.executable
    bare = Path(__file__).parent
    unet_run = [str(Path(python).with_name("unet-run")), "--output-dir", folder, str(PHOTO), "--backend"]
    models = {"onnx": MODELS / "pets-edge-160.float32.onnx", "tflite": MODELS / "pets-edge-160.int8.tflite"}
    scripts = {"onnx": bare / "bare_onnx.py", "tflite": bare / "bare_litert.py"}
    return {
        engine: {
            "bare script": [python, str(scripts[engine]), str(model), str(PHOTO), f"{folder}/m.png"],
            "unet-run (overlay and mask)": [*unet_run, engine],
            "unet-run --save mask": [*unet_run, engine, "--save", "mask"],
        }
        for engine, model in models.items()
    }


def environment(folder: str) -> dict[str, str]:
    """Modules are compiled before the first measured run, as pip leaves them, whatever this shell says of bytecode."""
    known = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**known, "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}


def seconds(command: list[str], known: dict[str, str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=known)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=21)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        known = environment(folder)
        timed = {engine: {name: [] for name in each} for engine, each in commands(folder).items()}
        for turn in range(runs + 1):
            for engine, each in commands(folder).items():
                for name, command in each.items():
                    taken = seconds(command, known)
                    if turn:  # the first turn compiles, and warms the disk cache
                        timed[engine][name].append(taken)
    for engine, each in timed.items():
        base = next(iter(each.values()))
        for name, values in each.items():
            ratio = statistics.median(value / other for value, other in zip(values, base, strict=True))
            print(f"{engine:8}{name:30}{statistics.median(values) * 1000:6.0f} ms   {ratio:.2f} x the bare script")
    print(f"goal: {GOAL} x or less")


if __name__ == "__main__":
    main()

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
from functools import partial
from pathlib import Path

from turns import median_ratio, take_turns

from unet_runtime.engines import default_choice

REPOSITORY = Path(__file__).parents[1]
PHOTO = REPOSITORY / "runtime/unet_runtime/samples/chelsea.jpg"
GOAL = 1.25
"""Times the bare script, for ``unet-run PHOTO``."""


def commands(folder: str) -> dict[str, dict[str, list[str]]]:
    """Engine -> what is compared; the first of each is what the others are compared with."""
    python = sys.executable
    bare = Path(__file__).parent
    unet_run = [str(Path(python).with_name("unet-run")), "--output-dir", folder, str(PHOTO), "--backend"]
    models = {engine: default_choice(engine).model for engine in ("onnx", "tflite")}
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
    variables = {**os.environ, "PYTHONPYCACHEPREFIX": f"{folder}/bytecode"}
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    return variables


def run(command: list[str], variables: dict[str, str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=variables)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=21)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        variables = environment(folder)
        for engine, compared in commands(folder).items():
            calls = {name: partial(run, command, variables) for name, command in compared.items()}
            seconds = take_turns(calls, runs)  # the warm-up compiles, and fills the disk cache
            base = next(iter(seconds.values()))
            for name, taken in seconds.items():
                ratio = median_ratio(taken, base)
                print(f"{engine:8}{name:30}{statistics.median(taken) * 1000:6.0f} ms   {ratio:.2f} x the bare script")
    print(f"goal: {GOAL} x or less")


if __name__ == "__main__":
    main()

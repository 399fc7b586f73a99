"""Milliseconds of one inference of several model files, side by side in one process, each in one engine.

    python benchmarks/model_files.py [--threads 2] [--rounds 60] FILE@ENGINE ...

The files take turns, round after round, so a drift of the machine's speed hits all. Medians, and those of the
ratios to the first file. ``unet-bench`` measures a photo's whole way, each file in processes of its own.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path

from turns import median_ratio, take_turns

from unet_runtime import Segmenter

PHOTO = Path(__file__).parents[1] / "runtime/unet_runtime/samples/chelsea.jpg"
WARM_UP = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", metavar="FILE@ENGINE")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=60)
    options = parser.parse_args()
    calls = {}
    for name in options.files:
        path, _, engine = name.rpartition("@")
        segmenter = Segmenter(path, backend=engine, threads=options.threads)
        calls[f"{Path(path).name}, {engine}"] = partial(segmenter.infer, segmenter.prepare(PHOTO).images)
    seconds = take_turns(calls, options.rounds, WARM_UP)
    first = next(iter(seconds.values()))
    for name, taken in seconds.items():
        print(f"{name:48} {statistics.median(taken) * 1000:7.2f} ms   {median_ratio(taken, first):5.2f} x the first")


if __name__ == "__main__":
    main()

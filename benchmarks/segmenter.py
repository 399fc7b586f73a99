"""What the way around the engine costs, side by side in one run: `Segmenter` against `session.run` alone.

    python benchmarks/segmenter.py [--backend onnx] [--threads N] [--rounds 30]

Photos already decoded: 640x480 as a uint8 array and as a Pillow image, 12 megapixels (4000x3000) as a Pillow image.
All calls take turns, round after round, so a drift of the machine's speed hits all. A ratio is the median over the
rounds of call / `run` in the same round; what is added is the median of the differences.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
from turns import median_difference, median_ratio, take_turns

from unet_runtime import Segmenter
from unet_runtime.core import masks
from unet_runtime.core.geometry import model_input, place
from unet_runtime.core.photo import open_photo

PHOTO = Path(__file__).parents[1] / "runtime/unet_runtime/samples/chelsea.jpg"
BASE = "engine alone (backend.run)"
SMALL, LARGE = (640, 480), (4000, 3000)
GOALS = {
    "640x480 array": "goal: 1.15 x or less",
    "640x480 array, .mask": "goal: 1.15 x or less",
    "12 MP image, .mask": "goal: 100 ms or less added",
}


def calls(segmenter: Segmenter) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    photo = open_photo(PHOTO)
    small, large = photo.resize(SMALL), photo.resize(LARGE)
    array = np.asarray(small)
    batch = model_input(small, segmenter.spec.input)
    spec = segmenter.spec
    planes = masks.photo_planes(segmenter(small).probabilities, place(LARGE, spec), spec)
    return {
        BASE: lambda: segmenter.backend.run(batch),
        "640x480 array": lambda: segmenter(array),
        "640x480 array, .mask": lambda: segmenter(array).mask,
        "640x480 array, .mask and .opacity": lambda: (result := segmenter(array)).mask is result.opacity,
        "640x480 image, .mask": lambda: segmenter(small).mask,
        "12 MP image, .mask": lambda: segmenter(large).mask,
        "  of it: model_input": lambda: model_input(large, spec.input),
        "  of it: class_mask": lambda: masks.class_mask(planes, LARGE),
        "  beside: opacity": lambda: masks.opacity(planes, LARGE, spec),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="onnx")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    segmenter = Segmenter(backend=options.backend, threads=options.threads)
    seconds = take_turns(calls(segmenter), options.rounds, warm_up=2)
    spec = segmenter.spec
    print(f"{segmenter.backend.engine}, {spec.name} {spec.precision}, {options.rounds} rounds, medians")
    for name, taken in seconds.items():
        line = f"{name:36} {statistics.median(taken) * 1000:7.1f} ms "
        if name == BASE or name.startswith("  "):  # a part: no ratio
            line += " " * 22
        else:
            ratio = median_ratio(taken, seconds[BASE])
            added = median_difference(taken, seconds[BASE]) * 1000
            line += f"{ratio:6.2f} x   {added:+7.1f} ms"
        print(f"{line}   {GOALS.get(name, '')}".rstrip())


if __name__ == "__main__":
    main()

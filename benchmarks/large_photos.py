"""Photos as phones make them: a JPEG of 12 megapixels to its mask, against the whole photo decoded first.

    PETS_DIR=... python benchmarks/large_photos.py [--photos 12] [--rounds 5] [--main PATH] [--save mask]

The photos are Oxford-IIIT Pet's, enlarged by Lanczos and saved as JPEG of quality 92. Every step runs on one thread,
and what counts is CPU time, which suffers least from other programs on the machine. With ``--main``, a checkout of
another version takes turns with this one, each photo through ``Segmenter`` to the bytes of a file. Then follows how
many pixels have the class that they have where the whole photo is decoded, for each bundled model.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import unet_runtime
from unet_runtime import Segmenter
from unet_runtime.core.datasets import evenly
from unet_runtime.core.photo import open_photo

PIXELS = 12_000_000
MODELS = Path(unet_runtime.__file__).parent / "models"

STEPS = """
import json, sys, time
from unet_runtime import Segmenter
from unet_runtime.io.sinks import encode
kind, *photos = sys.argv[1:]
segmenter = Segmenter(backend="onnx", threads=1)
encode(segmenter(photos[0]), kind)
taken = []
for photo in photos:
    begin = time.process_time()
    encode(segmenter(photo), kind)
    taken.append(time.process_time() - begin)
print(json.dumps(taken))
"""


def enlarged(photos: list[Path], folder: Path) -> list[Path]:
    """The photos at 12 megapixels, as JPEG."""
    result = []
    for path in photos:
        with Image.open(path) as image:
            scale = (PIXELS / (image.width * image.height)) ** 0.5
            size = (round(image.width * scale), round(image.height * scale))
            large = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        result.append(folder / path.name)
        large.save(result[-1], quality=92)
    return result


def milliseconds(checkout: Path, kind: str, photos: list[Path]) -> list[float]:
    """CPU time of each photo in a process of its own that runs a checkout's code."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "runtime")}
    command = [sys.executable, "-c", STEPS, kind, *map(str, photos)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [1000 * seconds for seconds in json.loads(done.stdout)]


def agreement(model: Path, photos: list[Path]) -> list[float]:
    """Share of each photo's pixels of the same class, reduced against whole."""
    segmenter = Segmenter(model, threads=1)
    return [float(np.mean(segmenter(path).mask == segmenter(open_photo(path)).mask)) for path in photos]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--main", type=Path, help="checkout of the version to compare with")
    parser.add_argument("--save", default="mask")
    options = parser.parse_args()
    small = evenly(sorted((Path(os.environ["PETS_DIR"]) / "images").glob("*.jpg")), options.photos)
    versions = {"this version": Path(__file__).parents[1]}
    if options.main:
        versions["the other"] = options.main
    with tempfile.TemporaryDirectory() as folder:
        large = enlarged(small, Path(folder))
        for title, photos in (("12 megapixels", large), ("as they are", small)):
            taken: dict[str, list[float]] = {name: [] for name in versions}
            for _ in range(options.rounds):
                for name, checkout in versions.items():
                    taken[name] += milliseconds(checkout, options.save, photos)
            for name, values in taken.items():
                print(f"{title:14} {name:13} {statistics.median(values):7.1f} ms of CPU a photo")
        for model in sorted(MODELS.glob("*.onnx")):
            same = agreement(model, large)
            print(f"{model.name:28} same class on {np.mean(same):.2%} of pixels, {min(same):.2%} at least")


if __name__ == "__main__":
    main()

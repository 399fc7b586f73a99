"""Colours of a cut-out's edge against pymatting's, on real cut-outs laid over other photos.

    python benchmarks/edge_colours.py --data $PETS_DIR [--count 16]

The foreground that pymatting's ``estimate_foreground_ml`` finds in a photo, with the cut-out's opacity, is taken for
the truth and laid over another photo; both methods then estimate it from there. The error is that of translucent
pixels, weighted by their opacity, in levels of 255. ``pip install pymatting`` first: no package of this project needs
it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pymatting import estimate_foreground_ml

from unet_runtime import Segmenter
from unet_runtime.core.datasets import evenly, open_dataset, read_split
from unet_runtime.core.render import cutout
from unet_runtime.core.text import table

Floats = npt.NDArray[np.float64]


def ours(photo: Floats, opacity: npt.NDArray[np.uint8]) -> Any:
    pixels = Image.fromarray(np.rint(photo * 255).astype(np.uint8))
    return np.asarray(cutout(pixels, opacity))[..., :3] / 255


METHODS: dict[str, Callable[[Floats, npt.NDArray[np.uint8]], Any]] = {
    "the photo's own": lambda photo, opacity: photo,
    "ours": ours,
    "pymatting": lambda photo, opacity: estimate_foreground_ml(photo, opacity / 255),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder in the layout of Oxford-IIIT Pet")
    parser.add_argument("--count", type=int, default=16)
    options = parser.parse_args()
    segmenter = Segmenter(backend="onnx")
    results = []
    for labelled in evenly(read_split(open_dataset(options.data), "official", "trainval"), options.count):
        results.append(segmenter(labelled.photo).refined())
    errors: dict[str, list[float]] = {name: [] for name in METHODS}
    seconds = dict.fromkeys(METHODS, 0.0)
    for result, other in zip(results, results[5:] + results[:5], strict=True):
        share = result.opacity / 255
        truth = estimate_foreground_ml(np.asarray(result.photo) / 255, share)
        behind = np.asarray(other.photo.resize(result.photo.size)) / 255
        photo = np.clip(share[..., np.newaxis] * truth + (1 - share[..., np.newaxis]) * behind, 0, 1)
        is_soft = (result.opacity > 0) & (result.opacity < 255)
        for name, method in METHODS.items():
            start = time.process_time()
            found = method(photo, result.opacity)
            seconds[name] += time.process_time() - start
            error = np.abs(found - truth)[is_soft].mean(axis=-1)
            errors[name].append(float(np.average(error, weights=share[is_soft])) * 255)
    rows = [("colours", "error, levels of 255", "CPU ms per photo")]
    for name, values in errors.items():
        rows.append((name, f"{np.mean(values):.1f}", f"{seconds[name] / len(results) * 1000:.0f}"))
    print(table(rows))


if __name__ == "__main__":
    main()

"""Scores on photos with and without pets: how well they tell the two apart, and what a threshold costs.

    python benchmarks/no_pet.py --data $PETS_DIR [--model FILE] [--part validation] [--count 200]

Without a pet: scikit-image's pictures (those in its package, less the cat), and the largest rectangles of background,
of 72 squared pixels or more, cut out of photos by their trimaps. With one: the photos that ``unet-train --seed 1``
chooses by, or ``--part test``. The score is ``Segmentation.score``; a threshold is what ``--min-score`` would be.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import skimage
from cutouts import VALIDATION, photos_of
from PIL import Image

from unet_runtime import Segmentation, Segmenter
from unet_runtime.core.datasets import Sample, open_labels
from unet_runtime.core.photo import open_photo
from unet_runtime.core.text import table

BACKGROUND = 1
LEAST_SIDE = 72
"""Pixels of a square; a crop of a smaller area shows too little to be a photo."""

THRESHOLDS = (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9)


def pictures() -> dict[str, Image.Image]:
    """scikit-image's own pictures, by name."""
    found = {}
    for path in sorted((Path(skimage.__file__).parent / "data").iterdir()):
        if path.suffix in (".png", ".jpg") and path.stem != "chelsea":
            with Image.open(path) as image:
                found[path.stem] = image.convert("RGB")
    return found


def background_box(truth: npt.NDArray[np.uint8]) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom) of the largest rectangle of background, at most twice as long as wide.

    None where it is too small.
    """
    best, box = LEAST_SIDE**2 - 1, None
    heights = np.zeros(truth.shape[1], np.int64)  # of the background above each pixel of a row
    for row, line in enumerate(truth == BACKGROUND):
        heights = np.where(line, heights + 1, 0)
        open_at: list[tuple[int, int]] = []  # (first column, height) of rectangles that may still grow
        for column, height in enumerate([*heights.tolist(), 0]):
            start = column
            while open_at and open_at[-1][1] >= height:
                start, tall = open_at.pop()
                wide = column - start
                if max(tall, wide) <= 2 * min(tall, wide) and tall * wide > best:
                    best, box = tall * wide, (start, row - tall + 1, column, row + 1)
            open_at.append((start, height))
    return box


def crops(photos: list[Sample]) -> list[Image.Image]:
    found = []
    for labelled in photos:
        box = background_box(open_labels(labelled))
        if box is not None:
            found.append(open_photo(labelled.photo).crop(box))
    return found


def score(result: Segmentation) -> float:
    return max(result.score(name) for name in result.spec.role_names("foreground"))


def area_under_curve(positive: npt.NDArray[np.float64], negative: npt.NDArray[np.float64]) -> float:
    """Chance that a photo with a pet has a higher score than one without; ties count half."""
    above = (positive[:, np.newaxis] > negative).mean()
    return float(above + (positive[:, np.newaxis] == negative).mean() / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder in the layout of Oxford-IIIT Pet")
    parser.add_argument("--part", choices=["validation", "test"], default="validation")
    parser.add_argument("--count", type=int, default=VALIDATION)
    parser.add_argument("--model", type=Path, help="default: the bundled one, ONNX")
    options = parser.parse_args()
    segmenter = Segmenter(options.model, backend="auto" if options.model else "onnx")
    photos = photos_of(options.data, options.part, options.count)
    pets = np.array([score(segmenter(labelled.photo)) for labelled in photos])
    named = {name: score(segmenter(picture)) for name, picture in pictures().items()}
    others = {"scikit-image": np.array(list(named.values()))}
    others["background crops"] = np.array([score(segmenter(crop)) for crop in crops(photos)])
    print(", ".join(f"{name} {value:.2f}" for name, value in sorted(named.items(), key=lambda pair: -pair[1])))
    rows = [("", "pictures", "ROC AUC", *(f"{value:.2f}" for value in THRESHOLDS))]
    rows.append(("pets lost", str(len(pets)), "", *(f"{(pets < value).mean():.1%}" for value in THRESHOLDS)))
    for name, values in others.items():
        shares = (f"{(values < value).mean():.0%}" for value in THRESHOLDS)
        rows.append((f"{name}: nothing found", str(len(values)), f"{area_under_curve(pets, values):.3f}", *shares))
    print(table(rows))


if __name__ == "__main__":
    main()

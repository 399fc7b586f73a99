"""Write Oxford-IIIT Pet as a data set of three classes: cat, dog, background, with the border ignored.

    python benchmarks/cats_and_dogs.py --data $PETS_DIR --output data/cats-and-dogs
    python benchmarks/cats_and_dogs.py --data $PETS_DIR --output data/pets-40 --binary --count 40 --parts train

The result is two folders, images/ and masks/, with classes.json, the official parts in train.txt and test.txt (of a
single part none), and the licence. ``--binary`` writes masks of 0 and 255, the animal with its border, as simple label
tools do, and no classes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from unet_runtime.core.datasets import IGNORED, Sample, evenly, open_dataset, open_labels, read_split
from unet_runtime.core.errors import ImageError

CLASSES = ("background", "cat", "dog")
LICENSE = "CC BY-SA 4.0 (Oxford-IIIT Pet)"

_SPECIES = 2
"""Column of list.txt: 1 cat, 2 dog."""


def species_of(root: Path) -> dict[str, int]:
    """Read the species: photo's name -> 1 for a cat, 2 for a dog."""
    species = {}
    for line in (root / "annotations" / "list.txt").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.startswith("#"):
            words = line.split()
            species[words[0]] = int(words[_SPECIES])
    return species


def write(
    root: Path, output: Path, count: int | None, *, binary: bool, parts: Sequence[str] = ("train", "test")
) -> dict[str, int]:
    """Write the data set.

    Args:
        root: Oxford-IIIT Pet.
        output: a new folder.
        count: photos of each part, evenly spread; None: all.
        binary: whether masks are 0 and 255.
        parts: which are written; one alone gets no list, and is data that names no parts.

    Returns:
        Number of photos of each part.
    """
    species = species_of(root)
    for name in ("images", "masks"):
        (output / name).mkdir(parents=True)
    written = {}
    for part in parts:
        samples = read_split(open_dataset(root), "official", "trainval" if part == "train" else "test")
        chosen = samples if count is None else evenly(samples, count)
        names = [sample.name for sample in chosen if _write_one(sample, output, species, binary=binary)]
        if len(parts) > 1:
            (output / f"{part}.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
        written[part] = len(names)
    if not binary:
        (output / "classes.json").write_text(json.dumps(CLASSES), encoding="utf-8")
    (output / "LICENSE").write_text(LICENSE + "\n", encoding="utf-8")
    return written


def _write_one(sample: Sample, output: Path, species: Mapping[str, int], *, binary: bool) -> bool:
    """Copy a photo, and write its mask; False where one of them is missing."""
    try:
        labels = open_labels(sample)
        shutil.copyfile(sample.photo, output / "images" / sample.photo.name)
    except (ImageError, OSError):
        return False
    values = (255, 0, 255) if binary else (species[sample.name], 0, IGNORED)  # pet, background, border
    Image.fromarray(np.array(values, np.uint8)[labels]).save(output / "masks" / f"{sample.name}.png")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=os.environ.get("PETS_DIR"), help="default: PETS_DIR")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--binary", action="store_true", help="masks of 0 and 255")
    parser.add_argument("--count", type=int, help="photos of each part (default: all)")
    parser.add_argument("--parts", nargs="+", choices=("train", "test"), default=("train", "test"))
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or PETS_DIR: Oxford-IIIT Pet's folder")
    if options.output.exists():
        parser.error(f"--output {options.output} exists, expected a new folder")
    for part, count in write(
        options.data, options.output, options.count, binary=options.binary, parts=options.parts
    ).items():
        print(f"{part}: {count} photos")


if __name__ == "__main__":
    main()

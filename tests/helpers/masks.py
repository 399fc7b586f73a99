"""Photos with masks of class ids, written for a test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_runtime.core.datasets import Dataset, Sample
from unet_runtime.core.spec import ClassSpec

Array = npt.NDArray[np.uint8]

CLASSES = (
    ClassSpec("ground", (90, 90, 90), "background"),
    ClassSpec("cat", (230, 60, 90), "foreground"),
    ClassSpec("dog", (60, 90, 230), "foreground"),
    ClassSpec("bird", (60, 230, 90), "foreground"),
)


@dataclass(frozen=True)
class Ids:
    """Labels whose values are the class ids; 255 is ignored."""

    path: Path
    coding = "ids"

    def read(self) -> Array:
        """Class ids, uint8 (H, W)."""
        with Image.open(self.path) as image:
            return np.asarray(image)


def write_samples(root: Path, pairs: Sequence[tuple[Array, Array]], prefix: str = "photo") -> list[Sample]:
    """Photos uint8 (H, W, 3) or (H, W) with labels uint8 (H, W) -> files and their samples."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    samples = []
    for number, (photo, labels) in enumerate(pairs):
        name = f"{prefix}_{number:03}"
        photo_path, mask_path = root / "images" / f"{name}.png", root / "masks" / f"{name}.png"
        Image.fromarray(photo).save(photo_path)
        Image.fromarray(labels).save(mask_path)
        samples.append(Sample(name, photo_path, Ids(mask_path)))
    return samples


def blocks(
    count: int, classes: int, size: int = 32, seed: int = 1, *, ignored: bool = True
) -> list[tuple[Array, Array]]:
    """Pictures of coloured halves, each colour a class, with a column of ``IGNORED`` between the halves."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        labels = np.empty((size, size), np.uint8)
        labels[:, : size // 2], labels[:, size // 2 :] = rng.choice(classes, 2, replace=False)
        colors = np.array([(20, 90, 160), (220, 60, 40), (60, 220, 90), (240, 230, 40)], np.uint8)
        photo = colors[labels]
        if ignored:
            labels[:, size // 2 - 1] = 255
        pairs.append((photo, labels))
    return pairs


def write_dataset(root: Path, count: int = 16, classes: int = 3, *, ignored: bool = True) -> Dataset:
    """A dataset of ``blocks``, of which the last quarter is the test part."""
    samples = write_samples(root, blocks(count, classes, ignored=ignored))
    names = [sample.name for sample in samples]
    border = count - count // 4
    parts = {"trainval": tuple(names[:border]), "test": tuple(names[border:])}
    return Dataset(root, "images-masks", "images/ and masks/", CLASSES[:classes], tuple(samples), parts)

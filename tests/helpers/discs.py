"""Pictures whose classes are colours: red and blue discs on a noisy ground. NumPy and Pillow alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

CLASSES = ("background", "red", "blue")
SIDE = 64

_COLOURS = ((200, 60, 40), (40, 70, 200))


def draw(seed: int, side: int = SIDE) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """A picture uint8 (side, side, 3), RGB, and class ids uint8 (side, side)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    picture = np.full((side, side, 3), rng.integers(60, 170), np.float64)
    picture += rng.normal(0, 12, (side, side, 1))
    labels = np.zeros((side, side), np.uint8)
    for index in range(4):
        kind = 1 + index % 2
        row, column = rng.integers(0, side, 2)
        inside = (y - row) ** 2 + (x - column) ** 2 < rng.integers(side // 10, side // 4) ** 2
        picture[inside] = np.array(_COLOURS[kind - 1]) + rng.normal(0, 25, 3)
        labels[inside] = kind
    picture += rng.normal(0, 8, picture.shape)
    return picture.clip(0, 255).astype(np.uint8), labels


def folder(place: Path, count: int, first: int = 0, side: int = SIDE) -> Path:
    """A dataset of such pictures: ``images`` and ``masks``, and its classes."""
    for name in ("images", "masks"):
        (place / name).mkdir(parents=True)
    names = ", ".join(f'"{name}"' for name in CLASSES)
    (place / "classes.json").write_text(f'{{"classes": [{names}]}}', encoding="utf-8")
    for index in range(first, first + count):
        picture, labels = draw(index, side)
        Image.fromarray(picture).save(place / "images" / f"{index:04}.png")
        Image.fromarray(labels).save(place / "masks" / f"{index:04}.png")
    return place

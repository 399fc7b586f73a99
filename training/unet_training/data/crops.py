"""Parts of photos at their own scale, for models that see large photos in tiles."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unet_runtime.core.geometry import Box, middle
from unet_runtime.core.metrics import IGNORED
from unet_runtime.core.spec import InputSpec


@dataclass(frozen=True)
class Crops:
    """Which parts of each photo are taken; the same ones for the same photo and seed."""

    count: int
    """Parts of a photo that the model's input does not hold whole."""
    seed: int
    is_focused: bool
    """Every second part shows a class that is drawn first, so that rare ones are seen, as training needs; else parts
    are anywhere, as validation and test need."""

    def boxes(self, name: str, labels: np.ndarray, spec: InputSpec) -> list[Box]:
        """The parts of the photo ``name`` with class ids ``labels`` (H, W); one where the input holds it whole."""
        height, width = labels.shape
        part = middle((width, height), spec)
        if (part.width, part.height) == (width, height):
            return [part]
        random = np.random.default_rng((self.seed, zlib.crc32(name.encode(errors="surrogateescape"))))
        boxes = []
        for number in range(self.count):
            row, column = random.random(2) * (height, width)
            if self.is_focused and number % 2:
                row, column = _pixel_of_a_class(labels, random)
            top = int(np.clip(row - part.height / 2, 0, height - part.height))
            left = int(np.clip(column - part.width / 2, 0, width - part.width))
            boxes.append(Box(left, top, part.width, part.height))
        return boxes


def cut(photo: Image.Image, labels: np.ndarray, box: Box) -> tuple[Image.Image, np.ndarray]:
    """A part of a photo and of its class ids."""
    right, bottom = box.left + box.width, box.top + box.height
    return photo.crop((box.left, box.top, right, bottom)), labels[box.top : bottom, box.left : right]


def _pixel_of_a_class(labels: np.ndarray, random: np.random.Generator) -> tuple[int, int]:
    """Row and column of a pixel; each class that the photo has is as likely as the others."""
    counts = np.bincount(labels.ravel(), minlength=IGNORED + 1)[:IGNORED]
    present = np.flatnonzero(counts)
    if not len(present):
        return labels.shape[0] // 2, labels.shape[1] // 2
    places = np.flatnonzero(labels == random.choice(present))
    row, column = divmod(int(random.choice(places)), labels.shape[1])
    return row, column

"""A photo with its labels: read, verified, brought to the model's size. What cannot be used says why.

Training, ``unet-train check`` and the cache read pairs through this one module, so they leave out the same ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unet_runtime.core.cores import usable_cores
from unet_runtime.core.datasets import Sample, Value, open_labels
from unet_runtime.core.datasets.masks import LOSSY_SUFFIXES, UnknownClassError, describe, shown
from unet_runtime.core.errors import ImageError
from unet_runtime.core.geometry import model_input, model_labels
from unet_runtime.core.photo import open_photo
from unet_runtime.core.spec import ClassSpec, InputSpec
from unet_training.data.crops import Crops, cut
from unet_training.errors import DatasetError, Fault, UnusableError

_NO_TRUTH = (255, 255, 255)
"""Colour of pixels without a class."""


@dataclass(frozen=True)
class Labelled:
    """Decoded photos with their truth."""

    names: list[str]
    photos: np.ndarray
    """uint8 (n, h, w, 3), RGB in 0..255, as the runtime's preprocessing makes them; from a cache read-only."""
    masks: np.ndarray
    """uint8 (n, h, w), class ids."""
    problems: list[str]
    """Photos left out, and why."""
    margin: int = 0
    """Pixels on each side that the model does not predict, as ``InputSpec.margin``."""

    @property
    def truths(self) -> np.ndarray:
        """``masks`` where the model predicts: uint8 (n, h', w')."""
        return without_margin(self.masks, self.margin)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        _, height, width = self.masks.shape
        return f"Labelled({len(self)} photos of {width}x{height}, {len(self.problems)} left out)"


def without_margin(pictures: np.ndarray, margin: int) -> np.ndarray:
    """Photos or masks (n, h, w, ...) -> (n, h', w', ...): without ``margin`` pixels on each side."""
    height, width = pictures.shape[1:3]
    return pictures[:, margin : height - margin, margin : width - margin]


def class_colors(classes: Sequence[ClassSpec]) -> np.ndarray:
    """uint8 (256, 3): RGB by class id; ``_NO_TRUTH`` for all that is no class, ``IGNORED`` included."""
    colors = np.full((256, 3), _NO_TRUTH, np.uint8)
    colors[: len(classes)] = [entry.color for entry in classes]
    return colors


def open_pair(item: Sample) -> tuple[Image.Image, np.ndarray]:
    """RGB photo and uint8 class ids (H, W), both at the photo's own size.

    Raises:
        UnusableError: one is missing, unreadable, or does not fit the other; its ``fault`` tells which.
    """
    try:
        photo = open_photo(item.photo)
    except ImageError as error:
        raise UnusableError(str(error), _fault(error, Fault.UNREADABLE)) from error
    try:
        labels = open_labels(item)
    except ImageError as error:
        # Labels that were read whole and refused for their values have no cause.
        fault = Fault.VALUES if error.__cause__ is None else Fault.UNREADABLE
        raise UnusableError(str(error), _fault(error, fault)) from error
    if photo.size != labels.shape[::-1]:
        raise UnusableError(
            f"{item.name}: photo of {photo.size}, labels of {labels.shape[::-1]} (width, height)", Fault.SIZES
        )
    return photo, labels


def _fault(error: ImageError, otherwise: Fault) -> Fault:
    return Fault.MISSING if isinstance(error.__cause__, FileNotFoundError) else otherwise


def decode(photos: Sequence[Sample], spec: InputSpec, crops: Crops | None = None) -> Labelled:
    """Read photos and labels at the model's size into memory; what cannot be used is left out and named.

    Args:
        photos: samples of a dataset.
        spec: of the model's input.
        crops: which parts of each photo are taken, each named ``PHOTO@LEFT,TOP``; None: whole photos, fitted as
            ``spec`` says.

    Raises:
        DatasetError: nothing usable is left, or masks have values that no class has.
    """
    each = 1 if crops is None else crops.count
    # Those of photos that give fewer, or none, stay untouched, and take no memory.
    images = np.empty((len(photos) * each, spec.height, spec.width, 3), np.uint8)
    masks = np.empty((len(photos) * each, spec.height, spec.width), np.uint8)

    unknown: list[UnknownClassError] = []

    def decode_one(index: int) -> tuple[list[str], str]:
        """Names of the pictures made of a photo; why there are none."""
        item = photos[index]
        try:
            photo, labels = open_pair(item)
        except UnusableError as error:
            if isinstance(error.__cause__, UnknownClassError):
                unknown.append(error.__cause__)
            return [], str(error)
        parts = [(item.name, photo, labels)] if crops is None else _parts(item.name, photo, labels, crops, spec)
        for place, (_, part, part_labels) in enumerate(parts, start=index * each):
            images[place] = model_input(part, spec)[0]
            masks[place] = model_labels(part_labels, spec)
        return [name for name, _, _ in parts], ""

    with ThreadPoolExecutor(usable_cores()) as pool:
        results = list(pool.map(decode_one, range(len(photos))))
    if unknown:
        raise DatasetError(describe_unknown(unknown, len(photos)))
    problems = [problem for _, problem in results if problem]
    names: list[str] = []
    good: list[int] = []
    for index, (found, _) in enumerate(results):
        names += found
        good += range(index * each, index * each + len(found))
    if not good:
        raise DatasetError(f"none of {len(photos)} photos can be used; the first: {problems[0] if problems else '-'}")
    if len(good) < len(images):
        images, masks = images[good], masks[good]
    return Labelled(names, images, masks, problems, spec.margin)


def describe_unknown(errors: Sequence[UnknownClassError], count: int) -> str:
    """What masks have that no class has, over ``count`` of them, and what to do."""
    pixels: Counter[Value] = Counter()
    masks: Counter[Value] = Counter()
    for error in errors:
        pixels.update(error.counts)
        masks.update(error.counts.keys())
    first = min(errors, key=lambda error: error.path)
    lossy = " (JPEG blurs values: export PNG)" if first.path.suffix.lower() in LOSSY_SUFFIXES else ""
    value, most = masks.most_common(1)[0]
    return (
        f"{len(errors)} of {count} label masks have values that no class has, the first {first.path}: "
        f"{describe(pixels)}, {shown(value)} in {most} masks{lossy}: name their classes (--classes, classes.yaml), "
        f"leave them out (--ignore {shown(value)}), or repair the masks"
    )


def _parts(
    name: str, photo: Image.Image, labels: np.ndarray, crops: Crops, spec: InputSpec
) -> list[tuple[str, Image.Image, np.ndarray]]:
    parts = []
    for box in crops.boxes(name, labels, spec):
        parts.append((f"{name}@{box.left},{box.top}", *cut(photo, labels, box)))
    return parts

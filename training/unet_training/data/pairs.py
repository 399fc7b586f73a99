"""A photo with its labels: read, verified, brought to the model's size. What cannot be used says why.

Training, ``unet-train check`` and the cache read pairs through this one module, so they leave out the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from unet_runtime.core.cores import usable_cores
from unet_runtime.core.datasets import Sample, open_labels
from unet_runtime.core.errors import ImageError
from unet_runtime.core.geometry import model_input, model_labels
from unet_runtime.core.photo import open_photo
from unet_runtime.core.spec import InputSpec
from unet_training.errors import DatasetError, Fault, UnusableError


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


def decode(photos: Sequence[Sample], spec: InputSpec) -> Labelled:
    """Read photos and labels at the model's size into memory; what cannot be used is left out and named.

    Raises:
        DatasetError: nothing usable is left.
    """
    images = np.empty((len(photos), spec.height, spec.width, 3), np.uint8)
    masks = np.empty((len(photos), spec.height, spec.width), np.uint8)

    def decode_one(index: int) -> str:
        try:
            photo, labels = open_pair(photos[index])
        except UnusableError as error:
            return str(error)
        images[index] = model_input(photo, spec)[0]
        masks[index] = model_labels(labels, spec)
        return ""

    with ThreadPoolExecutor(usable_cores()) as pool:
        results = list(pool.map(decode_one, range(len(photos))))
    problems = list(filter(None, results))
    good = [index for index, problem in enumerate(results) if not problem]
    if not good:
        raise DatasetError(f"none of {len(photos)} photos can be used; the first: {problems[0] if problems else '-'}")
    if problems:
        images, masks = images[good], masks[good]
    return Labelled([photos[index].name for index in good], images, masks, problems, spec.margin)

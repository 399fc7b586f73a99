"""The photos that int8 ranges are measured on, as they are fed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from unet_runtime.labelled import LabelledPhoto
from unet_runtime.preprocess import model_input, open_photo
from unet_runtime.spec import InputSpec

DEFAULT_COUNT = MIN_COUNT = 200
"""Fewer do not show a network the range of what it will see."""

BLACK, WHITE = 0, 255


def calibration_images(photos: Sequence[LabelledPhoto], spec: InputSpec) -> npt.NDArray[np.uint8]:
    """uint8 (n, h, w, 3), RGB in 0..255, NHWC; 0 and 255 both occur.

    The converter takes the input's range from what it sees. Only 0..255 in full gives scale 1, zero
    point 0, so where the photos lack an end, one corner pixel of the first is set to it.

    Raises:
        ImageError: a photo that cannot be read.
    """
    images = np.concatenate([model_input(open_photo(entry.photo), spec) for entry in photos])
    if images.min() > BLACK:
        images[0, 0, 0] = BLACK
    if images.max() < WHITE:
        images[0, -1, -1] = WHITE
    return images


def sha256(images: npt.NDArray[np.uint8]) -> str:
    """Of the pixels, photo after photo, as the spec's provenance records it."""
    return hashlib.sha256(images.tobytes()).hexdigest()

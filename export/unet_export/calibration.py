"""What int8 ranges are measured on: the photos as they are fed."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from unet_export.errors import ExportError

DEFAULT_COUNT = MIN_COUNT = 200
"""Fewer do not show a network the range of what it will see."""

BLACK, WHITE = 0, 255


def calibration_images(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8 (n, h, w, 3), RGB in 0..255, NHWC, made fit to calibrate on: 0 and 255 both occur.

    A converter takes the input's range from what it sees. Only 0..255 in full gives scale 1, zero
    point 0, so where the photos lack an end, one corner pixel of the first is set to it.

    Raises:
        ExportError: every photo is of one colour: ranges measured on them would fit no real photo.
    """
    flat = images.reshape(len(images), -1, images.shape[-1])
    if (flat == flat[:, :1]).all():
        raise ExportError(
            f"all {len(images)} calibration photos are of one colour each: expected real photos, of the kind that the "
            "model will see"
        )
    images = images.copy()
    if images.min() > BLACK:
        images[0, 0, 0] = BLACK
    if images.max() < WHITE:
        images[0, -1, -1] = WHITE
    return images


def sha256(images: npt.NDArray[np.uint8]) -> str:
    """Of the pixels, photo after photo, as the spec's provenance records it."""
    return hashlib.sha256(images.tobytes()).hexdigest()

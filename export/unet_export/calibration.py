"""The photos that int8 ranges are measured on."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from unet_export.errors import ExportError

DEFAULT_COUNT = MIN_COUNT = 200
"""Fewer photos do not show a network the range of what it will see."""

BLACK, WHITE = 0, 255


def calibration_images(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A copy of ``images``, uint8 (n, h, w, 3), RGB in 0..255, NHWC, in which 0 and 255 both occur.

    A converter takes the input's range from what it sees. Only 0..255 in full gives scale 1 and zero point 0, so where
    the photos lack one of the two, a corner pixel of the first photo is set to it.

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
    """SHA-256 of the pixels, photo after photo, as the spec's provenance records it."""
    return hashlib.sha256(images.tobytes()).hexdigest()

"""Photo <-> model grid: where a photo lies in the model's input, and what fills the rest.

``model_input`` is the only implementation of the way from photo to model input; training and export use it too.
Pillow's BILINEAR antialiases when it reduces; OpenCV's INTER_LINEAR and tf.image.resize do not.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_runtime.core.metrics import IGNORED
from unet_runtime.core.spec import InputSpec

_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR}


class Box(NamedTuple):
    """A rectangle in pixels of the model's input: where the photo lies in it."""

    left: int
    top: int
    width: int
    height: int


def photo_box(size: tuple[int, int], spec: InputSpec) -> Box:
    """Where a photo of ``size`` (width, height) lies in the model's input."""
    inner_width, inner_height = spec.width - 2 * spec.margin, spec.height - 2 * spec.margin
    if spec.fit == "stretch":
        return Box(spec.margin, spec.margin, inner_width, inner_height)
    scale = min(inner_width / size[0], inner_height / size[1])
    width = min(inner_width, max(1, round(size[0] * scale)))
    height = min(inner_height, max(1, round(size[1] * scale)))
    return Box((spec.width - width) // 2, (spec.height - height) // 2, width, height)


def model_input(image: Image.Image, spec: InputSpec) -> npt.NDArray[np.uint8]:
    """RGB photo of any size -> uint8 (1, spec.height, spec.width, 3), RGB in 0..255, NHWC."""
    box = photo_box(image.size, spec)
    pixels = np.asarray(image.resize((box.width, box.height), _RESAMPLE[spec.resample]))
    return placed(pixels, box, spec, 0)[np.newaxis]


def placed(pixels: npt.NDArray[np.uint8], box: Box, spec: InputSpec, around: int) -> npt.NDArray[np.uint8]:
    """A photo, or its labels, in the model's input.

    Args:
        pixels: (box.height, box.width, ...).
        box: as ``photo_box``.
        spec: of the input.
        around: fills what a letterboxed photo leaves of the part that the model answers for.

    Returns:
        (spec.height, spec.width, ...): the margin is a mirror of what it surrounds.
    """
    if (box.height, box.width) == (spec.height, spec.width):
        return pixels
    rows, columns = spec.answered
    canvas = np.full((spec.height, spec.width, *pixels.shape[2:]), around, np.uint8)
    canvas[box.top : box.top + box.height, box.left : box.left + box.width] = pixels
    if not spec.margin:
        return canvas
    inner = canvas[rows, columns]
    outer = (mirrored(-spec.margin, side + spec.margin, side) for side in inner.shape[:2])
    return inner[np.ix_(*outer)]


def mirrored(start: int, stop: int, length: int) -> npt.NDArray[np.intp]:
    """Pixels ``start`` to ``stop`` of a line of ``length``, mirrored about its first and last pixel past its ends."""
    if length == 1:
        return np.zeros(stop - start, np.intp)
    period = 2 * (length - 1)
    position = np.arange(start, stop) % period
    return np.minimum(position, period - position)


def model_labels(labels: npt.NDArray[np.uint8], spec: InputSpec) -> npt.NDArray[np.uint8]:
    """Class ids (H, W) of a photo -> uint8 (spec.height, spec.width), fitted as ``model_input`` fits the photo.

    Nearest neighbour: there is no class between two classes. ``IGNORED`` outside a letterboxed photo; a margin's are
    mirrored as the photo's are.
    """
    box = photo_box((labels.shape[1], labels.shape[0]), spec)
    resized = np.asarray(Image.fromarray(labels).resize((box.width, box.height), Image.Resampling.NEAREST))
    return placed(resized, box, spec, IGNORED)

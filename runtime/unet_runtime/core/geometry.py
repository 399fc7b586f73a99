"""Photo <-> model grid: where a photo lies in the model's input and output, and what fills the rest.

``fill_input`` is the only implementation of the way from photo to model input; training and export use it too.
Pillow's BILINEAR antialiases when it reduces; OpenCV's INTER_LINEAR and tf.image.resize do not
(https://github.com/opencv/opencv/issues/25620).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from PIL import Image

from unet_runtime.core.metrics import IGNORED
from unet_runtime.core.spec import InputSpec, ModelSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from unet_runtime.core.photo import StoredPhoto

_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR}


class Box(NamedTuple):
    """A rectangle, in pixels of a grid."""

    left: int
    top: int
    width: int
    height: int


class Placement(NamedTuple):
    """Where a photo lies in what goes into a model and what comes out of it."""

    size: tuple[int, int]
    """(width, height) of the photo in pixels."""
    box: Box
    """The photo's place in the model's input."""
    part: Box
    """The photo's place in what the output covers: shifted by the margin, clipped; in pixels of the input, or of the
    output where the photo fills it whole."""


def photo_box(size: tuple[int, int], spec: InputSpec) -> Box:
    """Where a photo of ``size`` (width, height) lies in the model's input."""
    inner_width, inner_height = spec.width - 2 * spec.margin, spec.height - 2 * spec.margin
    if spec.fit == "stretch":
        return Box(spec.margin, spec.margin, inner_width, inner_height)
    scale = min(inner_width / size[0], inner_height / size[1], 1 if spec.fit == "crop" else math.inf)
    width = min(inner_width, max(1, round(size[0] * scale)))
    height = min(inner_height, max(1, round(size[1] * scale)))
    return Box((spec.width - width) // 2, (spec.height - height) // 2, width, height)


def place(size: tuple[int, int], spec: ModelSpec) -> Placement:
    """Placement of a photo of ``size`` (width, height)."""
    box, margin = photo_box(size, spec.input), spec.input.margin
    if spec.input.fit == "stretch":
        return Placement(size, box, Box(0, 0, spec.output.width, spec.output.height))
    left, top = max(0, box.left - margin), max(0, box.top - margin)
    height, width = spec.input.covered
    right = min(width, box.left + box.width - margin)
    bottom = min(height, box.top + box.height - margin)
    return Placement(size, box, Box(left, top, max(1, right - left), max(1, bottom - top)))


def middle(size: tuple[int, int], spec: InputSpec) -> Box:
    """The part of a photo of ``size`` (width, height) that stands for it where a model sees one input of each photo:
    all of it, or for ``crop`` what the input holds at the photo's own scale."""
    if spec.fit != "crop":
        return Box(0, 0, *size)
    width = min(size[0], spec.width - 2 * spec.margin)
    height = min(size[1], spec.height - 2 * spec.margin)
    return Box((size[0] - width) // 2, (size[1] - height) // 2, width, height)


def model_input(photo: Image.Image, spec: InputSpec) -> npt.NDArray[np.uint8]:
    """RGB photo of any size -> uint8 (1, spec.height, spec.width, 3), RGB in 0..255, NHWC: of its ``middle``."""
    part = middle(photo.size, spec)
    if part.width * part.height < photo.width * photo.height:
        photo = photo.crop((part.left, part.top, part.left + part.width, part.top + part.height))
    return fill_input(photo, photo_box(photo.size, spec), spec)


def fill_input(photo: Image.Image | StoredPhoto, box: Box, spec: InputSpec) -> npt.NDArray[np.uint8]:
    """As ``model_input``, for a photo whose place ``box`` is known."""
    pixels = np.asarray(photo.resize((box.width, box.height), _RESAMPLE[spec.resample]))
    return placed(pixels, box, spec, fill=0)[np.newaxis]


def placed(pixels: npt.NDArray[np.uint8], box: Box, spec: InputSpec, *, fill: int) -> npt.NDArray[np.uint8]:
    """A photo, or its labels, in the model's input.

    Args:
        pixels: (box.height, box.width, ...).
        box: as ``photo_box``.
        spec: of the input.
        fill: value of the pixels around a letterboxed photo, inside the margin.

    Returns:
        (spec.height, spec.width, ...): the margin is a mirror of what it surrounds.
    """
    if (box.height, box.width) == (spec.height, spec.width):
        return pixels
    canvas = np.full((spec.height, spec.width, *pixels.shape[2:]), fill, np.uint8)
    canvas[box.top : box.top + box.height, box.left : box.left + box.width] = pixels
    if not spec.margin:
        return canvas
    inner = canvas[spec.valid]
    rows = mirrored(-spec.margin, inner.shape[0] + spec.margin, inner.shape[0])
    columns = mirrored(-spec.margin, inner.shape[1] + spec.margin, inner.shape[1])
    return inner[rows[:, np.newaxis], columns]


def grid_labels(labels: npt.NDArray[np.uint8], spec: ModelSpec) -> npt.NDArray[np.uint8]:
    """Class ids (H, W) of a photo -> uint8 (spec.output.height, spec.output.width), as the model's output shows it."""
    covered = model_labels(labels, spec.input)[spec.input.valid]
    if covered.shape == (spec.output.height, spec.output.width):
        return covered
    size = (spec.output.width, spec.output.height)
    return np.asarray(Image.fromarray(covered).resize(size, Image.Resampling.NEAREST))


def mirrored(start: int, stop: int, length: int) -> npt.NDArray[np.intp]:
    """Pixels ``start`` to ``stop`` of a line of ``length``, mirrored about its first and last pixel past its ends.

    Example:
        >>> mirrored(-2, 6, 4).tolist()
        [2, 1, 0, 1, 2, 3, 2, 1]
    """
    if length == 1:
        return np.zeros(stop - start, np.intp)
    period = 2 * (length - 1)
    position = np.arange(start, stop) % period
    return np.minimum(position, period - position)


def model_labels(labels: npt.NDArray[np.uint8], spec: InputSpec) -> npt.NDArray[np.uint8]:
    """Class ids (H, W) of a photo -> uint8 (spec.height, spec.width), fitted as ``model_input`` fits the photo.

    Nearest neighbour: there is no class between two classes, nor between a class and ``IGNORED``. ``IGNORED`` outside a
    letterboxed photo; those of a margin are mirrored as the photo is.
    """
    part = middle((labels.shape[1], labels.shape[0]), spec)
    labels = labels[part.top : part.top + part.height, part.left : part.left + part.width]
    box = photo_box((part.width, part.height), spec)
    resized = np.asarray(Image.fromarray(labels).resize((box.width, box.height), Image.Resampling.NEAREST))
    return placed(resized, box, spec, fill=IGNORED)

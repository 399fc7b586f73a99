"""Probabilities (h, w, C) of the model's grid -> class ids, and opacity, at the photo's own size.

Probabilities are resampled, not labels: an outline drawn at 160x160 stays smooth on a large photo.
The work goes in bands of rows, so a 100-megapixel photo needs no more memory than its mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_runtime.preprocess import Box, photo_box
from unet_runtime.spec import ModelSpec

_BAND_PIXELS = 1 << 18
"""Pixels resampled at a time: some megabytes of float32, so a band stays in the processor's cache."""

_LEAST = 1e-7  # Keras' epsilon: where no class has any, as an int8 model may answer, all are equally likely

_EVEN = 1e-3  # keeps the odds defined where the neutral class takes all: half foreground, half background


def shares(probabilities: npt.NDArray[np.float32], spec: ModelSpec) -> npt.NDArray[np.float32]:
    """What the classes' probabilities say of a pixel that has exactly one of them.

    A softmax model's are that already. A sigmoid model answers for each class by itself, and what it has been
    trained for is each class's share of their sum: the sum itself is arbitrary, and may differ from pixel to pixel.

    Args:
        probabilities: float32 (..., C), the model's answer.
        spec: of the model.

    Returns:
        float32 (..., C), sum 1 (of an int8 softmax model nearly); a softmax model's are ``probabilities`` themselves.
    """
    if spec.output.activation == "softmax":
        return probabilities
    clipped = np.maximum(probabilities, np.float32(_LEAST))
    result: npt.NDArray[np.float32] = clipped / clipped.sum(axis=-1, keepdims=True)
    return result


def class_mask(probabilities: npt.NDArray[np.float32], size: tuple[int, int], spec: ModelSpec) -> npt.NDArray[np.uint8]:
    """Most probable class of each pixel of the photo.

    Args:
        probabilities: float32 (h, w, C), the model's answer for one photo.
        size: (width, height) of the photo in pixels.
        spec: of the model.

    Returns:
        uint8 (height, width), class ids.
    """
    mask = np.empty((size[1], size[0]), np.uint8)
    channels = _photo_part(probabilities, size, spec)
    for top, bottom in _bands(size):
        best = _resample(channels[0], size, top, bottom)
        ids = mask[top:bottom]
        ids.fill(0)
        for index in range(1, len(channels)):
            candidate = _resample(channels[index], size, top, bottom)
            ids[candidate > best] = index  # a tie goes to the lower id, as argmax has it
            np.maximum(best, candidate, out=best)
    return mask


def opacity(probabilities: npt.NDArray[np.float32], size: tuple[int, int], spec: ModelSpec) -> npt.NDArray[np.uint8]:
    """Opacity of each pixel in a cut-out: the odds of foreground against background.

    Neutral classes (the unlabelled border) have no vote, so the edge runs softly through their middle.

    Returns:
        uint8 (height, width): 0 background .. 255 foreground.
    """
    channels = _photo_part(probabilities, size, spec)
    foreground = _total(channels, spec.roles("foreground"))
    share: npt.NDArray[np.float32] = foreground / (foreground + _total(channels, spec.roles("background")))
    result = np.empty((size[1], size[0]), np.uint8)
    for top, bottom in _bands(size):
        band = _resample(share, size, top, bottom)
        np.rint(band * np.float32(255), out=band)
        result[top:bottom] = band
    return result


def _photo_part(
    probabilities: npt.NDArray[np.float32], size: tuple[int, int], spec: ModelSpec
) -> npt.NDArray[np.float32]:
    """(h, w, C) -> (C, h', w'): the part of the grid that the photo covers, one contiguous plane a class."""
    left, top, width, height = _grid_box(photo_box(size, spec.input), spec)
    # Shares before resampling: else a pixel whose probabilities are all large would outvote its neighbours.
    part = shares(probabilities[top : top + height, left : left + width], spec)
    return np.ascontiguousarray(part.transpose(2, 0, 1))


def _grid_box(box: Box, spec: ModelSpec) -> Box:
    """``box`` of the input, in pixels of the output: shifted by the margin, clipped to what there is."""
    margin = spec.output.margin
    left, top = max(0, box.left - margin), max(0, box.top - margin)
    right = min(spec.output.width, box.left + box.width - margin)
    bottom = min(spec.output.height, box.top + box.height - margin)
    return Box(left, top, max(1, right - left), max(1, bottom - top))


def _total(channels: npt.NDArray[np.float32], ids: Sequence[int]) -> npt.NDArray[np.float32]:
    total: npt.NDArray[np.float32] = channels[list(ids)].sum(axis=0, initial=_EVEN)
    return total


def _bands(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """(top, bottom) rows of bands that cover a picture of ``size`` (width, height)."""
    rows = max(1, _BAND_PIXELS // size[0])
    for top in range(0, size[1], rows):
        yield top, min(top + rows, size[1])


def _resample(plane: npt.NDArray[np.float32], size: tuple[int, int], top: int, bottom: int) -> npt.NDArray[np.float32]:
    """Rows ``top`` to ``bottom`` of ``plane`` (h, w) resampled to ``size`` (width, height): float32 (rows, width).

    As resampling the whole plane at once, to rounding: Pillow samples beyond the box it is given.
    """
    rows, columns = plane.shape
    box = (0, rows * top / size[1], columns, rows * bottom / size[1])
    return np.array(Image.fromarray(plane).resize((size[0], bottom - top), Image.Resampling.BILINEAR, box=box))

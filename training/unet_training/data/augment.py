"""Augmentation with Keras operations: photo and mask move together, colours change in the photo alone.

All moves but a rotation are one resampling and all colours one matrix, so that a photo costs about a millisecond: the
loop that trains must not wait for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from unet_runtime.core.metrics import IGNORED
from unet_training import processes

Tensor = Any
"""Tensor of whichever backend Keras runs on."""

LARGEST_ZOOM = 1.15
"""Largest share of the photo's sides that the picture shows."""

SHIFT = 0.12
"""Largest share of a side, either way."""

BRIGHTNESS = 0.2 * 255
CONTRAST = 0.25
SATURATION = 0.8
"""Range of its natural logarithm, either way."""

HUE = 0.015
"""Share of the colour circle."""

GREY = 128
"""Value of all channels where a photo is cut out."""

WINDOWS = 64
"""Parts of a photo that are tried, of which the largest without an object is shown."""

WINDOW = (0.15, 0.7)
"""Smallest and largest share of a side that such a part has."""

_LUMA = np.array([0.299, 0.587, 0.114])


def move(photos: Tensor, masks: Tensor, rows: np.ndarray, columns: np.ndarray) -> tuple[Tensor, Tensor]:
    """Flip, scale and shift photos (bilinear) and masks (nearest) by the same positions, along each side on its own.

    Args:
        photos: float32 (n, H, W, 3).
        masks: integers (n, H, W).
        rows, columns: for each row (n, h) and column (n, w) of the result its position in the photo, pixels.

    Returns:
        (n, h, w, 3) and (n, h, w).
    """
    _, height, width, channels = photos.shape
    high, wide = rows.shape[1], columns.shape[1]
    row_steps, column_steps = _steps(rows), _steps(columns)
    rows, columns = _reflected(rows, height), _reflected(columns, width)
    # A side at a time, as products of matrices: on a CPU several times faster than gathering pixels, and the same in
    # every backend.
    moved = ops.matmul(_weights(rows, height, row_steps), ops.reshape(photos, (-1, height, width * channels)))
    moved = ops.transpose(ops.reshape(moved, (-1, high, width, channels)), (0, 2, 1, 3))  # (n, W, h, 3)
    moved = ops.matmul(_weights(columns, width, column_steps), ops.reshape(moved, (-1, width, high * channels)))
    moved = ops.transpose(ops.reshape(moved, (-1, wide, high, channels)), (0, 2, 1, 3))  # (n, h, w, 3)
    rows, columns = ops.cast(ops.round(rows), "int32"), ops.cast(ops.round(columns), "int32")
    pixels = rows[:, :, None] * width + columns[:, None, :]  # (n, h, w), numbered photo by photo
    pixels += height * width * ops.arange(masks.shape[0], dtype="int32")[:, None, None]
    return moved, ops.take(ops.reshape(masks, (-1,)), pixels)


def recolour(photos: Tensor, mixing: Tensor, brightness: Tensor) -> Tensor:
    """Photos in other colours: brightness, contrast, saturation and hue; uint8 (n, h, w, 3).

    Args:
        photos: float32 (n, h, w, 3) in 0..255.
        mixing: (n, 3, 3), applied to the colours' differences from the photo's mean brightness.
        brightness: (n,), added.
    """
    _, height, width, channels = photos.shape
    mean = ops.mean(photos, axis=(1, 2, 3))[:, None, None]
    coloured = ops.matmul(ops.reshape(photos, (-1, height * width, channels)) - mean, mixing)
    coloured = ops.clip(ops.round(coloured + (mean + brightness[:, None, None])), 0, 255)
    return ops.cast(ops.reshape(coloured, (-1, height, width, channels)), "uint8")


def rotate(photos: Tensor, masks: Tensor, angles: np.ndarray) -> tuple[Tensor, Tensor]:
    """Turn photos (bilinear) and masks (nearest) about their centres, the corners filled by reflection.

    Args:
        photos: float32 (n, h, w, 3).
        masks: integers (n, h, w).
        angles: (n,), radians.
    """
    _, height, width, _ = photos.shape
    cosine, sine = np.cos(angles), np.sin(angles)
    x, y = (width - 1) / 2, (height - 1) / 2
    nothing = np.zeros_like(cosine)
    rows = (cosine, -sine, x - x * cosine + y * sine, sine, cosine, y - x * sine - y * cosine, nothing, nothing)
    transforms = np.stack(rows, axis=-1).astype(np.float32)  # (n, 8), as Keras takes them
    turn = partial(ops.image.affine_transform, transform=transforms, fill_mode="reflect", data_format="channels_last")
    turned = turn(ops.cast(masks, "float32")[..., None], interpolation="nearest")[..., 0]
    return turn(photos, interpolation="bilinear"), ops.cast(turned, masks.dtype)


class Augmenter:
    """Random flip, scale, shift, rotation, colour and cut, each drawn per picture. Threads may share one.

    Args:
        seed: together with a batch's number it decides what is drawn, so that a resumed training sees the
            pictures that an unbroken one does.
        zoom: smallest share of the photo's sides that a picture shows; the largest is ``LARGEST_ZOOM``.
        rotation: largest angle either way, degrees.
        cut_out: largest share of the sides of a rectangle that is grey in the photo and ``IGNORED`` in the mask.
        negatives: share of the photos of which a part without an object is shown, where one is found.
        background: ids of the classes that such a part may have.
        size: height and width of the pictures, pixels; None: as the photos. Larger photos keep enlarged parts sharp.
    """

    def __init__(
        self,
        seed: int,
        zoom: float = 0.6,
        rotation: float = 0.0,
        cut_out: float = 0.0,
        negatives: float = 0.0,
        background: Sequence[int] = (),
        size: int | None = None,
    ) -> None:
        self._seed = seed
        self._zoom = (zoom, LARGEST_ZOOM)
        self._rotation = np.radians(rotation)
        self._cut_out = cut_out
        self._negatives = negatives
        self._background = tuple(background)
        self._size = size

    def __call__(
        self, photos: np.ndarray, masks: np.ndarray, number: tuple[int, int], part: slice = slice(None)
    ) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (n, H, W, 3) in 0..255 and uint8 (n, H, W) class ids -> pictures (n, h, w, 3) and their ids.

        Args:
            photos, masks: of the whole batch.
            number: epoch and index of the batch.
            part: what of the batch is made; what is drawn for a picture does not depend on it.
        """
        # NumPy draws, not layers: their random generators are variables, which threads would share.
        random = np.random.default_rng((self._seed, *number))
        total = len(photos)
        own = masks.shape[1:]
        size = (self._size, self._size) if self._size else own
        rows, columns = _draw_positions(random, self._zoom, total, own, size)
        mixing, brightness = _draw_colours(random, total)
        if self._negatives:
            _draw_negatives(random, self._negatives, masks, self._background, rows, columns)
        photos, masks = photos[part], masks[part]
        with keras.device(processes.cpu()):  # an accelerator has the network to train
            moved, classes = move(ops.cast(photos, "float32"), masks, rows[part], columns[part])
            if self._rotation:
                angles = random.uniform(-self._rotation, self._rotation, total)
                moved, classes = rotate(moved, classes, angles[part])
            coloured = recolour(moved, mixing[part], brightness[part])
        pictures, classes = np.array(ops.convert_to_numpy(coloured)), np.array(ops.convert_to_numpy(classes))
        if self._cut_out:
            corners, sides = _draw_rectangles(random, self._cut_out, total, *size)
            _cut_out(pictures, classes, corners[part], sides[part])
        return pictures, classes


def _draw_negatives(
    random: np.random.Generator,
    share: float,
    masks: np.ndarray,
    background: tuple[int, ...],
    rows: np.ndarray,
    columns: np.ndarray,
) -> None:
    """Let some photos show a part without an object, in place of what ``rows`` and ``columns`` (as in ``move``) have.

    A part is mirrored until it fills the picture, at a scale between the photo's own and the part's once: else what is
    blurred would be background, and what is sharp an object.
    """
    count, height, width = masks.shape
    chosen = np.flatnonzero(random.uniform(0, 1, count) < share)
    size = np.array((height, width))
    least, largest = WINDOW
    sides = np.round(random.uniform(least, largest, (count, WINDOWS, 2)) * size).astype(int).clip(2)
    corners = np.floor(random.uniform(0, 1, sides.shape) * (size - sides + 1)).astype(int)
    scales = random.uniform(0, 1, (count,))
    objects = _hold_objects(masks[chosen], background, corners[chosen], sides[chosen])
    for index, holds in zip(chosen, objects, strict=True):
        if holds.all():
            continue
        window = np.where(holds, 0, sides[index].prod(axis=-1)).argmax()
        (top, left), (high, wide) = corners[index, window], sides[index, window]
        rows[index] = top + _mirrored(high, height, rows.shape[1], scales[index])
        columns[index] = left + _mirrored(wide, width, columns.shape[1], scales[index])


def _hold_objects(masks: np.ndarray, background: tuple[int, ...], corners: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Whether windows (n, m, 2) of masks (n, h, w) hold a pixel that is not background: bool (n, m)."""
    sums = np.pad(~np.isin(masks, background), ((0, 0), (1, 0), (1, 0))).cumsum(axis=1).cumsum(axis=2)
    (top, left), (bottom, right) = np.moveaxis(corners, -1, 0), np.moveaxis(corners + sides, -1, 0)
    photo = np.arange(len(masks))[:, None]
    inside = sums[photo, bottom, right] - sums[photo, top, right] - sums[photo, bottom, left] + sums[photo, top, left]
    return np.asarray(inside > 0)


def _mirrored(window: int, side: int, count: int, scale: float) -> np.ndarray:
    """Positions (count,) that run to and fro in 0..window - 1, ``window`` 2 or more, from once along it (``scale`` 0)
    to as fast as along a photo of ``side`` pixels."""
    last = window - 1
    step = (last + scale * (side - 1 - last)) / (count - 1)
    run = step * np.arange(count) % (2 * last)
    return np.asarray(np.minimum(run, 2 * last - run))


def _draw_rectangles(
    random: np.random.Generator, share: float, count: int, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Upper left corners (count, 2) and sides (count, 2) of rectangles within a picture, pixels."""
    sides = np.round(random.uniform(0, share, (count, 2)) * (height, width)).astype(int)
    corners = np.floor(random.uniform(0, 1, (count, 2)) * (np.array((height, width)) - sides + 1)).astype(int)
    return corners, sides


def _cut_out(photos: np.ndarray, masks: np.ndarray, corners: np.ndarray, sides: np.ndarray) -> None:
    """Make a rectangle of each photo grey: what lies around it has to do (DeVries and Taylor 2017). Nothing is asked of
    the pixels under it."""
    for photo, mask, (top, left), (high, wide) in zip(photos, masks, corners, sides, strict=True):
        photo[top : top + high, left : left + wide] = GREY
        mask[top : top + high, left : left + wide] = IGNORED


def _draw_positions(
    random: np.random.Generator, limits: tuple[float, float], count: int, own: Sequence[int], size: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """For ``move``, from photos of ``own`` height and width to pictures of ``size``: float32 (count, h), (count, w)."""
    zoom = random.uniform(*limits, (count, 1))
    flip = random.choice((-1.0, 1.0), (count, 1))

    def positions(side: int, pixels: int, step: np.ndarray) -> np.ndarray:
        shift = random.uniform(-SHIFT, SHIFT, (count, 1)) * side
        from_centre = (np.arange(pixels) - (pixels - 1) / 2) * (side / pixels)
        return np.asarray((side - 1) / 2 + shift + step * from_centre, np.float32)

    return positions(own[0], size[0], zoom), positions(own[1], size[1], zoom * flip)


def _draw_colours(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """For ``recolour``: float32 (count, 3, 3) and (count,)."""
    contrast = random.uniform(1 - CONTRAST, 1 + CONTRAST, (count, 1, 1))
    saturation = np.exp(random.uniform(-SATURATION, SATURATION, (count, 1, 1)))
    angle = 2 * np.pi * random.uniform(-HUE, HUE, (count, 1, 1))
    # Rodrigues' rotation about the axis of greys, which keep their hue.
    cross = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    hue = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) / 3
    grey = np.repeat(_LUMA[:, None], 3, axis=1)  # a row of colour times this: its brightness, three times
    mixing = contrast * hue @ (saturation * np.eye(3) + (1 - saturation) * grey)
    return mixing.astype(np.float32), random.uniform(-BRIGHTNESS, BRIGHTNESS, count).astype(np.float32)


def _reflected(positions: Tensor, side: int) -> Tensor:
    """Positions outside the photo come back from its edge. Reflection has a truth, a constant has none."""
    positions = ops.where(positions < -0.5, -1.0 - positions, positions)
    positions = ops.where(positions > side - 0.5, 2.0 * side - 1.0 - positions, positions)
    return ops.clip(positions, 0.0, side - 1.0)


def _steps(positions: np.ndarray) -> np.ndarray:
    """Pixels of the photo from one position (n, m) to the next, at least 1: float32 (n, 1, 1)."""
    steps = np.median(np.abs(np.diff(positions, axis=1)), axis=1)
    return np.asarray(np.maximum(steps, 1.0), np.float32)[:, None, None]


def _weights(positions: Tensor, side: int, steps: np.ndarray) -> Tensor:
    """Weights of a photo's pixels in the value at each position: (n, m) -> (n, m, side), which sum to 1.

    Bilinear between two pixels. Where ``steps`` between positions are longer than a pixel, the triangle is as much
    wider: the antialiasing by which the runtime, too, makes photos smaller.
    """
    weights = ops.relu(1.0 - ops.abs(positions[:, :, None] - ops.arange(side, dtype="float32")) / steps)
    return weights / ops.sum(weights, axis=-1, keepdims=True)

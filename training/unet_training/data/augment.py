"""Augmentation with Keras operations: photo and mask move together, colours change in the photo alone.

All moves are one resampling and all colours one matrix, so that a photo costs about a millisecond: the loop that
trains must not wait for it.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any
"""Tensor of whichever backend Keras runs on."""

ZOOM = (0.6, 1.15)
"""Share of the photo's sides that the picture shows."""

SHIFT = 0.12
"""Largest share of a side, either way."""

BRIGHTNESS = 0.2 * 255
CONTRAST = 0.25
SATURATION = 0.8
"""Range of its natural logarithm, either way."""

HUE = 0.015
"""Share of the colour circle."""

_LUMA = np.array([0.299, 0.587, 0.114])


def move(photos: Tensor, masks: Tensor, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Flip, scale and shift photos (bilinear) and masks (nearest) by the same positions, along each side on its own.

    Args:
        photos: float32 (n, h, w, 3).
        masks: integers (n, h, w).
        rows, columns: for each row (n, h) and column (n, w) of the result its position in the photo, pixels.
    """
    _, height, width, channels = photos.shape
    rows, columns = _reflected(rows, height), _reflected(columns, width)
    # A side at a time, as products of matrices: on a CPU several times faster than gathering pixels, and the same in
    # every backend.
    moved = ops.matmul(_bilinear(rows, height), ops.reshape(photos, (-1, height, width * channels)))
    moved = ops.transpose(ops.reshape(moved, (-1, height, width, channels)), (0, 2, 1, 3))  # (n, w, h, 3)
    moved = ops.matmul(_bilinear(columns, width), ops.reshape(moved, (-1, width, height * channels)))
    moved = ops.transpose(ops.reshape(moved, (-1, width, height, channels)), (0, 2, 1, 3))  # (n, h, w, 3)
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


class Augmenter:
    """Random flip, scale, shift and colour, each drawn per picture. Threads may share one.

    Args:
        seed: together with a batch's number it decides what is drawn, so that a resumed training sees the
            pictures that an unbroken one does.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, photos: np.ndarray, masks: np.ndarray, number: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """uint8 (n, h, w, 3) in 0..255 and uint8 (n, h, w) class ids -> the same shapes and types; ``number`` of the
        batch: epoch and index."""
        # NumPy draws, not layers: their random generators are variables, which threads would share.
        random = np.random.default_rng((self._seed, *number))
        rows, columns = _draw_positions(random, *masks.shape)
        mixing, brightness = _draw_colours(random, len(photos))
        with keras.device("cpu"):  # an accelerator has the network to train
            moved, classes = move(ops.cast(photos, "float32"), masks, rows, columns)
            coloured = recolour(moved, mixing, brightness)
        return np.asarray(ops.convert_to_numpy(coloured)), np.asarray(ops.convert_to_numpy(classes))


def _draw_positions(random: np.random.Generator, count: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """For ``move``: float32 (count, height) and (count, width)."""
    zoom = random.uniform(*ZOOM, (count, 1))
    flip = random.choice((-1.0, 1.0), (count, 1))

    def positions(side: int, step: np.ndarray) -> np.ndarray:
        centre = (side - 1) / 2
        shift = random.uniform(-SHIFT, SHIFT, (count, 1)) * side
        return np.asarray(centre + shift + step * (np.arange(side) - centre), np.float32)

    return positions(height, zoom), positions(width, zoom * flip)


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


def _bilinear(positions: Tensor, side: int) -> Tensor:
    """Shares of the pixels on both sides of each position: (n, m) -> (n, m, side)."""
    return ops.relu(1.0 - ops.abs(positions[:, :, None] - ops.arange(side, dtype="float32")))

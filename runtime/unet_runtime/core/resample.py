"""Planes of the model's grid at a photo's size, as Pillow's BILINEAR resamples them, without computing every pixel.

The pixels between four neighbouring points of the grid are a cell. What is interpolated lies between its ends, so a
class that is the most probable at a cell's four corners is it in the whole cell, and its id is copied; only the pixels
of the other cells are computed. Most of a mask is no outline, so most of it is copied. What is computed are Pillow's
own values, bit for bit: the same taps, weights and roundings, along rows first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    import numpy.typing as npt

    Planes = npt.NDArray[np.float32]
    """float32 (C, ...), one plane a channel."""

    Label = Callable[[Planes], npt.NDArray[np.uint8]]
    """Planes -> label of each pixel, uint8 (...)."""

    CertainLabel = Callable[[Planes], tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]]
    """Planes -> labels uint8 (...), and bool (...): whether a label is far enough from any other for all pixels
    between four such corners of the same label to have it too."""

    _Indices = npt.NDArray[np.intp]

_BAND_PIXELS = 1 << 18
"""Pixels at a time: some megabytes of float32, so they stay in the processor's cache."""

_CELL_PIXELS = 1 << 16
"""The same for the pixels of cells, which go through float64."""


def bands(size: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """(top, bottom) rows of bands that cover a picture of ``size`` (width, height)."""
    rows = max(1, _BAND_PIXELS // size[0])
    for top in range(0, size[1], rows):
        yield top, min(top + rows, size[1])


def rows_of(planes: Planes, size: tuple[int, int], top: int, bottom: int) -> Planes:
    """Rows ``top`` to ``bottom`` of ``planes`` (C, h, w) resampled to ``size`` (width, height).

    Returns:
        float32 (C, bottom - top, width).
    """
    if size[1] < planes.shape[1]:  # reduced: a row has more than two taps
        return np.stack([rows_of_plane(plane, size, top, bottom) for plane in planes])
    axis = axis_of(planes.shape[1], size[1])
    first, last = int(axis.node[top]), int(axis.following[axis.node[bottom - 1]])
    points = _widened(planes[:, first : last + 1], size[0]).astype(np.float64)
    upper = axis.node[top:bottom]
    weights = axis.weights[:, top:bottom, np.newaxis]
    pixels = points[:, upper - first] * weights[0] + points[:, axis.following[upper] - first] * weights[1]
    result: Planes = pixels.astype(np.float32)
    return result


def rows_of_plane(
    plane: npt.NDArray[np.float32], size: tuple[int, int], top: int, bottom: int
) -> npt.NDArray[np.float32]:
    """As ``rows_of`` for one plane (h, w), to rounding, and by Pillow alone, which is the faster for whole rows.

    Returns:
        float32 (bottom - top, width).
    """
    rows, columns = plane.shape
    box = (0, rows * top / size[1], columns, rows * bottom / size[1])  # Pillow samples beyond it
    return np.array(Image.fromarray(plane).resize((size[0], bottom - top), Image.Resampling.BILINEAR, box=box))


def label(planes: Planes, size: tuple[int, int], at_corners: CertainLabel, of_pixels: Label) -> npt.NDArray[np.uint8]:
    """Label of each pixel of ``planes`` (C, h, w) resampled to ``size`` (width, height).

    Args:
        planes: of the model's grid.
        size: of the result.
        at_corners: labels the points of the grid.
        of_pixels: labels the pixels of the cells that the corners do not decide.

    Returns:
        uint8 (height, width).
    """
    _, rows, columns = planes.shape
    reduced = size[0] < columns or size[1] < rows
    if reduced or size[0] * size[1] > _BAND_PIXELS * rows * columns:  # or its cells are larger than bands
        return _every_pixel(planes, size, of_pixels)
    down, across = axis_of(rows, size[1]), axis_of(columns, size[0])
    at_points, certain = at_corners(planes)
    # mode="clip" does not check each index, which takes a fifth of the time
    wide = np.take(at_points, across.node, axis=1, mode="clip")
    result: npt.NDArray[np.uint8] = np.take(wide, down.node, axis=0, mode="clip")
    undecided = open_cells(at_points, certain, down, across)
    for row, column, pixels in _pixels(planes, np.flatnonzero(undecided), down, across):
        result.reshape(-1)[row * size[0] + column] = of_pixels(pixels)
    return result


def _every_pixel(planes: Planes, size: tuple[int, int], of_pixels: Label) -> npt.NDArray[np.uint8]:
    result = np.empty((size[1], size[0]), np.uint8)
    for top, bottom in bands(size):
        result[top:bottom] = of_pixels(rows_of(planes, size, top, bottom))
    return result


class Axis:
    """Where each pixel of a line lies between the points of the grid: Pillow's taps and weights for two of them."""

    def __init__(self, points: int, length: int) -> None:
        center = (np.arange(length) + 0.5) * (points / length)
        self.node = np.maximum(center - 0.5, 0).astype(np.intp)
        """(length,): the first of a pixel's two points."""
        self.following = np.minimum(np.arange(points) + 1, points - 1)
        """(points,): the point behind each; behind the last there is none, and it has no weight."""
        weights = np.stack([1 - np.abs(self.node - center + 0.5), 1 - np.abs(self.node - center + 1.5)])
        weights[1, (center < 0.5) | (self.node == points - 1)] = 0
        self.weights: npt.NDArray[np.float64] = np.maximum(weights, 0)
        """(2, length), of the first and of the second point; their sum is 1."""
        self.weights /= self.weights.sum(axis=0)
        self.begin = np.searchsorted(self.node, np.arange(points + 1))
        """(points + 1,): the first pixel behind each point."""
        self.count = np.diff(self.begin)
        """(points,): how many pixels there are before the next one."""
        self.has_pixels = self.count > 0
        """(points,): whether there is any."""
        most = np.arange(self.count.max())[:, np.newaxis]
        self.pixels = np.minimum(self.begin[:-1] + most, np.maximum(self.begin[1:] - 1, 0))
        """(most of them, points): the pixels behind each point; where it has fewer, its last one comes again."""
        self.pixel_weights = self.weights[:, self.pixels]
        """(2, most of them, points), of ``pixels``."""


@lru_cache(maxsize=32)  # the frames of a video have one size, and the photos of a folder few
def axis_of(points: int, length: int) -> Axis:
    return Axis(points, length)


def open_cells(
    at_points: npt.NDArray[np.uint8], certain: npt.NDArray[np.bool_], down: Axis, across: Axis
) -> npt.NDArray[np.bool_]:
    """bool (h, w): the cells, by their upper left corner, whose pixels have to be computed."""
    is_open = ~certain
    is_open[:, :-1] |= is_open[:, 1:] | (at_points[:, :-1] != at_points[:, 1:])
    is_open[:-1] |= is_open[1:] | (at_points[:-1] != at_points[1:])
    is_open &= down.has_pixels[:, np.newaxis] & across.has_pixels
    return is_open


def _pixels(planes: Planes, cells: _Indices, down: Axis, across: Axis) -> Iterator[tuple[_Indices, _Indices, Planes]]:
    """Rows (h, 1, k), columns (w, k) and values float32 (C, h, w, k) of all pixels in ``cells``, k cells at a time.

    Cells differ by a pixel in size: in a smaller one the last row or column comes twice. Cells are the last axis, since
    NumPy is several times slower along one as short as a cell's sides.
    """
    upper, left = np.divmod(cells, planes.shape[2])
    lower, right = down.following[upper] * planes.shape[2], across.following[left]
    flat = planes.reshape(len(planes), -1)
    indices = np.stack([cells, cells - left + right, lower + left, lower + right])
    corners = np.take(flat, indices, axis=1).astype(np.float64)[:, :, np.newaxis]  # (C, 4, 1, cells)
    height, width = int(down.count[upper].max(initial=1)), int(across.count[left].max(initial=1))
    step = max(1, _CELL_PIXELS // (height * width))
    for start in range(0, len(cells), step):
        part = slice(start, start + step)
        row = np.take(down.pixels[:height], upper[part], axis=1)  # (h, k)
        column = np.take(across.pixels[:width], left[part], axis=1)  # (w, k)
        first, second = np.take(across.pixel_weights[:, :width], left[part], axis=2)  # (w, k)
        lines = corners[:, 0::2, :, part] * first + corners[:, 1::2, :, part] * second  # (C, 2, w, k)
        lines = lines.astype(np.float32).astype(np.float64)[:, :, np.newaxis]  # (C, 2, 1, w, k), rounded as Pillow's
        first, second = np.take(down.pixel_weights[:, :height], upper[part], axis=2)[:, :, np.newaxis]  # (h, 1, k)
        values = lines[:, 0] * first
        values += lines[:, 1] * second
        yield row[:, np.newaxis], column, values.astype(np.float32)


def _widened(planes: Planes, width: int) -> Planes:
    """(C, rows, w) -> (C, rows, width)."""
    channels, rows, columns = planes.shape
    if columns == width:
        return planes
    image = Image.fromarray(planes.reshape(channels * rows, columns))  # rows do not depend on each other
    widened: Planes = np.asarray(image.resize((width, channels * rows), Image.Resampling.BILINEAR))
    return widened.reshape(channels, rows, width)

"""A small copy of a photo, and what is computed on it applied at the photo's own size, only where it is needed.

The copy's pixels are means of squares of ``step`` x ``step`` pixels; its points are their centres. Four neighbouring
points enclose a cell, which has ``step`` x ``step`` pixels too; at the picture's edges cells reach past it. All cells
are alike, so values between points are one multiplication of matrices for any number of cells.

The photo goes through in bands of whole cells, so that memory stays bounded whatever its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

_BAND_PIXELS = 1 << 19

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
_Kind = TypeVar("_Kind", bound=np.generic)
_Indices = npt.NDArray[np.intp]


class Cells:
    """The grid over a photo.

    Args:
        size: (width, height) of the photo in pixels.
        side: points along its longer side, at most.
    """

    def __init__(self, size: tuple[int, int], side: int) -> None:
        self.size = size
        self.step = step = -(-max(size) // side)
        """Pixels from one point to the next."""
        self.shape = (-(-size[1] // step), -(-size[0] // step))
        """(h, w) points; there is one more row and column of cells."""
        self._lead = step - step // 2  # pixels of the first cell that lie before the photo
        position = (np.arange(step) + step // 2 + 0.5 - step / 2) / step  # of a cell's pixels between its points
        line = np.stack([1 - position, position])  # (2, step)
        weights = line[:, np.newaxis, :, np.newaxis] * line[np.newaxis, :, np.newaxis]  # (2, 2, step, step)
        self._weights = weights.reshape(4, step * step).astype(np.float32)

    def reduced(self, image: Image.Image) -> Image.Image:
        """The small copy of an image of the photo's size: (w, h) pixels."""
        return image.reduce(self.step)

    def values(self, points: Floats, rows: _Indices, columns: _Indices) -> Floats:
        """Values in the pixels of n cells.

        Args:
            points: float32 (C, h + 2, w + 2): the points' values, the outermost ones repeated around them.
            rows: (n,) of the cells, 0 .. h.
            columns: (n,) of the cells, 0 .. w.

        Returns:
            float32 (C, n, step * step).
        """
        width = points.shape[2]
        first = rows * width + columns
        corners = np.stack([first, first + 1, first + width, first + width + 1], axis=1)  # (n, 4)
        taken = np.take(points.reshape(len(points), -1), corners, axis=1)  # (C, n, 4)
        return np.asarray(taken @ self._weights)

    def by_cell(self, pixels: npt.NDArray[_Kind]) -> npt.NDArray[_Kind]:
        """A view of all pixels (h, w, ...) of whole cells: (rows of cells, columns of cells, step, step, ...)."""
        step = self.step
        shape = (pixels.shape[0] // step, step, pixels.shape[1] // step, step, *pixels.shape[2:])
        return pixels.reshape(shape).swapaxes(1, 2)

    def holding(self, flags: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Which cells have a pixel that is set: (h, w) of whole cells -> (rows of cells, columns of cells)."""
        height, width = flags.shape
        step = self.step
        in_rows = flags.reshape(height // step, step, width).any(axis=1)  # whole rows at a time: ten times faster
        return np.asarray(in_rows.reshape(height // step, width // step, step).any(axis=2))

    def bands(self) -> Iterator[Band]:
        """Bands of rows of cells that cover the photo, from the top down."""
        width = (self.shape[1] + 1) * self.step
        count = max(1, _BAND_PIXELS // (width * self.step))
        for first in range(0, self.shape[0] + 1, count):
            last = min(first + count, self.shape[0] + 1)
            band = Band(self, first, last)
            if band.bottom > band.top:
                yield band

    @property
    def lead(self) -> int:
        """Pixels that the first row and column of cells reach past the photo."""
        return self._lead


class Band:
    """Rows of cells, ``first`` to ``last``."""

    def __init__(self, cells: Cells, first: int, last: int) -> None:
        self._cells = cells
        self.first, self.last = first, last
        self._above = first * cells.step - cells.lead  # the row of the photo where the first cell begins
        self._below = last * cells.step - cells.lead
        self.top = max(0, self._above)
        """First row of the photo."""
        self.bottom = min(cells.size[1], self._below)
        """Row behind its last one."""

    def crop(self, image: Image.Image, columns: slice | None = None) -> Image.Image:
        """All pixels of the band's cells, or of the named columns of cells; 0 past the photo's edges.

        Args:
            image: of the photo's size.
            columns: of cells; None: all.
        """
        step, lead = self._cells.step, self._cells.lead
        columns = columns or slice(0, self._cells.shape[1] + 1)
        return image.crop((columns.start * step - lead, self._above, columns.stop * step - lead, self._below))

    def filled(self, labels: Pixels) -> Pixels:
        """uint8, all pixels of the band's cells, from one value (rows, columns) for each cell."""
        step = self._cells.step
        return np.repeat(np.repeat(labels, step, axis=1), step, axis=0)

    def inside(self, pixels: Pixels) -> Pixels:
        """Those pixels that are the photo's, (bottom - top, W, ...), of all pixels of the band's cells."""
        lead, width = self._cells.lead, self._cells.size[0]
        return pixels[self.top - self._above : self.bottom - self._above, lead : lead + width]


def runs(flags: npt.NDArray[np.bool_]) -> Iterator[slice]:
    """Ranges of neighbours among ``flags`` (n,) that are all set, in their order."""
    changes = np.flatnonzero(np.diff(flags, prepend=False, append=False))
    for first, last in changes.reshape(-1, 2).tolist():
        yield slice(first, last)


def with_surround(points: Floats) -> Floats:
    """Points (C, h, w) with their outermost ones repeated around them: (C, h + 2, w + 2)."""
    return np.pad(points, ((0, 0), (1, 1), (1, 1)), mode="edge")

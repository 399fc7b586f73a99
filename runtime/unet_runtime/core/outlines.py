"""The mask of a large photo as runs, from what lies between the points of the model's grid: no pixel is computed.

Within a cell (see resample.py) the interpolated values of a row of pixels are linear, so one division for each row
finds the pixel from which another class has the largest value. The mask is the one that ``resample.label`` makes, bit
for bit: where two classes are so close that Pillow's rounding decides, Pillow's own values are computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unet_runtime.core import resample
from unet_runtime.core.runs import Runs

if TYPE_CHECKING:
    import numpy.typing as npt

    from unet_runtime.core.resample import Axis, CertainLabel, Label, Planes

    _Integers = npt.NDArray[np.int64]
    _Floats = npt.NDArray[np.float64]

MOST_CLASSES = 4
"""Beyond, each row has too many pairs of classes."""

_ROWS_AT_A_TIME = 1 << 16
"""Rows of cells, and so some megabytes."""

_ROUNDING = 2.0**-20
"""Twice what Pillow's two roundings can add up to between two classes, as a share of the largest value, and more."""


class _Lines(NamedTuple):
    """n rows of pixels, each within an open cell."""

    cell: _Integers
    """(n,): which of the cells."""
    row: _Integers
    """(n,): of the picture."""
    node: _Integers
    """(n,): column of the grid."""
    begin: _Integers
    """(n,): first column of the picture."""
    end: _Integers
    """(n,): the one behind the last."""
    left: _Floats
    """(C, n): value of each class at the left end of the cell."""
    slope: _Floats
    """(C, n): what is added on the way to its right end."""

    def some(self, which: _Integers) -> _Lines:
        """Some of them, by their numbers."""
        return _Lines(*(_taken(values, which) for values in self))


class _Grid(NamedTuple):
    """What is known of the points of the grid."""

    planes: Planes
    down: Axis
    across: Axis
    at_points: npt.NDArray[np.uint8]
    """(h, w): the label of each point."""
    is_open: npt.NDArray[np.bool_]
    """(h, w): cells with more than one label."""
    begins: npt.NDArray[np.bool_]
    """(h, w): cells with one label that is not that of the cell before."""
    least: float
    """Difference of two classes from which on rounding does not decide between them."""


def can_trace(planes: Planes, size: tuple[int, int]) -> bool:
    """Whether ``trace`` can make a mask of this size: an enlarged one, of few classes."""
    classes, rows, columns = planes.shape
    return bool(classes <= MOST_CLASSES and size[0] >= columns and size[1] >= rows)


def trace(planes: Planes, size: tuple[int, int], at_corners: CertainLabel, of_pixels: Label) -> Iterator[Runs]:
    """The runs of ``resample.label(planes, size, at_corners, of_pixels)``, for labels that are the largest class.

    Args:
        planes: (C, h, w) of the model's grid, see ``can_trace``.
        size: (width, height) of the mask.
        at_corners: as there.
        of_pixels: as there.

    Yields:
        Rows from the top down.
    """
    down, across = resample.axis_of(planes.shape[1], size[1]), resample.axis_of(planes.shape[2], size[0])
    at_points, certain = at_corners(planes)
    is_open = resample.open_cells(at_points, certain, down, across)
    least = _ROUNDING * float(np.abs(planes).max())
    grid = _Grid(planes, down, across, at_points, is_open, _begins(at_points, is_open, across), least)
    for first, last in _bands(grid):
        top, bottom = int(down.begin[first]), int(down.begin[last])
        if bottom > top:
            parts = [_decided(grid, first, last), *_undecided(grid, first, last, of_pixels)]
            yield _joined(np.concatenate(parts), top, bottom, size[0])


def _begins(at_points: npt.NDArray[np.uint8], is_open: npt.NDArray[np.bool_], across: Axis) -> npt.NDArray[np.bool_]:
    columns = np.flatnonzero(across.has_pixels)
    labels, opened = at_points[:, columns], is_open[:, columns]
    found = np.ones(labels.shape, bool)
    found[:, 1:] = opened[:, :-1] | (labels[:, 1:] != labels[:, :-1])
    result = np.zeros(at_points.shape, bool)
    result[:, columns] = found & ~opened
    return result


def _bands(grid: _Grid) -> Iterator[tuple[int, int]]:
    """(first, last) rows of the grid, whose pixels have a bounded number of rows of cells."""
    cost = np.diff(grid.down.begin) * (grid.is_open.sum(axis=1) + grid.begins.sum(axis=1))
    ends = np.flatnonzero(np.diff(np.cumsum(cost) // _ROWS_AT_A_TIME)) + 1
    yield from itertools.pairwise([0, *ends.tolist(), len(cost)])


def _keys(row: _Integers, column: _Integers, ids: npt.NDArray[np.uint8], width: int) -> _Integers:
    """Where runs begin, and the id of each, in one number by which they are sorted."""
    return (row * width + column) << 8 | ids


def _taken(values: npt.NDArray[Any], index: _Integers) -> npt.NDArray[Any]:
    """``values[..., index]``, in half the time."""
    return np.take(values, index, axis=-1, mode="clip")


def _spread(counts: _Integers) -> tuple[_Integers, _Integers]:
    """For things of which there are ``counts`` each: (which thing, which of its own), of all of them."""
    index = np.repeat(np.arange(len(counts)), counts)
    return index, np.arange(len(index)) - (np.cumsum(counts) - counts)[index]


def _decided(grid: _Grid, first: int, last: int) -> _Integers:
    """Keys of the runs that begin with a cell of one label."""
    upper, left = np.nonzero(grid.begins[first:last])
    upper += first
    index, offset = _spread(grid.down.begin[upper + 1] - grid.down.begin[upper])
    row = grid.down.begin[upper][index] + offset
    ids = grid.at_points[upper, left]
    return _keys(row, grid.across.begin[left][index], ids[index], len(grid.across.node))


def _undecided(grid: _Grid, first: int, last: int, of_pixels: Label) -> list[_Integers]:
    """Keys of the runs within the other cells."""
    upper, left = np.nonzero(grid.is_open[first:last])
    if not len(upper):
        return []
    upper += first
    corners = _corners(grid, upper, left)
    lines = _lines(grid, corners, upper, left)
    cuts, is_close = _cuts(grid, corners, lines)
    close = np.flatnonzero(is_close)
    found = [_intervals(grid, lines, cuts, ~is_close, of_pixels)]
    if len(close):
        found.append(_pixels(grid, corners, lines, close, of_pixels))
    return found


def _corners(grid: _Grid, upper: _Integers, left: _Integers) -> _Floats:
    """(C, 4, k): the values at the corners of k cells: upper left, upper right, lower left, lower right."""
    width = grid.planes.shape[2]
    above, below, right = upper * width, grid.down.following[upper] * width, grid.across.following[left]
    indices = np.stack([above + left, above + right, below + left, below + right])
    corners: _Floats = np.take(grid.planes.reshape(len(grid.planes), -1), indices, axis=1).astype(np.float64)
    return corners


def _lines(grid: _Grid, corners: _Floats, upper: _Integers, left: _Integers) -> _Lines:
    cell, offset = _spread(grid.down.begin[upper + 1] - grid.down.begin[upper])
    row = grid.down.begin[upper][cell] + offset
    values = _taken(corners, cell)
    values[:, :2] *= grid.down.weights[0, row]
    values[:, 2:] *= grid.down.weights[1, row]
    ends = values[:, :2]
    ends += values[:, 2:]
    node = left[cell]
    begin, end = grid.across.begin[node], grid.across.begin[node + 1]
    return _Lines(cell, row, node, begin, end, ends[:, 0], ends[:, 1] - ends[:, 0])


def _cuts(grid: _Grid, corners: _Floats, lines: _Lines) -> tuple[_Integers, npt.NDArray[np.bool_]]:
    """(pairs, n) columns where one class of a pair may take over from the other, sorted, and rows (n,) in which
    rounding decides."""
    classes = len(lines.left)
    cuts = np.repeat(lines.end[np.newaxis], classes * (classes - 1) // 2, axis=0)
    is_close = np.zeros(len(lines.row), bool)
    for index, pair in enumerate(itertools.combinations(range(classes), 2)):
        where = np.flatnonzero(_may_cross(corners, pair, grid.least)[lines.cell])
        part = lines.some(where)
        low, high = _crossing(part, pair, grid.least)
        matters = _is_ahead(part, pair, low, high, grid.least)
        first = _first_column(grid.across, part, low)
        behind = _first_column(grid.across, part, high, behind=True)
        cuts[index, where[matters]] = behind[matters]
        is_close[where[matters & (first < behind)]] = True
    _sort_columns(cuts)
    return cuts, is_close


def _sort_columns(values: _Integers) -> None:
    """Sort each column in place; there are few rows, so NumPy's own way would be slow."""
    for last in range(len(values) - 1, 0, -1):
        for upper in range(last):
            lower = np.maximum(values[upper], values[upper + 1])
            np.minimum(values[upper], values[upper + 1], out=values[upper])
            values[upper + 1] = lower


def _may_cross(corners: _Floats, pair: tuple[int, int], least: float) -> npt.NDArray[np.bool_]:
    """(k,): cells in which a pair may change places at the top; of most cells it is one pair."""
    lead = corners[pair[0]] - corners[pair[1]]  # (4, k)
    result: npt.NDArray[np.bool_] = (lead.min(axis=0) <= least) & (lead.max(axis=0) >= -least)
    for other in set(range(len(corners))) - set(pair):
        for one in pair:
            result &= (corners[other] - corners[one]).min(axis=0) <= least
    return result


def _crossing(lines: _Lines, pair: tuple[int, int], least: float) -> tuple[_Floats, _Floats]:
    """Where within its cell, 0 to 1, rounding may decide between two classes: from the first to the second place.

    They change places between the two. Where they do not change, both places lie before, or behind, the cell.
    """
    lead = lines.left[pair[0]] - lines.left[pair[1]]
    slope = lines.slope[pair[0]] - lines.slope[pair[1]]
    is_flat = np.abs(slope) < least
    slope = np.where(is_flat, 1.0, slope)
    middle, margin = -lead / slope, least / np.abs(slope)
    never = np.where(np.abs(lead) > 2 * least, 2.0, -np.inf)  # of a flat one
    always = np.where(np.abs(lead) > 2 * least, 2.0, np.inf)
    return np.where(is_flat, never, middle - margin), np.where(is_flat, always, middle + margin)


def _is_ahead(lines: _Lines, pair: tuple[int, int], low: _Floats, high: _Floats, least: float) -> npt.NDArray[np.bool_]:
    """Rows in which ``low`` to ``high`` lies within the cell, and no other class is certainly ahead of one of the pair
    there."""
    ahead = (high >= 0) & (low <= 1)
    low, high = low.clip(0, 1), high.clip(0, 1)
    for other in set(range(len(lines.left))) - set(pair):
        for one in pair:
            lead = lines.left[other] - lines.left[one] - least
            slope = lines.slope[other] - lines.slope[one]
            ahead &= (lead + slope * low <= 0) | (lead + slope * high <= 0)
    return ahead


def _first_column(across: Axis, lines: _Lines, place: _Floats, *, behind: bool = False) -> _Integers:
    """First column of the cell that lies at a place within it, 0 to 1, or behind that: ``behind`` it, not at it."""
    scale = len(across.following) / len(across.node)
    position = (place.clip(0, 1) + lines.node + 0.5) / scale - 0.5
    column = (np.floor(position) + 1 if behind else np.ceil(position)).astype(np.int64)
    column = np.clip(column, lines.begin, lines.end)
    # Before the first point, and behind the last, all pixels lie at it.
    return np.where(place >= 1, lines.end, column) if behind else np.where(place <= 0, lines.begin, column)


def _intervals(
    grid: _Grid, lines: _Lines, cuts: _Integers, is_wanted: npt.NDArray[np.bool_], of_pixels: Label
) -> _Integers:
    """Keys of the runs between the cuts: there the class that is ahead at one pixel is ahead at all."""
    starts, ends = np.vstack([lines.begin, cuts]), np.vstack([cuts, lines.end])
    interval, line = np.nonzero((starts < ends) & is_wanted)
    column = starts[interval, line]
    place = grid.across.weights[1, column]
    values = _taken(lines.slope, line)
    values *= place
    values += _taken(lines.left, line)
    ids = of_pixels(values.astype(np.float32))
    return _keys(lines.row[line], column, ids, len(grid.across.node))


def _pixels(grid: _Grid, corners: _Floats, lines: _Lines, close: _Integers, of_pixels: Label) -> _Integers:
    """Keys of every pixel of some rows, with Pillow's values: along rows first, each rounded."""
    index, offset = _spread((lines.end - lines.begin)[close])
    line = close[index]
    column, row, cell = lines.begin[line] + offset, lines.row[line], lines.cell[line]
    first, second = grid.across.weights[:, column]
    ends = corners[:, 0::2, cell] * first + corners[:, 1::2, cell] * second  # (C, 2, pixels)
    ends = ends.astype(np.float32).astype(np.float64)
    first, second = grid.down.weights[:, row]
    ids = of_pixels((ends[:, 0] * first + ends[:, 1] * second).astype(np.float32))
    return _keys(row, column, ids, len(grid.across.node))


def _joined(keys: _Integers, top: int, bottom: int, width: int) -> Runs:
    """Runs of rows ``top`` to ``bottom``; those that go on with the same id are one."""
    keys.sort()
    starts, ids = keys >> 8, (keys & 255).astype(np.uint8)
    begins = starts % width == 0
    begins[1:] |= ids[1:] != ids[:-1]
    starts = starts[begins]
    return Runs(ids[begins], np.diff(starts, append=bottom * width), bottom - top)

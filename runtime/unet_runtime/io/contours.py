"""Mask -> polygons that are its exact pixel outline, without an extra package.

Corners of pixels have integer coordinates: pixel (x, y) covers [x, x + 1] x [y, y + 1], as in COCO. A polygon runs
clockwise (as seen, y down) along the edges of its pixels, and lists only the corners where it turns. Pixels that touch
at a corner alone are not connected. COCO's polygons know no holes, so a hole is joined to what is above it by a slit
of no width, which the polygon runs down and up again: filled by any rule, pycocotools' too, it gives the mask again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_BAND_PIXELS = 1 << 20
_FIRST_LOOK = 64  # rows above a hole that are looked at first: walls between holes are mostly thin


class _Corners(NamedTuple):
    """Turning points, row by row: 2k and 2k + 1 are the left and right end of one horizontal edge.

    Where two pixels touch at a corner alone, two corners lie in the same place.
    """

    x: npt.NDArray[np.int64]
    y: npt.NDArray[np.int64]
    rank: npt.NDArray[np.int64]
    """0 for the end of a vertical edge from above, 1 from below; tells two corners in one place apart."""
    rightward: npt.NDArray[np.bool_]
    """For each horizontal edge, whether the pixels are below it, so that a polygon follows it to the right."""


def polygons(mask: npt.NDArray[np.uint8], index: int) -> list[list[int]]:
    """Outline of the pixels of one class, [x1, y1, x2, y2, ...] for each connected part, from the top down.

    Args:
        mask: class ids, uint8 (H, W).
        index: the class.
    """
    corners = _corners(mask, index)
    if not len(corners.x):
        return []
    following = _following(corners)
    xs = corners.x.tolist()
    ys = corners.y.tolist()
    holes = [start for start in _rings(following) if start % 2 or not corners.rightward[start // 2]]
    _join(holes, mask == index, corners, following, xs, ys)
    return [_coordinates(start, following, xs, ys) for start in _rings(following, len(corners.x))]


def _corners(mask: npt.NDArray[np.uint8], index: int) -> _Corners:
    places = []
    doubled = []
    below = []
    stride = mask.shape[1] + 1
    for top, block in _blocks(mask, index):
        a, b = block[:-1, :-1], block[:-1, 1:]  # the four pixels around a corner: a b over c d
        c, d = block[1:, :-1], block[1:, 1:]
        turned = a != b
        touching = turned & (a != c) & (c != d)
        place = np.flatnonzero((turned ^ (c != d)) | touching)
        places.append(place + top * stride)
        doubled.append(touching.ravel()[place])
        below.append(d.ravel()[place])
    twice = np.concatenate(doubled)
    place = np.repeat(np.concatenate(places), 1 + twice)
    lower_right = np.repeat(np.concatenate(below), 1 + twice)
    second = np.zeros(len(place), np.int64)
    second[1:] = (place[1:] == place[:-1]) & np.repeat(twice, 1 + twice)[1:]
    # The left edge ends in the first of two corners. If a and d are set it meets the upper edge, else the lower one.
    rank = np.where(lower_right, second, 1 - second)
    return _Corners(place % stride, place // stride, rank, lower_right[::2])


def _blocks(mask: npt.NDArray[np.uint8], index: int) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    """(first row of corners, pixels around them): bands of the padded mask, each with one row of the last."""
    height, width = mask.shape
    rows = max(1, _BAND_PIXELS // width)
    for top in range(0, height + 1, rows):
        bottom = min(top + rows, height + 1)
        block = np.zeros((bottom - top + 1, width + 2), np.bool_)
        first, last = max(0, top - 1), min(bottom, height)
        block[first - top + 1 : last - top + 1, 1:-1] = mask[first:last] == index
        yield top, block


def _following(corners: _Corners) -> list[int]:
    """For each corner the next of its polygon: along a horizontal edge, then along a vertical one."""
    count = len(corners.x)
    by_column = np.lexsort((corners.rank, corners.y, corners.x))
    following = np.empty(count, np.int64)
    following[by_column] = by_column.reshape(-1, 2)[:, ::-1].ravel()
    lefts = np.arange(0, count, 2)
    starts = np.where(corners.rightward, lefts, lefts + 1)
    following[starts] = starts ^ 1
    result: list[int] = following.tolist()
    return result


def _rings(following: list[int], first_count: int | None = None) -> Iterator[int]:
    """The first corner of each closed line, row by row: its topmost, of these its leftmost."""
    seen = bytearray(len(following))
    for start in range(len(following) if first_count is None else first_count):
        if seen[start]:
            continue
        yield start
        corner = start
        while not seen[corner]:
            seen[corner] = 1
            corner = following[corner]


def _join(
    holes: list[int],
    inside: npt.NDArray[np.bool_],
    corners: _Corners,
    following: list[int],
    xs: list[int],
    ys: list[int],
) -> None:
    """Lead the line above each hole down to its upper left corner, around it and back; appends corners."""
    stride = inside.shape[1] + 1
    lefts = corners.y[::2] * stride + corners.x[::2]
    above: dict[int, list[tuple[int, int, int]]] = defaultdict(list)  # left end of an edge: (x, y, corner of the hole)
    for hole in holes:
        y, column = max((_top(inside, column, ys[hole]), column) for column in (xs[hole] - 1, xs[hole]))
        edge = int(np.searchsorted(lefts, y * stride + column, side="right")) - 1
        above[2 * edge].append((xs[hole], y, hole))
    for left, hits in above.items():
        last = left
        for x, y, hole in sorted(hits):
            down = len(xs)  # three more corners: the slit's upper end, its lower end, its upper end again
            xs += (x, x, x)
            ys += (y, ys[hole], y)
            following += (hole, down + 2, left + 1)
            following[last] = down
            following[hole ^ 1] = down + 1
            last = down + 2


def _top(inside: npt.NDArray[np.bool_], column: int, row: int) -> int:
    """First row of the run of set pixels of a column that ends above ``row``."""
    look = _FIRST_LOOK
    while True:
        first = max(0, row - look)
        clear = np.flatnonzero(~inside[first:row, column])
        if len(clear):
            return first + int(clear[-1]) + 1
        if first == 0:
            return 0
        look *= 8


def _coordinates(start: int, following: list[int], xs: list[int], ys: list[int]) -> list[int]:
    result = [xs[start], ys[start]]
    corner = following[start]
    while corner != start:
        point = [xs[corner], ys[corner]]
        if point != result[-2:]:  # a slit may begin in a corner
            result += point
        corner = following[corner]
    return result

"""A mask as runs of equal ids: one of 12 megapixels has some ten thousand of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

LARGE = 1 << 20
"""Pixels of a mask from which on its runs are quicker to deal with than its pixels."""


class Runs(NamedTuple):
    """Some whole rows of a mask, row after row; no run goes on into the next row."""

    ids: npt.NDArray[np.uint8]
    """(n,)"""
    lengths: npt.NDArray[np.int64]
    """(n,), in pixels, 1 or more."""
    height: int
    """Rows."""


def runs_of(rows: npt.NDArray[np.uint8]) -> Runs:
    """The runs of some rows of a mask, uint8 (h, w)."""
    begins = np.ones(rows.shape, bool)
    np.not_equal(rows[:, 1:], rows[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    return Runs(rows.reshape(-1)[starts], np.diff(starts, append=rows.size), len(rows))


def mask_of(parts: Iterable[Runs], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The mask, uint8 (height, width), whose rows are in ``parts``, from the top down."""
    mask = np.empty((size[1], size[0]), np.uint8)
    top = 0
    for runs in parts:
        mask[top : top + runs.height] = np.repeat(runs.ids, runs.lengths).reshape(runs.height, size[0])
        top += runs.height
    return mask


def areas_of(parts: Iterable[Runs], count: int) -> list[int]:
    """Pixels of each of ``count`` classes."""
    areas = np.zeros(count)  # floats that hold integers: what np.bincount sums weights in
    for runs in parts:
        areas += np.bincount(runs.ids, runs.lengths, count)
    return [int(area) for area in areas]

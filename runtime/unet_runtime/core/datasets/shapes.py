"""Labels that are shapes: outlines and run lengths, drawn into class ids when they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_runtime.core.datasets import classes as class_lists
from unet_runtime.core.datasets.base import IGNORED, ClassIds, Options
from unet_runtime.core.datasets.classes import BACKGROUND, IGNORE
from unet_runtime.core.errors import ImageError, SourceError
from unet_runtime.core.install import missing
from unet_runtime.core.photo import photo_size
from unet_runtime.core.spec import ClassSpec

Inside = npt.NDArray[np.bool_]
"""(H, W): pixels of a shape."""

MAX_PIXELS = 1 << 28
"""Most pixels of a photo with shapes, as its file of labels states them."""


@dataclass(frozen=True)
class Polygons:
    """Closed outlines, whose insides are joined. Corners of pixels have whole coordinates: pixel (x, y) covers
    [x, x + 1] x [y, y + 1]; those whose centre is inside belong to the shape."""

    rings: tuple[tuple[float, ...], ...]
    """x, y, x, y, ... of each."""

    def inside(self, height: int, width: int) -> Inside:
        result = np.zeros((height, width), bool)
        for ring in self.rings:
            _join(result, np.array(ring, np.float64).reshape(-1, 2))
        return result


@dataclass(frozen=True)
class RunLengths:
    """COCO's run lengths, column by column, beginning with pixels outside."""

    size: tuple[int, int]
    """Height, width."""
    counts: tuple[int, ...] | str
    """Lengths; or text, as pycocotools compresses them."""

    def inside(self, height: int, width: int) -> Inside:
        if self.size != (height, width):
            raise ImageError(f"run lengths of {self.size[1]}x{self.size[0]} in a photo of {width}x{height}")
        if isinstance(self.counts, str):
            return self._decompressed()
        counts = np.array(self.counts, np.int64)
        if counts.size and (counts.min() < 0 or counts.sum() != height * width):
            raise ImageError(f"run lengths of {counts.sum()} pixels, expected {height * width}")
        values = np.arange(counts.size) % 2 == 1
        return np.repeat(values, counts).reshape(width, height).T

    def _decompressed(self) -> Inside:
        try:
            from pycocotools import mask
        except ImportError as error:
            raise missing("COCO's compressed run lengths", "pycocotools", "datasets") from error
        try:
            decoded = mask.decode({"size": list(self.size), "counts": str(self.counts).encode("ascii")})
        except Exception as error:  # a damaged text raises anything
            raise ImageError(f"damaged run lengths ({error})") from error
        return np.asarray(decoded, bool)


@dataclass(frozen=True)
class Bitmap:
    """A small picture of the shape at a place in the photo."""

    left: int
    top: int
    pixels: bytes
    """One bit a pixel, as ``numpy.packbits`` gives them."""
    size: tuple[int, int]
    """Height, width."""

    def inside(self, height: int, width: int) -> Inside:
        rows, columns = self.size
        bits = np.unpackbits(np.frombuffer(self.pixels, np.uint8), count=rows * columns).astype(bool)
        result = np.zeros((height, width), bool)
        place = result[max(0, self.top) : self.top + rows, max(0, self.left) : self.left + columns]
        part = bits.reshape(rows, columns)[max(0, -self.top) :, max(0, -self.left) :]
        place[...] = part[: place.shape[0], : place.shape[1]]
        return result


Shape = Polygons | RunLengths | Bitmap


@dataclass(frozen=True)
class ShapeLabels:
    """Labels of one photo: shapes drawn one over the other on a ground."""

    path: Path
    """The file that they are in."""
    size: tuple[int, int]
    """Height, width of the photo."""
    ground: int
    """Class id where nothing is drawn."""
    shapes: tuple[tuple[int, Shape], ...] = field(compare=False, repr=False)
    """Class id and shape, from the bottom up."""
    smallest_on_top: bool = False
    """Whether the order is by area instead, the smallest last."""
    key: str = ""
    """Identity of the photo in the file and of the classes."""

    @property
    def coding(self) -> str:
        return f"{self.key} {self.ground} {' '.join(str(index) for index, _ in self.shapes)}"

    def read(self) -> ClassIds:
        """Class ids, uint8 (H, W).

        Raises:
            ImageError: a shape that cannot be drawn.
            MissingDependencyError: compressed run lengths, and pycocotools is not installed.
        """
        height, width = self.size
        result = np.full((height, width), self.ground, np.uint8)
        try:
            drawn = [(index, shape.inside(height, width)) for index, shape in self.shapes]
        except ImageError as error:
            raise ImageError(f"{self.path}: {error}") from error
        if self.smallest_on_top:
            drawn.sort(key=lambda item: -int(np.count_nonzero(item[1])))
        for index, inside in drawn:
            result[inside] = index
        return result


def _join(result: Inside, ring: npt.NDArray[np.float64]) -> None:
    """Add what is inside a ring, (n, 2) of x and y, by the even-odd rule at pixels' centres.

    Not Pillow's polygons: they take in the pixels on the outline too, so that objects grow on every side.
    """
    height, width = result.shape
    following = np.roll(ring, -1, axis=0)
    upper = np.where(ring[:, 1:] <= following[:, 1:], ring, following)
    lower = np.where(ring[:, 1:] <= following[:, 1:], following, ring)
    first = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.intp)
    last = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.intp)  # rows first to last - 1
    rows_of_edge = last - first
    edges = np.repeat(np.arange(len(ring)), rows_of_edge)
    if not edges.size:
        return
    starts = np.cumsum(rows_of_edge) - rows_of_edge
    rows = first[edges] + np.arange(edges.size) - starts[edges]
    slope = (lower[edges, 0] - upper[edges, 0]) / (lower[edges, 1] - upper[edges, 1])
    crossing = upper[edges, 0] + (rows + 0.5 - upper[edges, 1]) * slope
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.intp)
    top, bottom = int(rows.min()), int(rows.max()) + 1
    left, right = int(columns.min()), int(columns.max())
    changes = np.zeros((bottom - top, right - left + 1), np.uint8)
    np.bitwise_xor.at(changes, (rows - top, columns - left), 1)
    inside = np.bitwise_xor.accumulate(changes, axis=1)[:, :-1]
    result[top:bottom, left:right] |= inside.astype(bool)


def checked_ring(values: Any) -> tuple[float, ...]:
    """The coordinates of an outline.

    Raises:
        ValueError: fewer than three points, or something that is no finite number.
    """
    if not isinstance(values, (list, tuple)) or len(values) < 6 or len(values) % 2:
        count = len(values) if isinstance(values, (list, tuple)) else 0
        raise ValueError(f"a polygon of {count} numbers, expected x, y of three points or more")
    if not all(isinstance(value, (int, float)) and abs(value) < 1e9 for value in values):
        raise ValueError("a polygon with something that is no number")
    return tuple(map(float, values))


def checked_size(height: Any, width: Any, photo: Path) -> tuple[int, int]:
    """Height and width of a photo, as its labels state them.

    Raises:
        ValueError: no whole numbers, too many pixels, or another size than the photo's file has.
    """
    ok = all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in (height, width))
    if not ok or height * width > MAX_PIXELS:
        raise ValueError(f"height {height!r} and width {width!r}, expected whole numbers above 0")
    found = photo_size(photo)  # of its header; None: reading the photo says what is wrong with it
    if found is not None and (height, width) not in (found, found[::-1]):  # either way: EXIF may turn it
        raise ValueError(f"labels of {width}x{height}, the photo has {found[0]}x{found[1]}")
    return height, width


def classes_with_ground(names: Sequence[str], options: Options, where: Path) -> tuple[tuple[ClassSpec, ...], int]:
    """The classes of shapes, with a background before them where none has that name; and the class id where nothing is
    drawn.

    Raises:
        SourceError: too few or too many classes, or ``unlabelled`` names none of them.
    """
    listed = list(names)
    grounds = [name for name in listed if class_lists.role_of(name) == "background"]
    if options.unlabelled != IGNORE and not grounds:
        listed.insert(0, BACKGROUND)
        grounds = [BACKGROUND]
    classes = class_lists.named_classes(listed)
    class_lists.check(classes, str(where))
    if options.unlabelled == IGNORE:
        return classes, IGNORED
    ground = options.unlabelled or grounds[0]
    if ground not in listed:
        raise SourceError(f"{where}: unlabelled is {ground!r}, expected one of {', '.join(listed)}, or {IGNORE}")
    return classes, listed.index(ground)

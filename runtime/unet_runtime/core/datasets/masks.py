"""Label masks: image files whose pixels stand for classes, by number or by colour.

    number    greyscale, black-and-white and palette images (the index, not its colour), 8 or 16 bits
    colour    RGB; where red, green and blue are equal everywhere, that number

A palette image of a dataset that codes classes by colour is read by its colours, if each has a class, else by index.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_runtime.core.cores import usable_cores
from unet_runtime.core.datasets.base import IGNORED, ClassIds, Value
from unet_runtime.core.errors import ImageError

FORMATS = ("PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG")  # any of Pillow's decoders would run otherwise

SUFFIXES = frozenset((".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".jpg", ".jpeg"))
"""Suffixes of files that may be label masks."""

MAX_SHOWN = 5
"""Values that a message lists."""

MAX_COLOURS = 4096
"""More colours in one image are those of a photo."""

_LOSSY = ("JPEG",)
LOSSY_SUFFIXES = (".jpg", ".jpeg")


def shown(value: Value) -> str:
    """``7``, or ``#800000``."""
    return str(value) if isinstance(value, int) else "#{:02x}{:02x}{:02x}".format(*value)


def packed(colour: tuple[int, int, int]) -> int:
    """An RGB colour as one number."""
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def unpacked(number: int) -> tuple[int, int, int]:
    """The RGB colour of ``packed``."""
    return number >> 16, number >> 8 & 255, number & 255


@dataclass(frozen=True)
class Coding:
    """How values and colours in masks stand for classes."""

    ids: Mapping[Value, int]
    """Value or colour -> class id, or ``IGNORED``."""

    @cached_property
    def _numbers(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        known = {value: index for value, index in self.ids.items() if isinstance(value, int)}
        for value, index in self.ids.items():
            if not isinstance(value, int) and value[0] == value[1] == value[2]:
                known.setdefault(value[0], index)  # a grey of an image without colours
        return _table(known)

    @cached_property
    def _colours(self) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
        known = {}
        for value, index in self.ids.items():
            if not isinstance(value, int):
                known[packed(value)] = index
        return _table(known)

    @cached_property
    def by_colour(self) -> bool:
        """Whether some classes are known by colour."""
        return any(not isinstance(value, int) for value in self.ids)

    @cached_property
    def text(self) -> str:
        """All of it, on a line."""
        return " ".join(f"{shown(value)}={index}" for value, index in sorted(self.ids.items(), key=str))

    def __hash__(self) -> int:
        return hash(self.text)

    def class_ids(self, image: Image.Image) -> ClassIds:
        """Class ids of a decoded image.

        Raises:
            UnknownValuesError: values or colours that no class has.
        """
        if image.mode == "P" and self.by_colour:
            lookup = self._palette_lookup(image)
            if lookup is not None:
                return lookup[np.asarray(image, np.uint8)]
        pixels = pixel_values(image)
        if pixels.ndim == 2:
            return _looked_up(pixels, *self._numbers, colours=False)
        grey = pixels[..., 0]
        if not self.by_colour and (pixels == grey[..., np.newaxis]).all():
            return _looked_up(grey.astype(np.int32), *self._numbers, colours=False)
        numbers = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
        return _looked_up(numbers, *self._colours, colours=True)

    def _palette_lookup(self, image: Image.Image) -> npt.NDArray[np.uint8] | None:
        """Class id by palette index, where each index that occurs has the colour of a class, and no two the same."""
        palette = image.getpalette("RGB") or []
        used = np.flatnonzero(image.histogram()[:256]).tolist()
        lookup = np.full(256, IGNORED, np.uint8)
        seen = set()
        for index in used:
            colour = tuple(palette[3 * index : 3 * index + 3])
            if colour not in self.ids or colour in seen:
                return None
            seen.add(colour)
            lookup[index] = self.ids[colour]  # type: ignore[index]  # of three numbers
        return lookup


class UnknownValuesError(Exception):
    """Values in a mask that no class has."""

    def __init__(self, counts: Mapping[Value, int]) -> None:
        super().__init__(counts)
        self.counts = dict(counts)
        """Value or colour -> pixels."""


def _table(known: Mapping[int, int]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8]]:
    """Numbers in rising order, and the class id of each."""
    ordered = sorted(known)
    ids = [known[number] for number in ordered]
    return np.array(ordered, np.int32), np.array(ids, np.uint8)


def _looked_up(
    pixels: npt.NDArray[Any], numbers: npt.NDArray[np.int32], ids: npt.NDArray[np.uint8], *, colours: bool
) -> ClassIds:
    if pixels.dtype == np.uint8:  # the quick way of nearly all masks
        present = np.flatnonzero(np.bincount(pixels.ravel(), minlength=256))
    else:
        present = np.unique(pixels)
    unknown = np.setdiff1d(present, numbers)
    if unknown.size:
        counts: dict[Value, int] = {}
        for number in unknown.tolist():
            counts[unpacked(number) if colours else number] = int(np.count_nonzero(pixels == number))
        raise UnknownValuesError(counts)
    if pixels.dtype == np.uint8:
        ids, numbers = ids[numbers < 256], numbers[numbers < 256]
        table = np.full(256, IGNORED, np.uint8)
        table[numbers] = ids
        found: ClassIds = table[pixels]
    else:
        found = ids[np.searchsorted(numbers, pixels)]
    return found


def pixel_values(image: Image.Image) -> npt.NDArray[Any]:
    """Numbers (H, W), uint8 or int32, or uint8 RGB (H, W, 3) of an image of any mode; transparent pixels are black."""
    if image.mode in ("L", "P"):
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    if image.mode == "I" or image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.int32)
    if image.mode == "F":
        values = np.asarray(image)
        if not (values == np.round(values)).all():
            raise ImageError("has values between whole numbers, expected class ids")
        return values.astype(np.int32)
    if image.mode in ("LA", "La"):
        grey, alpha = np.moveaxis(np.asarray(image.convert("LA")), -1, 0)
        return np.where(alpha == 0, 0, grey).astype(np.uint8)
    if image.mode in ("RGBA", "PA", "RGBa"):
        pixels = np.asarray(image.convert("RGBA"))
        return np.where(pixels[..., 3:] == 0, 0, pixels[..., :3]).astype(np.uint8)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def open_mask(path: Path) -> Image.Image:
    """A label mask, decoded; as its file has it: not turned, no colour profile applied.

    Raises:
        ImageError: missing or unreadable.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.load()
            return image
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file, expected a label mask") from error
    except Exception as error:  # as in open_photo: decoders raise anything
        raise ImageError(f"{path}: no readable label mask ({' '.join(str(error).split())})") from error


@dataclass(frozen=True)
class MaskFile:
    """Labels that are an image file."""

    path: Path
    table: Coding = field(repr=False)

    @property
    def coding(self) -> str:
        return self.table.text

    def read(self) -> ClassIds:
        """Class ids, uint8 (H, W).

        Raises:
            ImageError: unreadable, or values that no class has; the latter has no cause.
        """
        image = open_mask(self.path)
        try:
            return self.table.class_ids(image)
        except UnknownValuesError as error:
            lossy = " (JPEG blurs values: export PNG)" if image.format in _LOSSY else ""
            raise UnknownClassError(self.path, error.counts, lossy) from None
        except ImageError as error:
            raise ImageError(f"{self.path}: {error}") from None


class UnknownClassError(ImageError):
    """A label mask has values or colours that no class has."""

    def __init__(self, path: Path, counts: Mapping[Value, int], note: str = "") -> None:
        self.path = path
        self.counts = dict(counts)
        """Value or colour -> pixels."""
        super().__init__(f"{path}: {describe(counts)} that no class has{note}")

    def __reduce__(self) -> tuple[Any, ...]:
        return UnknownClassError, (self.path, self.counts)


def describe(counts: Mapping[Value, int]) -> str:
    """``values 7 (34,112 pixels), 9 (12 pixels)``: the most frequent first."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    words = [f"{shown(value)} ({count:,} pixels)" for value, count in ordered[:MAX_SHOWN]]
    more = f" and {len(ordered) - MAX_SHOWN} more" if len(ordered) > MAX_SHOWN else ""
    kind = "colour" if isinstance(ordered[0][0], tuple) else "value"
    return f"{kind}{'s' if len(ordered) > 1 else ''} {', '.join(words)}{more}"


@dataclass(frozen=True)
class Found:
    """What values masks show."""

    values: Counter[int]
    """Number -> pixels, of all masks without colours."""
    colours: Counter[tuple[int, int, int]]
    """Colour -> pixels, of all masks with colours."""
    photos: tuple[Path, ...]
    """Files with so many values or colours that they are photos, overlays or blurred, no label masks."""
    lossy: tuple[Path, ...]
    """JPEG files."""
    read: int
    """Files that could be read."""


def look_at(paths: Sequence[Path]) -> Found:
    """Find the values that masks show; what cannot be read is passed over: reading it will say why."""
    with ThreadPoolExecutor(usable_cores()) as pool:
        looks = list(pool.map(_look, paths))
    values: Counter[int] = Counter()
    colours: Counter[tuple[int, int, int]] = Counter()
    photos, lossy, read = [], [], 0
    for path, look in zip(paths, looks, strict=True):
        if look is None:
            continue
        read += 1
        if look.lossy:
            lossy.append(path)
        if look.counts is None:
            photos.append(path)
        elif look.coloured:
            colours.update({unpacked(number): count for number, count in look.counts.items()})
        else:
            values.update(look.counts)
    return Found(values, colours, tuple(photos), tuple(lossy), read)


@dataclass(frozen=True)
class _Look:
    counts: dict[int, int] | None
    """Number, or packed colour -> pixels; None: too many."""
    coloured: bool
    lossy: bool


def _look(path: Path) -> _Look | None:
    try:
        image = open_mask(path)
        lossy = image.format in _LOSSY
        if image.mode in ("L", "P"):
            return _Look(_counted(image.histogram()), False, lossy)
        pixels = pixel_values(image)
    except ImageError:
        return None
    if pixels.ndim == 2:
        numbers, counts = np.unique(pixels, return_counts=True)
        return _Look(dict(zip(numbers.tolist(), counts.tolist(), strict=True)), False, lossy)
    found = Image.fromarray(pixels).getcolors(MAX_COLOURS)
    if found is None:
        return _Look(None, True, lossy)
    colours = {packed(colour): count for count, colour in found}  # type: ignore[arg-type]  # of RGB
    if all(_is_grey(number) for number in colours):
        return _Look({number & 255: count for number, count in colours.items()}, False, lossy)
    return _Look(colours, True, lossy)


def _is_grey(number: int) -> bool:
    red, green, blue = unpacked(number)
    return red == green == blue


def _counted(histogram: Iterable[int]) -> dict[int, int]:
    return {value: count for value, count in enumerate(histogram) if count}

"""Pictures of more than 8 bits -> 8 bits, by a rule that is stated: see ``grey_to_8_bit`` and ``deep_to_8_bit``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

_BAND_PIXELS = 1 << 20
_BITS = (8, 10, 12, 14, 16)
"""Significant bits of sensors and scanners; a picture is taken to have the fewest that hold its largest value."""

_SCALES = (255, 1023, 4095, 16383, 65535)
_SMALLEST = 32.0  # a float's largest value between 1 and this belongs to no scale
_MISSING = 1e30  # floats beyond stand for "no value", as NaN does

_OTHER_BYTES = {
    "RGB;16B": "RGB;16L",
    "RGB;16L": "RGB;16B",
    "RGBA;16B": "RGBA;16L",
    "RGBA;16L": "RGBA;16B",
    "RGB;16N": "RGB;16B" if sys.byteorder == "little" else "RGB;16L",
    "RGBA;16N": "RGBA;16B" if sys.byteorder == "little" else "RGBA;16L",
}
"""Pillow keeps a 16-bit channel's high byte; read in the other byte order, it keeps the low one."""


class _Scale(NamedTuple):
    low: float
    high: float
    note: str


def grey_to_8_bit(image: Image.Image, *, is_unsigned: bool = False) -> tuple[Image.Image, str]:
    """A picture of one channel of integers or floats (modes I, I;16.., F) -> mode L, and what was done, if unusual.

    Integers hold the fewest bits of 8, 10, 12, 14 and 16 that their largest value needs, and keep the top 8 of them.
    Floats up to 1 are shares of white. Floats from 32 on belong to the first of 255, 1023, 4095, 16383 and 65535 that
    holds the largest. All others (negative ones, too) are spread from the lowest to the highest. NaN and infinity are
    black.

    Args:
        image: decoded.
        is_unsigned: whether 32-bit integers, which Pillow takes for signed ones, are not.
    """
    kind = np.dtype(np.uint32) if is_unsigned and image.mode == "I" else None
    low, high = _range(image, kind)
    is_float = image.mode == "F"
    scale = _float_scale(low, high) if is_float else _integer_scale(int(low), int(high))
    result = Image.new("L", image.size)
    for top, values in _bands(image, kind):
        if is_float or scale.low:
            with np.errstate(all="ignore"):
                levels = np.rint((_finite(values, scale.low) - scale.low) * (255 / (scale.high - scale.low)))
            band = np.clip(levels, 0, 255).astype(np.uint8)
        else:
            shift = int(scale.high).bit_length() - 8
            band = (np.maximum(values, 0) >> shift).astype(np.uint8)
        result.paste(Image.fromarray(band), (0, top))
    return result, scale.note


def _bands(image: Image.Image, kind: np.dtype[Any] | None) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """(top, values) of bands of rows; ``kind`` is what the values' bytes really are, if not what the mode says."""
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        values = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
        yield top, values if kind is None else values.view(kind)


def _finite(values: npt.NDArray[Any], missing: float) -> npt.NDArray[Any]:
    if values.dtype.kind != "f":
        return values.astype(np.float64)
    return np.where(np.abs(values) < _MISSING, values, missing).astype(np.float64)


def _range(image: Image.Image, kind: np.dtype[Any] | None) -> tuple[float, float]:
    """(lowest, highest) value; 0 and 0 where there is none."""
    low, high = np.inf, -np.inf
    for _, values in _bands(image, kind):
        if values.dtype.kind == "f":
            values = values[np.abs(values) < _MISSING]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _integer_scale(low: int, high: int) -> _Scale:
    if low < 0:
        return _spread(low, high)
    for bits in _BITS:
        if high < 1 << bits:
            note = f"values up to {high} in 16 bits, taken for {bits} bits" if bits < 16 and high else ""
            return _Scale(0, (1 << bits) - 1, note)
    bits = high.bit_length()
    return _Scale(0, (1 << bits) - 1, f"values up to {high}, taken for {bits} bits")


def _float_scale(low: float, high: float) -> _Scale:
    if low < 0:
        return _spread(low, high)
    if high <= 1:
        return _Scale(0, 1, "")
    if high >= _SMALLEST:
        for most in _SCALES:
            if high <= most:
                return _Scale(0, most, f"floats up to {high:.6g}, taken for 0 to {most}")
    return _spread(low, high)


def _spread(low: float, high: float) -> _Scale:
    high = high if high > low else low + 1
    return _Scale(low, high, f"values {low:.6g} to {high:.6g}, spread from black to white")


def is_deep(image: Image.Image) -> bool:
    """Whether a colour picture, not yet decoded, has 16 bits a channel, of which Pillow keeps the upper 8."""
    tiles: list[Any] = getattr(image, "tile", None) or []
    return bool(tiles) and _raw_mode(tiles[0]) in _OTHER_BYTES


def may_hold_fewer_bits(image: Image.Image) -> bool:
    """Whether the upper bytes of a deep picture, decoded, are so small that the file may hold 14 bits or fewer."""
    highest = _channel_maxima(image)
    return max(highest[:3]) < 64


def _channel_maxima(image: Image.Image) -> list[int]:
    maxima = []
    counts = np.array(image.histogram()).reshape(-1, 256)
    for channel in counts:
        maxima.append(int(np.flatnonzero(channel)[-1]))
    return maxima


def read_low_bytes(image: Any) -> None:
    """Make a deep picture, opened and not yet decoded, decode the lower byte of each channel instead of the upper."""
    for index, tile in enumerate(image.tile):
        args = tile.args
        name = _OTHER_BYTES[_raw_mode(tile)]
        image.tile[index] = tile._replace(args=(name, *args[1:]) if isinstance(args, tuple) else name)


def _raw_mode(tile: Any) -> str:
    args = tile.args if hasattr(tile, "args") else tile[3]
    name = args[0] if isinstance(args, tuple) and args else args
    return name if isinstance(name, str) else ""


def deep_to_8_bit(image: Image.Image, low: Image.Image) -> str:
    """Scale a colour picture of 16 bits a channel to the bits that it holds, in place.

    Args:
        image: its upper bytes.
        low: its lower bytes.

    Returns:
        What was done.
    """
    maxima = _channel_maxima(image)
    highest = max(maxima[:3])
    bits = next(known for known in _BITS if highest << 8 < 1 << known)
    if highest == 0 and max(_channel_maxima(low)[:3]) == 0:
        return ""  # black
    upper = [min(255, value << (16 - bits)) for value in range(256)]
    lower = [value >> (bits - 8) for value in range(256)]
    keeps_alpha = len(maxima) == 4 and maxima[3] > highest and maxima[3] << 8 >= 1 << bits
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        band = np.asarray(image.crop(box))
        scaled = np.array(upper, np.uint8)[band] | np.array(lower, np.uint8)[np.asarray(low.crop(box))]
        if keeps_alpha:
            scaled[..., 3] = band[..., 3]
        image.paste(Image.fromarray(scaled), (0, top))
    return f"16 bits a channel that hold {bits}: taken for {bits} bits"

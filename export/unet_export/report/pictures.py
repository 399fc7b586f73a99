"""The page's bars and pictures: lengths in percent for its template, images as data URIs."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from unet_export.gate.gate import EngineResult, Panel
from unet_export.gate.tally import DECADES
from unet_export.report.numbers import power
from unet_runtime.core.render import palette_image
from unet_runtime.core.spec import ModelSpec

_SIDE = 320
"""Longest side of an embedded picture, pixels: keeps a page with many artifacts under 3 MB."""

_JPEG_QUALITY = 85

DIFFERENT = (255, 0, 170)
"""RGB of a pixel whose class differs, on a grey photo."""


class Bar(NamedTuple):
    """One row of a histogram."""

    label: str
    counted: int
    length: float
    """Percent of the longest possible bar; logarithmic."""
    exceeds: bool
    """True if these differences are beyond the tolerance."""


def histogram(entry: EngineResult, max_abs: float) -> list[Bar]:
    """A bar for each decade of |dp|, from the first that has a difference to the last; ``max_abs``: the tolerance."""
    filled = np.flatnonzero(entry.histogram)
    if not filled.size:
        return []
    # A single difference must be visible: the axis begins at 0.5.
    longest = math.log(2 * max(entry.histogram))
    bars = []
    for index in range(filled[0], filled[-1] + 1):
        count = entry.histogram[index]
        length = 100 * math.log(2 * count) / longest if count else 0.0
        bars.append(Bar(_range(index), count, length, count > 0 and 10.0 ** DECADES[index] >= max_abs))
    return bars


def _range(index: int) -> str:
    """The differences that one decade of a histogram counts."""
    if index == 0:
        return f"below {power(DECADES[1])}"
    if index == len(DECADES) - 1:
        return "1 and above, or NaN"
    return f"{power(DECADES[index])} to {power(DECADES[index] + 1)}"


def lengths(values: Sequence[float | None]) -> list[float]:
    """Length of a bar for each value, percent of the longest; 0 for None."""
    numbers = np.abs(np.array(values, float))  # None becomes NaN
    largest = np.nanmax(numbers, initial=0.0)
    result: list[float] = np.nan_to_num(100 * numbers / (largest or 1.0)).tolist()
    return result


def pictures(panel: Panel, spec: ModelSpec) -> dict[str, str]:
    """Data URIs, by caption, of the photo, both masks in the spec's colours, and where they differ.

    Each has at most ``_SIDE`` pixels per side.
    """
    photo = Image.fromarray(panel.image)
    photo.thumbnail((_SIDE, _SIDE), Image.Resampling.BILINEAR)
    uris = {"photo": _uri(photo, "JPEG", quality=_JPEG_QUALITY)}
    for caption, mask in (("Keras", panel.expected), ("artifact", panel.actual)):
        small = palette_image(mask, spec).resize(photo.size, Image.Resampling.NEAREST)
        uris[caption] = _uri(small, "PNG", optimize=True)
    # A pixel is marked where any of those it stands for differs, lest a thin line be lost.
    share = Image.fromarray((panel.expected != panel.actual).astype(np.float32))
    different = np.asarray(share.resize(photo.size, Image.Resampling.BOX)) > 0
    # The photo in pale grey, in few levels so that it packs well.
    grey = np.asarray(photo.convert("L")).astype(np.uint16)  # (h, w)
    levels = (120 + grey * 120 // 255) // 8  # 15 to 30
    marked = Image.fromarray(np.where(different, 0, levels).astype(np.uint8), "L").convert("P")
    marked.putpalette([*DIFFERENT, *(np.arange(1, 32).repeat(3) * 8).tolist()])
    return uris | {"difference": _uri(marked, "PNG", optimize=True)}


def _uri(image: Image.Image, kind: str, **settings: int | bool) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"

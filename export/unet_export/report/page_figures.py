"""Geometry of the page's charts, which its template draws as SVG, and its pictures, embedded.

Coordinates are in units of each chart's own view box, y downwards.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_export.gate.gate import EngineResult, ParityResult
from unet_export.gate.panels import Panel
from unet_export.gate.tally import DECADES
from unet_runtime.core.render import palette_image
from unet_runtime.core.spec import ModelSpec

_WIDTH, _HEIGHT = 320.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 10.0, 10.0, 40.0
"""Between the view box and the plot's area."""

_LABEL = 28.0
"""Width of a tick's label."""

_SIDE = 320
"""Longest side of an embedded picture, pixels: keeps a page with many artifacts under 3 MB."""

_JPEG_QUALITY = 85

DIFFERENT = (255, 0, 170)
"""RGB of a pixel whose class differs, on a grey photo."""

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Tick(NamedTuple):
    at: float
    label: str


class Bar(NamedTuple):
    x: float
    y: float
    width: float
    height: float
    words: str
    """What it stands for."""


@dataclass(frozen=True)
class Area:
    """View box and the plot's area in it."""

    width: float = _WIDTH
    height: float = _HEIGHT
    left: float = _LEFT
    right: float = _WIDTH - _RIGHT
    top: float = _TOP
    bottom: float = _HEIGHT - _BOTTOM


AREA = Area()


@dataclass(frozen=True)
class Histogram:
    """Of |dp|, both axes logarithmic."""

    file: str
    engine: str
    bars: Sequence[Bar]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    tolerance: float | None
    """Where the gate's largest |dp| is; None where any is allowed."""
    percentile: float | None
    """Where the 99.9 percentile is; None for NaN."""
    alt: str


def histogram(result: ParityResult, entry: EngineResult) -> Histogram | None:
    """None where nothing was counted."""
    if entry.figures is None or not any(entry.histogram):
        return None
    top = math.ceil(math.log10(max(entry.histogram))) or 1
    step = (AREA.right - AREA.left) / len(DECADES)
    bars = []
    for index, count in enumerate(entry.histogram):
        if count:
            # A single difference must be seen: the axis begins below 1.
            height = (math.log10(count) + 0.3) / (top + 0.3) * (AREA.bottom - AREA.top)
            words = f"{_range(index)}: {count:,}"
            bars.append(Bar(AREA.left + index * step + 1, AREA.bottom - height, step - 2, height, words))
    y_step = -(-top // 4)
    return Histogram(
        file=result.path.name,
        engine=entry.engine,
        bars=bars,
        x_ticks=[Tick(AREA.left + k * step, power(DECADES[k])) for k in range(1, len(DECADES), 2)],
        y_ticks=[
            Tick(AREA.bottom - (k + 0.3) / (top + 0.3) * (AREA.bottom - AREA.top), power(k))
            for k in range(0, top + 1, y_step)
        ],
        tolerance=_place(result.gate.max_abs) if result.gate.max_abs < 1 else None,
        percentile=_place(entry.figures.p999_abs),
        alt=f"Counts of |dp|: {'; '.join(bar.words for bar in bars)}.",
    )


def _range(index: int) -> str:
    """Of a histogram's column, in words."""
    if index == 0:
        return f"below {power(DECADES[1])}"
    if index == len(DECADES) - 1:
        return "1 and above, or not a number"
    return f"{power(DECADES[index])} to {power(DECADES[index] + 1)}"


def _place(value: float) -> float | None:
    """x of a |dp|."""
    if math.isnan(value):
        return None
    decade = math.log10(value) if value > 0 else -math.inf
    share = (min(max(decade, DECADES[0]), DECADES[-1] + 1) - DECADES[0]) / len(DECADES)
    return AREA.left + share * (AREA.right - AREA.left)


def power(exponent: int) -> str:
    """``10⁻³``; 1 and 10 as they are."""
    return {0: "1", 1: "10"}.get(exponent, "10" + str(exponent).translate(_SUPERSCRIPTS))


class Line(NamedTuple):
    label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class LineChart:
    """Something against the number of calibration photos, which is on a logarithmic axis."""

    title: str
    lines: Sequence[Line]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]


def line_chart(
    title: str, photos: Sequence[int], series: Sequence[tuple[str, Sequence[float | None]]], with_zero: bool
) -> LineChart | None:
    """None where nothing is known.

    Args:
        title: with the unit.
        photos: of each point, above 0.
        series: label and values of each line, None where there is none.
        with_zero: whether the axis must show 0.
    """
    known = [value for _, values in series for value in values if value is not None and math.isfinite(value)]
    if not known:
        return None
    ticks = _round_numbers(min(known + [0.0] * with_zero), max(known + [0.0] * with_zero))
    low, high = ticks[0], ticks[-1]
    first, last = math.log(min(photos)), math.log(max(photos))

    def x(count: int) -> float:
        share = (math.log(count) - first) / (last - first) if last > first else 0.5
        return AREA.left + 12 + share * (AREA.right - AREA.left - 24)

    def y(value: float) -> float:
        return AREA.bottom - (value - low) / (high - low) * (AREA.bottom - AREA.top)

    lines = [
        Line(label, [(x(n), y(v)) for n, v in zip(photos, values, strict=True) if v is not None and math.isfinite(v)])
        for label, values in series
    ]
    return LineChart(
        title,
        [line for line in lines if line.points],
        _apart([Tick(x(count), f"{count:,}") for count in sorted(set(photos))]),
        [Tick(y(value), f"{value:g}".replace("-", "\N{MINUS SIGN}")) for value in ticks],
    )


def _apart(ticks: Sequence[Tick]) -> list[Tick]:
    """Those far enough from the one before for both labels."""
    chosen: list[Tick] = []
    for tick in ticks:
        if not chosen or tick.at - chosen[-1].at >= _LABEL:
            chosen.append(tick)
    return chosen


def _round_numbers(low: float, high: float) -> list[float]:
    """Three to seven evenly spaced numbers of few digits, from ``low`` or below to ``high`` or above."""
    span = high - low or max(abs(high), 1.0) / 10
    unit = 10.0 ** math.floor(math.log10(span / 4))
    step = next(unit * factor for factor in (1, 2, 5, 10) if span / (unit * factor) <= 4)
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 12) for k in range(start, max(end, start + 2) + 1)]


class Pictures(NamedTuple):
    """Of one photo, as data URIs."""

    photo: str
    expected: str
    actual: str
    difference: str


def pictures(panel: Panel, spec: ModelSpec) -> Pictures:
    """The photo, both masks in the spec's colours, and where they differ, each at most ``_SIDE`` pixels a side."""
    photo = Image.fromarray(panel.image)
    size = _shown_size(photo.size)
    small = photo.resize(size, Image.Resampling.BILINEAR)
    different = _reduced(panel.expected != panel.actual, size)
    return Pictures(
        photo=_uri(small, "JPEG", quality=_JPEG_QUALITY),
        expected=_mask(panel.expected, spec, size),
        actual=_mask(panel.actual, spec, size),
        difference=_uri(_highlighted(small, different), "PNG", optimize=True),
    )


def _shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """(width, height)."""
    factor = min(1.0, _SIDE / max(size))
    width, height = (max(1, round(side * factor)) for side in size)
    return width, height


def _mask(mask: npt.NDArray[np.uint8], spec: ModelSpec, size: tuple[int, int]) -> str:
    return _uri(palette_image(mask, spec).resize(size, Image.Resampling.NEAREST), "PNG", optimize=True)


def _reduced(different: npt.NDArray[np.bool_], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """(h, w) at ``size``: true wherever any of the pixels there was, lest a thin line be lost."""
    share = Image.fromarray(different.astype(np.float32)).resize(size, Image.Resampling.BOX)
    return np.asarray(share) > 0


def _highlighted(photo: Image.Image, different: npt.NDArray[np.bool_]) -> Image.Image:
    """The photo in pale grey, few levels of it so that it packs well, with the pixels that differ in colour."""
    grey = np.asarray(photo.convert("L")).astype(np.uint16)
    levels = (120 + grey * 120 // 255) // 8  # (h, w), 15 to 30
    values = np.where(different, 0, levels).astype(np.uint8)
    image = Image.frombytes("P", photo.size, values.tobytes())
    image.putpalette([*DIFFERENT, *(value * 8 for value in range(1, 32) for _ in "rgb")])
    return image


def _uri(image: Image.Image, kind: str, **settings: int | bool) -> str:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"

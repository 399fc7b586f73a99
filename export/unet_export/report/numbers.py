"""Numbers as the page writes them."""

from __future__ import annotations

import math
from typing import Any

NONE = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def milliseconds(value: float | None) -> str:
    """Three digits or so."""
    if value is None:
        return NONE
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def scientific(value: float) -> str:
    """A |dp|: ``3.12e-6``."""
    if math.isnan(value):
        return "NaN"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return "0" if value == 0 else f"{mantissa}e{int(exponent)}".replace("-", _MINUS)


def tolerance(value: float) -> str:
    """A tolerance as a person would type it: ``1e-5``, ``99.5``."""
    if math.isnan(value):
        return "none"
    mantissa, e, exponent = f"{value:.6g}".partition("e")
    return (f"{mantissa}e{int(exponent)}" if e else mantissa).replace("-", _MINUS)


def percent(share: float) -> str:
    """A share in 0..1 in percent, rounded down: only 1 is 100."""
    return "NaN" if math.isnan(share) else f"{math.floor(share * 1e5 + 1e-7) / 1e3:.3f}"


def iou(value: float | None) -> str:
    """An IoU in 0..1: four decimals."""
    return NONE if value is None else f"{value:.4f}"


NOISE = 0.1
"""Percentage points of IoU below which two masks of some hundred photos are not told apart."""


def signed(points: float | None) -> str:
    """Percentage points with their sign and two digits; what is noise is no gain and no loss."""
    if points is None:
        return NONE
    size = abs(round(points, 3))
    if size < NOISE:
        return "≈ 0"
    digits = 2 if size < 1 else 1 if size < 10 else 0
    return f"{points:+.{digits}f}".replace("-", _MINUS)


def power(exponent: int) -> str:
    """``10⁻³``; 1 and 10 as they are."""
    return {0: "1", 1: "10"}.get(exponent, "10" + str(exponent).translate(_SUPERSCRIPTS))


def setting(value: Any) -> str:
    """A quantiser's setting in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    return str(value)

"""How equal is equal: tolerances, figures, and the verdict on an artifact.

Comparisons are written so that NaN fails.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from unet_export.errors import ExportError
from unet_export.gate.panels import Panel


@dataclass(frozen=True)
class Gate:
    """How far an artifact may be from the trained model."""

    max_abs: float
    """Largest difference of one probability."""
    agreement: float
    """Least share of pixels (0..1) with the same most probable class."""
    iou_drop: float
    """Most percentage points of mean IoU lost, against the truth."""
    border_drop: float
    """Most percentage points lost by the neutral class, which every quantiser hurts first."""


# Single probabilities may differ at will in integers, as long as decisions do not; 1.0 still refuses NaN.
_INTEGER_GATE = Gate(max_abs=1.0, agreement=0.99, iou_drop=0.3, border_drop=0.5)

GATES = {
    # The same arithmetic in another order: differences are rounding.
    "float32": Gate(max_abs=1e-5, agreement=0.9999, iou_drop=0.05, border_drop=0.05),
    "float16": Gate(max_abs=5e-3, agreement=0.999, iou_drop=0.05, border_drop=0.1),
    "dynamic-range": _INTEGER_GATE,
    "int8": _INTEGER_GATE,
    "int16x8": _INTEGER_GATE,
}
"""By precision."""

_CRITERIA = tuple(entry.name for entry in fields(Gate))


def changed_gates(settings: Sequence[str]) -> dict[str, Gate]:
    """``GATES`` with each ``PRECISION.CRITERION=VALUE`` of ``settings`` applied, such as ``int8.agreement=0.98``.

    Raises:
        ExportError: none of that form, or no such precision or criterion.
    """
    gates = dict(GATES)
    for setting in settings:
        key, _, text = setting.partition("=")
        precision, _, criterion = key.partition(".")
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if precision not in gates or criterion not in _CRITERIA or not value >= 0:
            raise ExportError(
                f"gate {setting!r}: expected PRECISION.CRITERION=VALUE, as int8.agreement=0.98: PRECISION one of "
                f"{', '.join(gates)}, CRITERION one of {', '.join(_CRITERIA)}, VALUE a number from 0 up"
            )
        gates[precision] = replace(gates[precision], **{criterion: value})
    return gates


class Figures(NamedTuple):
    """What was measured of one artifact in one engine against the trained model."""

    max_abs: float
    """Largest difference of one probability."""
    p999_abs: float
    """99.9 % of the differences are at most this."""
    mean_abs: float
    agreement: float
    """Share of pixels (0..1) with the same most probable class."""
    keras_mean_iou: float
    """Of its masks with the trained model's in the truth's place, 0..1."""
    keras_border_iou: float | None
    """Of the neutral class; None where no class has that role."""
    reference_mean_iou: float | None
    """Of the trained model against the trimaps at model size, 0..1; None without trimaps."""
    reference_border_iou: float | None
    mean_iou: float | None
    """Of the artifact, likewise."""
    border_iou: float | None

    @property
    def iou_change(self) -> float | None:
        """Percentage points of mean IoU against the trained model; negative is worse."""
        return _points(self.mean_iou, self.reference_mean_iou)

    @property
    def border_change(self) -> float | None:
        return _points(self.border_iou, self.reference_border_iou)


def _points(actual: float | None, reference: float | None) -> float | None:
    return None if actual is None or reference is None else (actual - reference) * 100


@dataclass(frozen=True)
class EngineResult:
    """One artifact in one engine."""

    backend: str
    """``onnx``, ``openvino``, ``tflite`` or ``tensorflow``."""
    device: str
    """``cpu`` or ``cuda``."""
    engine: str
    """With its version, for people: ``ONNX Runtime 1.31.1``."""
    figures: Figures | None
    """None where it was not checked."""
    histogram: tuple[int, ...] = ()
    """How many differences fell between 10^k and 10^(k + 1), each k of ``tally.DECADES``; the first has all below."""
    milliseconds: float | None = None
    """A photo, median, batch 1; taken in turns with every other artifact of the same export."""
    not_checked: str = ""
    """Why: the engine is not installed, or not able here. Never a pass."""
    failures: tuple[str, ...] = ()
    """Every criterion that failed, with its number and its tolerance; or what broke."""

    @property
    def verdict(self) -> str:
        return "not checked" if self.not_checked else "FAILED" if self.failures else "passed"


@dataclass(frozen=True)
class ParityResult:
    """What the gate found of one artifact."""

    format: str
    """As ``--formats`` takes it."""
    precision: str
    path: Path
    """Where it was checked."""
    size: int
    """Bytes."""
    sha256: str
    """Of the file; of a SavedModel's own list of its files' sums."""
    gate: Gate
    engines: tuple[EngineResult, ...]
    quantization: dict[str, Any]
    """As its spec records it; empty for a float file."""
    panels: tuple[Panel, ...] = ()
    """Of the first engine that ran it: the photo on which it differs most, and some that nobody chose."""

    @property
    def failures(self) -> tuple[str, ...]:
        """Empty means passed: unseen is not accepted."""
        found = [f"{entry.engine}: {text}" for entry in self.engines for text in entry.failures]
        if all(entry.not_checked for entry in self.engines):
            found.append("; ".join(f"not checked: {entry.not_checked}" for entry in self.engines))
        return tuple(found)

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def checked(self) -> tuple[EngineResult, ...]:
        """Those with figures."""
        return tuple(entry for entry in self.engines if entry.figures is not None)


def judge(figures: Figures, gate: Gate) -> tuple[str, ...]:
    """Every criterion that ``figures`` fail, with its number, its tolerance and the tolerance that would pass; NaN
    fails each it is in, and what could not be measured for want of trimaps or of such a class is not asked."""
    smallest = smallest_gate(figures)
    criteria = [
        (figures.max_abs <= gate.max_abs, f"max|dp| {figures.max_abs:.3g}, tolerance {gate.max_abs:g}", "max_abs"),
        (
            figures.agreement >= gate.agreement,
            f"agreement {figures.agreement:.3%}, at least {gate.agreement:.2%}",
            "agreement",
        ),
    ]
    for change, limit, what, name in (
        (figures.iou_change, gate.iou_drop, "mean IoU", "iou_drop"),
        (figures.border_change, gate.border_drop, "border IoU", "border_drop"),
    ):
        if change is not None:
            criteria.append((-change <= limit, f"{what} drops {-change:.3f} points, tolerance {limit:g}", name))
    return tuple(
        text + ("" if math.isnan(getattr(smallest, name)) else f" (would pass at {getattr(smallest, name):g})")
        for met, text, name in criteria
        if not met
    )


def smallest_gate(figures: Figures) -> Gate:
    """The strictest gate that ``figures`` pass, its tolerances rounded to what a person would type."""
    return Gate(
        max_abs=_round_up(figures.max_abs),
        agreement=figures.agreement if math.isnan(figures.agreement) else math.floor(figures.agreement * 1e5) / 1e5,
        iou_drop=_drop(figures.iou_change),
        border_drop=_drop(figures.border_change),
    )


def _drop(change: float | None) -> float:
    """Points lost, rounded up to a hundredth; 0 where nothing is lost or known."""
    if change is None or change >= 0:
        return 0.0
    return change if math.isnan(change) else math.ceil(-change * 100) / 100


def _round_up(value: float) -> float:
    """To two significant digits, never below ``value``."""
    if not value > 0 or math.isinf(value):
        return value
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    rounded = float(f"{math.ceil(value / step) * step:.2g}")
    return rounded if rounded >= value else float(f"{(math.ceil(value / step) + 1) * step:.2g}")

"""Tolerances, metrics, and the verdict on an artifact. Comparisons are written so that NaN fails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unet_export.errors import ExportError
from unet_runtime.core.errors import GATE, UnetRuntimeError


@dataclass(frozen=True)
class Gate:
    """Tolerances: how far an artifact may be from the trained model."""

    max_abs: float
    """Largest difference of a probability."""
    agreement: float
    """Smallest share of pixels (0..1) with the same most probable class."""
    iou_drop: float
    """Largest loss of mean IoU against the trimaps, percentage points."""
    border_drop: float
    """Largest loss of the neutral class's IoU, which every quantiser hurts first, percentage points."""


# Single probabilities of integer files may differ at will, as long as decisions do not; 1.0 still refuses NaN.
_INTEGER_GATE = Gate(max_abs=1.0, agreement=0.99, iou_drop=0.3, border_drop=0.5)

GATES = {
    # The same arithmetic in another order: differences are rounding.
    "float32": Gate(max_abs=1e-5, agreement=0.9999, iou_drop=0.05, border_drop=0.05),
    "float16": Gate(max_abs=5e-3, agreement=0.999, iou_drop=0.05, border_drop=0.1),
    "dynamic-range": _INTEGER_GATE,
    "int8": _INTEGER_GATE,
    "int16x8": _INTEGER_GATE,
}
"""Tolerances by precision."""

_CRITERIA = tuple(Gate.__dataclass_fields__)


def changed_gates(settings: Sequence[str]) -> dict[str, Gate]:
    """``GATES`` with each ``PRECISION.CRITERION=VALUE`` of ``settings`` applied, such as ``int8.agreement=0.98``.

    Raises ExportError for a setting of another form, or no such precision or criterion.
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


class Metrics(NamedTuple):
    """Metrics of one artifact in one engine; IoU in 0..1."""

    max_abs: float
    """Largest difference of a probability from the trained model's."""
    p999_abs: float
    """99.9th percentile of these differences."""
    mean_abs: float
    agreement: float
    """Share of pixels (0..1) with the same most probable class as the trained model."""
    keras_mean_iou: float
    """Mean IoU of the artifact's masks with the trained model's in place of the ground truth."""
    keras_border_iou: float | None
    """IoU of the neutral class, likewise; None where no class has that role."""
    reference_mean_iou: float | None
    """Mean IoU of the trained model against the trimaps at model size; None without trimaps."""
    reference_border_iou: float | None
    """IoU of the trained model's neutral class, likewise."""
    mean_iou: float | None
    """Mean IoU of the artifact against the trimaps, likewise."""
    border_iou: float | None
    """IoU of the artifact's neutral class, likewise."""

    @property
    def disagreement(self) -> float:
        return 1 - self.agreement

    @property
    def iou_change(self) -> float | None:
        """Change of mean IoU against the trained model, percentage points; negative is worse."""
        return _points(self.mean_iou, self.reference_mean_iou)

    @property
    def border_change(self) -> float | None:
        """Change of the neutral class's IoU, likewise."""
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
    """Name and version of the engine: ``ONNX Runtime 1.31.1``."""
    metrics: Metrics | None
    """None where the artifact was not checked."""
    histogram: tuple[int, ...] = ()
    """Number of differences from 10^k to 10^(k + 1) for each k of ``tally.DECADES``; the first counts all below."""
    milliseconds: float | None = None
    """Median time per photo, batch 1; measured in turns with every other artifact of the same export."""
    not_checked: str = ""
    """Reason: the engine is not installed, or cannot run here. Never a pass."""
    failures: tuple[str, ...] = ()
    """Every criterion that failed, with its number and its tolerance; or what broke."""

    @property
    def verdict(self) -> str:
        return "not checked" if self.not_checked else "FAILED" if self.failures else "passed"


def masks_of(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Probabilities (..., classes) -> class ids (...)."""
    masks: npt.NDArray[np.uint8] = probabilities.argmax(axis=-1).astype(np.uint8)
    return masks


@dataclass(frozen=True, eq=False)
class Panel:
    """One photo of the proof with the masks of the trained model and of one artifact, for people to look at."""

    name: str
    image: npt.NDArray[np.uint8]
    """The pixels that the masks cover, as fed to the model: (h, w, 3), RGB in 0..255."""
    expected: npt.NDArray[np.uint8]
    """Class ids (h, w) of the trained model."""
    actual: npt.NDArray[np.uint8]
    """Class ids (h, w) of the artifact."""

    @property
    def agreement(self) -> float:
        """Share of pixels (0..1) with the same class."""
        return float((self.expected == self.actual).mean())


@dataclass(frozen=True)
class ParityResult:
    """Result of the gate for one artifact."""

    format: str
    """Name as ``--formats`` takes it."""
    precision: str
    path: Path
    """File or folder that was checked."""
    size: int
    """Bytes."""
    sha256: str
    """SHA-256 of the file, or of a SavedModel's own list of its files' sums."""
    gate: Gate
    engines: tuple[EngineResult, ...]
    quantization: dict[str, Any]
    """Settings that its spec records; empty for a float file."""
    panels: tuple[Panel, ...] = ()
    """The photo on which an integer artifact differs most, and the first ones; empty for a float file."""

    @property
    def failures(self) -> tuple[str, ...]:
        """Empty if it passed. What no engine checked has failed."""
        found: list[str] = []
        for entry in self.engines:
            found += map(f"{entry.engine}: {{}}".format, entry.failures)
        reasons = list(map(attrgetter("not_checked"), self.engines))
        if all(reasons):
            found.append("; ".join(map("not checked: {}".format, reasons)))
        return tuple(found)

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def checked(self) -> tuple[EngineResult, ...]:
        """Engines that have metrics."""
        return tuple(filter(attrgetter("metrics"), self.engines))


class ParityError(UnetRuntimeError):
    """The gate failed: nothing was accepted."""

    exit_code = GATE

    def __init__(self, message: str, results: list[ParityResult]) -> None:
        super().__init__(message)
        self.results = results
        """Results of all artifacts, including those that passed."""


def judge(metrics: Metrics, gate: Gate) -> tuple[str, ...]:
    """Every criterion that ``metrics`` fail, with its number, its tolerance and the tolerance that would pass.

    NaN fails. What could not be measured for want of trimaps or of a neutral class is not asked.
    """
    needed = smallest_gate(metrics)
    failures = []
    if not metrics.max_abs <= gate.max_abs:
        text = f"max|dp| {metrics.max_abs:.3g}, tolerance {gate.max_abs:g}"
        failures.append(text + _would_pass(needed.max_abs))
    if not metrics.agreement >= gate.agreement:
        text = f"agreement {metrics.agreement:.3%}, at least {gate.agreement:.2%}"
        failures.append(text + _would_pass(needed.agreement))
    for name, change, tolerance, would_pass in (
        ("mean IoU", metrics.iou_change, gate.iou_drop, needed.iou_drop),
        ("border IoU", metrics.border_change, gate.border_drop, needed.border_drop),
    ):
        if change is not None and not -change <= tolerance:
            text = f"{name} drops {-change:.3f} points, tolerance {tolerance:g}"
            failures.append(text + _would_pass(would_pass))
    return tuple(failures)


def _would_pass(tolerance: float) -> str:
    return "" if math.isnan(tolerance) else f" (would pass at {tolerance:g})"


def smallest_gate(metrics: Metrics) -> Gate:
    """The strictest gate that ``metrics`` pass, its tolerances rounded to what a person would type."""
    agreement = metrics.agreement
    return Gate(
        max_abs=_round_up(metrics.max_abs),
        agreement=agreement if math.isnan(agreement) else math.floor(agreement * 1e5) / 1e5,
        iou_drop=_drop(metrics.iou_change),
        border_drop=_drop(metrics.border_change),
    )


def _drop(change: float | None) -> float:
    """Points lost, rounded up to a hundredth; 0 where nothing is lost or known."""
    if change is None or change >= 0:
        return 0.0
    return change if math.isnan(change) else math.ceil(-change * 100) / 100


def _round_up(value: float) -> float:
    """Round to two significant digits, never below ``value``."""
    return float(Context(prec=2, rounding=ROUND_CEILING).create_decimal(repr(value)))

"""Tolerances, metrics, and the verdict on an artifact. Comparisons are written so that NaN fails."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unet_export.errors import ExportError
from unet_runtime.core.errors import GATE, UnetRuntimeError
from unet_runtime.core.metrics import mean_iou


@dataclass(frozen=True)
class Gate:
    """Tolerances: how far an artifact may be from the trained model."""

    max_abs: float
    """Largest difference of a probability."""
    agreement: float
    """Smallest share of pixels (0..1) with the same most probable class."""
    iou_drop: float
    """Largest loss of mean IoU against the ground truth, percentage points."""
    class_drop: float
    """Largest loss of any class's IoU, percentage points: a mean hides the class that a quantiser hurts."""
    margin: float = 0.0
    """Agreement counts pixels where the model's best class leads the second by more than this probability: elsewhere
    the class is a toss-up, which any rounding decides anew. 0: all pixels."""


_FLOAT16_GATE = Gate(max_abs=5e-3, agreement=0.999, iou_drop=0.05, class_drop=0.1)

# Single probabilities of integer files may differ at will, as long as decisions do not; 1.0 still refuses NaN.
_INTEGER_GATE = Gate(max_abs=1.0, agreement=0.99, iou_drop=0.3, class_drop=0.5)

GATES = {
    # The same arithmetic in another order: differences are rounding.
    "float32": Gate(max_abs=1e-5, agreement=0.9999, iou_drop=0.05, class_drop=0.05),
    "float16": _FLOAT16_GATE,
    "float16-weights": _FLOAT16_GATE,
    "dynamic-range": _INTEGER_GATE,
    "int8": _INTEGER_GATE,
    "int16x8": _INTEGER_GATE,
    "mixed": _INTEGER_GATE,
}
"""Tolerances by precision."""

UNSURE_MARGIN = 0.1
"""A lead of a probability that rounding to 8 bits may undo: a logit's step or two where two classes share a pixel."""

_LEAST_SURE = 0.5
"""Share of pixels that must have the margin, or agreement is judged on all: little would be judged."""

FOREIGN_GATES = {
    name: replace(gate, margin=UNSURE_MARGIN) if gate is _INTEGER_GATE else gate for name, gate in GATES.items()
}
"""The same for models that unet-train did not make: those trained for minutes are unsure of many pixels, which says
nothing of their files. IoU is judged on all pixels as ever."""

_CRITERIA = tuple(Gate.__dataclass_fields__)


def changed_gates(settings: Sequence[str], start: Mapping[str, Gate] = GATES) -> dict[str, Gate]:
    """``start`` with each ``PRECISION.CRITERION=VALUE`` of ``settings`` applied, such as ``int8.agreement=0.98``.

    Raises ExportError for a setting of another form, or no such precision or criterion.
    """
    gates = dict(start)
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
    keras_iou: Mapping[str, float]
    """IoU of each class of the artifact's masks with the trained model's in place of the ground truth; NaN for a class
    that neither has."""
    reference_iou: Mapping[str, float]
    """IoU of each class of the trained model against the ground truth at model size, likewise; empty without one."""
    iou: Mapping[str, float]
    """IoU of each class of the artifact against the ground truth, likewise."""
    pixels: Mapping[str, int]
    """Pixels of each class that the ground truth has, at model size; empty without one."""
    sure: float = 1.0
    """Share of pixels (0..1) where the trained model's best class has the gate's margin."""
    sure_agreement: float = math.nan
    """``agreement`` on these; NaN where the gate has no margin, or none has it."""

    @property
    def disagreement(self) -> float:
        return 1 - self.agreement

    @property
    def keras_mean_iou(self) -> float:
        return _mean(self.keras_iou)

    @property
    def keras_lowest_iou(self) -> float:
        known = [score for score in self.keras_iou.values() if not math.isnan(score)]
        return min(known, default=math.nan)

    @property
    def reference_mean_iou(self) -> float | None:
        """As ``core.metrics.mean_iou``; None without ground truth."""
        return _mean(self.reference_iou) if self.pixels else None

    @property
    def mean_iou(self) -> float | None:
        """As ``core.metrics.mean_iou``; None without ground truth."""
        return _mean(self.iou) if self.pixels else None

    @property
    def iou_changes(self) -> dict[str, float]:
        """Change of the IoU of each class that the ground truth has, percentage points; negative is worse. One pixel
        of another class in the artifact's masks, or in the trained model's, changes no mean over these."""
        return {name: (self.iou[name] - self.reference_iou[name]) * 100 for name in self.pixels}

    @property
    def iou_change(self) -> float | None:
        """Mean of ``iou_changes``; None without ground truth."""
        return float(np.mean(list(self.iou_changes.values()))) if self.pixels else None

    @property
    def worst_class(self) -> str:
        """The class that loses most; empty without ground truth."""
        changes = self.iou_changes
        return min(changes, key=lambda name: -math.inf if math.isnan(changes[name]) else changes[name], default="")

    @property
    def worst_change(self) -> float | None:
        """Its change; None without ground truth."""
        return self.iou_changes[self.worst_class] if self.pixels else None

    def one_pixel(self, name: str) -> float:
        """Percentage points of IoU that one pixel makes, about, in a class that the ground truth has."""
        return 100 / self.pixels[name]


def _mean(scores: Mapping[str, float]) -> float:
    return mean_iou(np.array(list(scores.values())))


class Exact(NamedTuple):
    """A float32 artifact beside the trained model in float64, looked at where it is too far from it in float32."""

    max_abs: float
    """Largest difference of a probability of the artifact's."""
    noise: float
    """Largest difference of a probability of the trained model's own, in float32."""
    tolerance: float
    """What ``max_abs`` may be, see ``exact_tolerance``."""

    @property
    def passed(self) -> bool:
        return self.max_abs <= self.tolerance

    def __str__(self) -> str:
        return (
            f"from the trained model in float64 it differs by {self.max_abs:.2g}, tolerance {self.tolerance:.2g}; the "
            f"trained model in float32 by {self.noise:.2g}"
        )


ROUNDING = 2e-4
"""A larger difference of a probability is no rounding of float32, in networks of any depth."""


def exact_tolerance(noise: float) -> float:
    """Tolerance of a float32 artifact's difference from the trained model in float64.

    float32's own, as long as the trained model keeps it by itself. A model whose ``noise`` is beyond it rounds more
    than most, in whatever order it is computed: its artifacts may differ twice as much as it does.
    """
    tolerance = GATES["float32"].max_abs
    return 2 * noise if noise > tolerance else tolerance


@dataclass(frozen=True)
class EngineResult:
    """One artifact in one engine."""

    backend: str
    """``onnx``, ``openvino``, ``tflite``, ``tensorflow`` or ``chromium``."""
    device: str
    """``cpu``, ``cuda`` or ``browser``."""
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
    part: str = ""
    """Precision of a part that the artifact can be without; empty for the artifact itself."""
    exact: Exact | None = None
    """Where it was too far from the trained model in float32, and by no more than rounding may explain."""

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
    """SHA-256 of the file, or of a folder's own list of its files' sums."""
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


@dataclass(frozen=True)
class Refusal:
    """A format that the model cannot be brought to."""

    format: str
    """Name as ``--formats`` takes it."""
    file: str
    """Name that the artifact would have had."""
    reason: str


class ParityError(UnetRuntimeError):
    """An artifact failed its gate, or could not be made."""

    exit_code = GATE

    def __init__(self, message: str, results: list[ParityResult], refused: Sequence[Refusal] = ()) -> None:
        super().__init__(message)
        self.results = results
        """Results of all artifacts, including those that passed."""
        self.refused = tuple(refused)
        """Formats that no artifact could be made of."""


def judge(metrics: Metrics, gate: Gate) -> tuple[str, ...]:
    """Every criterion that ``metrics`` fail, with its number, its tolerance and the tolerance that would pass.

    NaN fails. What could not be measured for want of ground truth is not asked. A class may lose what one pixel makes:
    in a class of few pixels that is more than the tolerance, and no evidence.
    """
    needed = smallest_gate(metrics)
    failures = []
    if not metrics.max_abs <= gate.max_abs:
        text = f"max|dp| {metrics.max_abs:.3g}, tolerance {gate.max_abs:g}"
        failures.append(text + _would_pass(needed.max_abs))
    agreement, pixels = _judged_agreement(metrics, gate)
    if not agreement >= gate.agreement:
        text = f"agreement {agreement:.3%}{pixels}, at least {gate.agreement:.2%}"
        failures.append(text + _would_pass(_round_down(agreement)))
    change = metrics.iou_change
    if change is not None and not -change <= gate.iou_drop:
        text = f"mean IoU drops {-change:.3f} points, tolerance {gate.iou_drop:g}"
        failures.append(text + _would_pass(needed.iou_drop))
    failed = {}
    for name, change in metrics.iou_changes.items():
        if not -change <= max(gate.class_drop, metrics.one_pixel(name)):
            failed[name] = change
    if failed:
        name = metrics.worst_class if metrics.worst_class in failed else min(failed, key=failed.__getitem__)
        more = f", and that of {len(failed) - 1} more classes does" if len(failed) > 1 else ""
        text = f"{name} IoU drops {-failed[name]:.3f} points, tolerance {gate.class_drop:g}{more}"
        failures.append(text + _would_pass(needed.class_drop))
    return tuple(failures)


def _judged_agreement(metrics: Metrics, gate: Gate) -> tuple[float, str]:
    """(agreement that the gate asks of, of which pixels)"""
    if not gate.margin or not metrics.sure >= _LEAST_SURE:
        return metrics.agreement, ""
    pixels = f" of the {metrics.sure:.1%} of pixels with a lead of {gate.margin:g} ({metrics.agreement:.3%} of all)"
    return metrics.sure_agreement, pixels


def accepting(result: ParityResult) -> str:
    """The options that would accept an artifact as it is, and what that would mean; empty where none would."""
    metrics = [entry.metrics for entry in result.checked if entry.metrics is not None and entry.failures]
    if not metrics or len(metrics) < sum(bool(entry.failures) for entry in result.engines):
        return ""  # what does not run has no tolerance
    options = []
    meanings = []
    needed = list(map(smallest_gate, metrics))
    largest = max(entry.max_abs for entry in needed)
    if not largest <= result.gate.max_abs:
        options.append(f"max_abs={largest:g}")
        meanings.append(f"a probability may differ by {largest:g}")
    agreements = [_judged_agreement(entry, result.gate)[0] for entry in metrics]
    agreement = _round_down(min(agreements))
    if not agreement >= result.gate.agreement:
        options.append(f"agreement={agreement:g}")
        meanings.append(f"{1 - agreement:.2%} of the pixels may have another class")
    for name, what in (("iou_drop", "mean IoU"), ("class_drop", "the IoU of a class")):
        drop = max(getattr(entry, name) for entry in needed)
        if not drop <= getattr(result.gate, name):
            options.append(f"{name}={drop:g}")
            meanings.append(f"{what} may lose {drop:g} points")
    if not options or "nan" in "".join(options):
        return ""
    text = " ".join(f"--gate {result.precision}.{option}" for option in options)
    same = all(entry.agreement == 1 for entry in metrics)
    if result.precision == "float32" and same and largest < ROUNDING:
        return f"{text} accepts it: every pixel has the same class, the differences are float32's own rounding"
    return f"{text} accepts it: {', '.join(meanings)}"


def _round_down(agreement: float) -> float:
    return agreement if math.isnan(agreement) else math.floor(agreement * 1e5) / 1e5


def _would_pass(tolerance: float) -> str:
    return "" if math.isnan(tolerance) else f" (would pass at {tolerance:g})"


def smallest_gate(metrics: Metrics) -> Gate:
    """The strictest gate that ``metrics`` pass, its tolerances rounded to what a person would type."""
    class_drops = [0.0]
    for name, change in metrics.iou_changes.items():
        if not -change <= metrics.one_pixel(name):
            class_drops.append(_drop(change))
    return Gate(
        max_abs=_round_up(metrics.max_abs),
        agreement=_round_down(metrics.agreement),
        iou_drop=_drop(metrics.iou_change),
        class_drop=float(np.max(class_drops)),  # unlike max(), keeps NaN
    )


def _drop(change: float | None) -> float:
    """Points lost, rounded up to a hundredth; 0 where nothing is lost or known."""
    if change is None or change >= 0:
        return 0.0
    return change if math.isnan(change) else math.ceil(-change * 100) / 100


def _round_up(value: float) -> float:
    """Round to two significant digits, never below ``value``."""
    return float(Context(prec=2, rounding=ROUND_CEILING).create_decimal(repr(value)))

"""How equal is equal: tolerances, figures, and the verdict on an artifact.

Comparisons are written so that NaN fails.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple


@dataclass(frozen=True)
class Gate:
    """How far an artifact may be from the trained model."""

    max_abs: float
    """Largest difference of one probability."""
    agreement: float
    """Least share of pixels (0..1) with the same most probable class."""
    iou_drop_points: float
    """Most percentage points of mean IoU lost."""


FLOAT_GATE = Gate(max_abs=1e-5, agreement=0.9999, iou_drop_points=0.05)
"""The same arithmetic in another order: differences are rounding."""

# Single probabilities may differ at will in int8, as long as decisions do not; 1.0 still refuses NaN.
INT8_GATE = Gate(max_abs=1.0, agreement=0.98, iou_drop_points=0.5)


class Figures(NamedTuple):
    """What was measured of one artifact against the trained model; NaN where it could not be run."""

    max_abs: float
    """Largest difference of one probability."""
    mean_abs: float
    agreement: float
    """Share of pixels (0..1) with the same most probable class."""
    reference_mean_iou: float
    """Of the trained model against the trimaps at model size, 0..1."""
    mean_iou: float
    """Of the artifact."""

    @property
    def iou_change_points(self) -> float:
        """Percentage points of mean IoU against the trained model; negative is worse."""
        return (self.mean_iou - self.reference_mean_iou) * 100


@dataclass(frozen=True)
class ParityResult:
    """What the gate found of one artifact."""

    format: str
    path: Path
    """Where it was checked."""
    engine: str
    """Engine and version that ran it."""
    size: int
    """Bytes."""
    sha256: str
    """Of the file; of a SavedModel's own list of its files' sums."""
    gate: Gate
    figures: Figures
    failures: tuple[str, ...]
    """Every criterion that failed, with its number and its tolerance."""

    @property
    def passed(self) -> bool:
        return not self.failures


def judge(figures: Figures, gate: Gate) -> tuple[str, ...]:
    """Every criterion that ``figures`` fail, with its number and its tolerance; NaN fails each it is in."""
    drop = -figures.iou_change_points
    criteria = (
        (figures.max_abs <= gate.max_abs, f"max|dp| {figures.max_abs:.3g}, tolerance {gate.max_abs:g}"),
        (figures.agreement >= gate.agreement, f"agreement {figures.agreement:.3%}, at least {gate.agreement:.2%}"),
        (drop <= gate.iou_drop_points, f"mean IoU drops {drop:.3f} points, tolerance {gate.iou_drop_points:g}"),
    )
    return tuple(text for met, text in criteria if not met)

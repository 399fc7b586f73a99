"""Calibration study: one integer artifact, calibrated anew on more and more photos."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from unet_export.formats import Builder, Format
from unet_export.gate.gate import Gate
from unet_export.gate.parity import Candidate, prove
from unet_export.gate.runners import Run
from unet_export.photos import Photo
from unet_export.quantization import Quantization
from unet_runtime.core.spec import ModelSpec

logger = logging.getLogger(__name__)

SIZES = (1, 8, 50, 200)
"""Numbers of calibration photos; the last is the default of an export."""

_ANYTHING = Gate(max_abs=1.0, agreement=0.0, iou_drop=100.0, border_drop=100.0)


class StudyPoint(NamedTuple):
    """Metrics of one size of the calibration set, against the trained model."""

    photos: int
    iou_change: float | None
    """Percentage points of mean IoU; None without trimaps."""
    border_change: float | None
    """Percentage points of the neutral class's IoU; None without trimaps or such a class."""
    agreement: float
    """Share of pixels (0..1) with the same class."""

    @property
    def disagreement(self) -> float:
        return 1 - self.agreement


def calibration_study(
    form: Format,
    start: Quantization,
    builder: Builder,
    reference: Run,
    photos: Sequence[Photo],
    spec: ModelSpec,
    folder: Path,
) -> list[StudyPoint]:
    """Export ``form`` with each of ``SIZES`` and measure it in its first engine that runs here.

    Args:
        form: an integer format.
        start: its settings; the number of photos is replaced.
        builder: of the export, as are ``reference``, ``photos`` and ``spec``.
        folder: gets a file that is overwritten and removed.

    Raises:
        ExportError: the model cannot be converted.
    """
    points: list[StudyPoint] = []
    path = folder / f"study{form.suffix}"
    for count in SIZES:
        logger.info("calibrating %s on %d photos, for the study", form.name, count)
        builder.write(form, path, replace(start, photos=count))
        (result,) = prove(reference, [Candidate(form, path, _ANYTHING)], photos, spec)
        path.unlink()
        for entry in result.checked[:1]:
            if entry.metrics is not None:
                metrics = entry.metrics
                points.append(StudyPoint(count, metrics.iou_change, metrics.border_change, metrics.agreement))
    return points

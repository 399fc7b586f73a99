"""The gate's findings, as a table for people and as JSON for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from unet_export.gate import ParityResult
from unet_runtime.labelled import LabelledPhoto
from unet_runtime.spec import ModelSpec

_HEADER = ("format", "engine", "MB", "max|dp|", "mean|dp|", "agreement %", "mean IoU", "change, points", "verdict")
_TEXT_COLUMNS = (0, 1, 8)


def table(results: Sequence[ParityResult]) -> str:
    """One line an artifact, below them the reasons of those that failed."""
    rows = [_HEADER, *(_row(result) for result in results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = ["  ".join(_cell(row[c], c, widths[c]) for c in range(len(_HEADER))).rstrip() for row in rows]
    reasons = [f"{result.path.name}: {failure}" for result in results for failure in result.failures]
    return "\n".join([*lines, *reasons])


def _row(result: ParityResult) -> tuple[str, ...]:
    figures = result.figures
    return (
        result.path.name,
        result.engine,
        f"{result.size / 1e6:.2f}",
        f"{figures.max_abs:.1e}",
        f"{figures.mean_abs:.1e}",
        f"{figures.agreement * 100:.3f}",
        f"{figures.mean_iou:.4f}",
        f"{figures.iou_change_points:+.3f}",
        "passed" if result.passed else "FAILED",
    )


def _cell(text: str, column: int, width: int) -> str:
    return text.ljust(width) if column in _TEXT_COLUMNS else text.rjust(width)


def as_json(
    results: Sequence[ParityResult], spec: ModelSpec, calibration: Sequence[LabelledPhoto],
    photos: Sequence[LabelledPhoto],
) -> str:  # fmt: skip
    """``parity.json``: everything needed to doubt the verdict and to repeat it. Figures that do not exist are null."""
    report = {
        "model": spec.name,
        "weights_sha256": spec.provenance.weights_sha256,
        "split": spec.provenance.split,
        "passed": all(result.passed for result in results),
        "artifacts": [_artifact(result) for result in results],
        "photos": [entry.name for entry in photos],
        "calibration_photos": [entry.name for entry in calibration],
    }
    return json.dumps(report, indent=1, allow_nan=False) + "\n"


def _artifact(result: ParityResult) -> dict[str, Any]:
    figures = {**result.figures._asdict(), "iou_change_points": result.figures.iou_change_points}
    return {
        "format": result.format,
        "file": result.path.name,
        "engine": result.engine,
        "bytes": result.size,
        "sha256": result.sha256,
        "figures": {name: None if math.isnan(value) else value for name, value in figures.items()},
        "tolerances": asdict(result.gate),
        "passed": result.passed,
        "failures": list(result.failures),
    }

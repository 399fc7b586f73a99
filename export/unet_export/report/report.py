"""The gate's findings: a table for the terminal, JSON for machines, a page for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unet_export.gate.gate import EngineResult, ParityResult, smallest_gate
from unet_export.gate.panels import Panel
from unet_export.photos import PhotoSets
from unet_export.staging import PARITY_NAME, REPORT_NAME
from unet_runtime.core.spec import ModelSpec

_HEADER = (
    "artifact",
    "engine",
    "MB",
    "ms",
    "max|dp|",
    "99.9 %",
    "agreement %",
    "mean IoU",
    "change",
    "border",
    "verdict",
)
_TEXT_COLUMNS = (0, 1, 10)


@dataclass(frozen=True)
class Report:
    """One export, accepted or not."""

    model: str
    """File name of the Keras model."""
    spec: ModelSpec
    photos: PhotoSets
    results: Sequence[ParityResult]
    panels: Mapping[str, Sequence[Panel]] = field(default_factory=dict)
    """Photos with both masks, worst first, by artifact's file name."""
    calibration_study: Sequence[tuple[int, float | None, float | None, float]] = ()
    """Of one quantised artifact: (calibration photos, change of mean IoU and of border IoU in percentage points,
    agreement in 0..1) for each size tried; None without trimaps or such a class."""
    study_artifact: str = ""
    """File name of that artifact."""
    command: str = ""
    """The command line that made it; empty if there was none."""
    parameters: int | None = None
    """Of the Keras model."""
    keras_milliseconds: float | None = None
    """Of Keras' ``predict``, a photo, median, batch 1; taken right after the artifacts'."""


def table(results: Sequence[ParityResult]) -> str:
    """One line an artifact and engine, changes in percentage points; below them why each failed or was not checked."""
    pairs = [(result, entry) for result in results for entry in result.engines]
    # An engine that is nowhere to be found is said once, below, not in a row an artifact.
    rows = [_HEADER, *(_row(result, entry) for result, entry in pairs if not entry.not_checked)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = ["  ".join(_cell(row[c], c, widths[c]) for c in range(len(_HEADER))).rstrip() for row in rows]
    absent = dict.fromkeys(
        f"not checked: {entry.engine}: {entry.not_checked}" for _, entry in pairs if entry.not_checked
    )
    reasons = [f"{result.path.name}: {failure}" for result in results for failure in result.failures]
    return "\n".join([*lines, *absent, *reasons])


def _row(result: ParityResult, entry: EngineResult) -> tuple[str, ...]:
    figures = entry.figures
    start = (result.path.name, entry.engine, f"{result.size / 1e6:.2f}", _number(entry.milliseconds, ".1f"))
    if figures is None:
        return (*start, *[""] * 6, entry.verdict)
    return (
        *start,
        f"{figures.max_abs:.1e}",
        f"{figures.p999_abs:.1e}",
        f"{figures.agreement * 100:.3f}",
        _number(figures.mean_iou, ".4f"),
        _number(figures.iou_change, "+.3f"),
        _number(figures.border_change, "+.3f"),
        entry.verdict,
    )


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _cell(text: str, column: int, width: int) -> str:
    return text.ljust(width) if column in _TEXT_COLUMNS else text.rjust(width)


def as_json(report: Report) -> str:
    """``parity.json``: everything needed to doubt the verdict and to repeat it. Figures that do not exist are null."""
    content = {
        "model": report.spec.name,
        "weights_sha256": report.spec.provenance.weights_sha256,
        "split": report.photos.split,
        "passed": all(result.passed for result in report.results),
        "artifacts": [_artifact(result) for result in report.results],
        "photos": [photo.name for photo in report.photos.parity],
        "calibration_photos": [photo.name for photo in report.photos.calibration],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _artifact(result: ParityResult) -> dict[str, Any]:
    return {
        "format": result.format,
        "precision": result.precision,
        "file": result.path.name,
        "bytes": result.size,
        "sha256": result.sha256,
        "quantization": result.quantization,
        "tolerances": asdict(result.gate),
        "engines": [_engine(entry) for entry in result.engines],
        "passed": result.passed,
        "failures": list(result.failures),
    }


def _engine(entry: EngineResult) -> dict[str, Any]:
    figures = entry.figures
    known = (
        {}
        if figures is None
        else {
            **figures._asdict(),
            "iou_change": figures.iou_change,
            "border_change": figures.border_change,
        }
    )
    return {
        "backend": entry.backend,
        "device": entry.device,
        "engine": entry.engine,
        "verdict": entry.verdict,
        "not_checked": entry.not_checked,
        "milliseconds": entry.milliseconds,
        "figures": _finite(known),
        "smallest_passing_tolerances": None if figures is None else _finite(asdict(smallest_gate(figures))),
        "failures": list(entry.failures),
    }


def _finite(values: dict[str, float | None]) -> dict[str, float | None]:
    return {name: None if value is None or not math.isfinite(value) else value for name, value in values.items()}


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write ``parity.json`` and ``report.html``.

    Returns:
        Their paths.

    Raises:
        OSError: ``folder`` cannot be written.
    """
    from unet_export.report.page import render

    page = folder / REPORT_NAME
    page.write_text(render(report), encoding="utf-8")
    machine = folder / PARITY_NAME
    machine.write_text(as_json(report), encoding="utf-8")
    return [page, machine]

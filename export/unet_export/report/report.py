"""Results of an export as a table for the terminal and as JSON for machines."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from operator import attrgetter
from typing import Any

from unet_export.gate.gate import EngineResult, Gate, Metrics, ParityResult, Refusal, accepting, smallest_gate
from unet_export.photos import PhotoSets
from unet_export.staging import COMMAND
from unet_runtime.bench.machine import Machine
from unet_runtime.core import text
from unet_runtime.core.spec import ModelSpec
from unet_runtime.io.kind import STAMP_KEY

_HEADER = (
    *(
        "artifact",
        "engine",
        "MB",
        "ms",
        "max|dp|",
        "99.9 %",
        "agreement %",
        "mean IoU",
        "change",
        "worst class",
        "change",
    ),
    "verdict",
)


@dataclass(frozen=True)
class Report:
    """One export, accepted or not."""

    model: str
    """File name of the Keras model."""
    spec: ModelSpec
    photos: PhotoSets
    results: Sequence[ParityResult]
    calibration_study: Mapping[int, Metrics] = field(default_factory=dict)
    """Metrics of one quantised artifact by the number of its calibration photos."""
    study_artifact: str = ""
    """File name of that artifact."""
    command: str = ""
    """The command line that made it; empty if there was none."""
    parameters: int | None = None
    """Number of the Keras model's parameters."""
    keras_milliseconds: float | None = None
    """Median time of Keras' ``predict`` per photo, batch 1; measured right after the artifacts'."""

    machine: Machine | None = None
    """Where times were measured, and its load when the export began."""

    refused: Sequence[Refusal] = ()
    """Formats that no artifact could be made of."""
    all_or_nothing: bool = False
    """Whether one artifact that fails takes the others with it."""

    @property
    def failed(self) -> list[ParityResult]:
        """Artifacts that failed their gate."""
        return [result for result in self.results if not result.passed]

    @property
    def accepted(self) -> bool:
        """True if there is an artifact, and all that were asked for passed."""
        return bool(self.results) and not self.failed and not self.refused

    @property
    def kept(self) -> list[ParityResult]:
        """Artifacts that are accepted."""
        if self.all_or_nothing and not self.accepted:
            return []
        return [result for result in self.results if result.passed]

    @property
    def absent(self) -> list[str]:
        """Classes that no held-out photo's ground truth has; empty without ground truth."""
        for result in self.results:
            for entry in result.checked:  # on the same photos
                return _unseen(entry)
        return []

    @property
    def has_truth(self) -> bool:
        """True if all held-out photos have labels."""
        return bool(self.photos.parity) and all(map(attrgetter("labels"), self.photos.parity))


def table(results: Sequence[ParityResult], refused: Sequence[Refusal] = ()) -> str:
    """One line per artifact and engine, changes in percentage points; below, why each failed or was not checked, and
    which option would accept it. Formats that cannot be made have a line each."""
    rows: list[tuple[str, ...]] = [_HEADER]
    absent: dict[str, None] = {}
    reasons: list[str] = []
    unseen: dict[str, None] = {}
    for result in results:
        for entry in result.engines:
            if entry.not_checked:  # said once, below, not in a row per artifact
                absent[f"not checked: {entry.engine}: {entry.not_checked}"] = None
            else:
                rows.append(_row(result, entry))
                unseen |= dict.fromkeys(_unseen(entry))
            if entry.exact is not None:
                reasons.append(f"{result.path.name}: {entry.engine}: {entry.exact}")
        reasons += map(f"{result.path.name}: {{}}".format, result.failures)
        if result.precision == "mixed":
            reasons += _islands(result, results)
        if option := accepting(result):
            reasons.append(f"{result.path.name}: {option}")
    for refusal in refused:
        rows.append((refusal.file, *[""] * (len(_HEADER) - 2), "not made"))
        reasons.append(f"{refusal.file}: {refusal.reason}")
    if unseen:
        absent[f"in no label mask of these photos, so nothing is known of it: {', '.join(unseen)}"] = None
    return "\n".join([text.table(rows), *absent, *reasons])


def _islands(result: ParityResult, results: Sequence[ParityResult]) -> Iterator[str]:
    """What of a mixed file computes in float, and what a photo takes beside the float32 file, where there is one."""
    found = result.quantization.get("float") or {}
    names = [f"{name} ({count})" for name, count in found.items()] if isinstance(found, Mapping) else list(found)
    yield f"{result.path.name}: computes in float, with a conversion before and behind each: {', '.join(names)}"
    for entry in result.checked:
        for other in results:
            for same in other.checked if other.precision == "float32" else ():
                if same.engine == entry.engine and entry.milliseconds and same.milliseconds:
                    ratio = entry.milliseconds / same.milliseconds
                    yield f"{result.path.name}: {entry.engine}: {ratio:.2f} times the time of {other.path.name}"


def _unseen(entry: EngineResult) -> list[str]:
    """Classes that the photos' ground truth lacks; none where there is no ground truth."""
    metrics = entry.metrics
    if metrics is None or not metrics.pixels:
        return []
    return [name for name in metrics.iou if name not in metrics.pixels]


def _row(result: ParityResult, entry: EngineResult) -> tuple[str, ...]:
    cells = [result.path.name, entry.engine, f"{result.size / 1e6:.2f}", _number(entry.milliseconds, ".1f")]
    metrics = entry.metrics
    if metrics is None:
        cells += [""] * 7
    else:
        cells += [f"{metrics.max_abs:.1e}", f"{metrics.p999_abs:.1e}", f"{metrics.agreement:.3%}".rstrip("%")]
        cells += [_number(metrics.mean_iou, ".4f"), _number(metrics.iou_change, "+.3f")]
        cells += [metrics.worst_class, _number(metrics.worst_change, "+.3f")]
    return (*cells, entry.verdict)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def as_json(report: Report) -> str:
    """``parity.json``: all that is needed to doubt the verdict and to repeat it. Metrics that do not exist are null."""
    content = {
        STAMP_KEY: COMMAND,
        "model": report.spec.name,
        "weights_sha256": report.spec.provenance.weights_sha256,
        "split": report.photos.split,
        "passed": report.accepted,
        "accepted": [result.path.name for result in report.kept],
        "refused": list(map(asdict, report.refused)),
        "artifacts": list(map(_artifact, report.results)),
        "photos": list(map(attrgetter("name"), report.photos.parity)),
        "calibration_photos": list(map(attrgetter("name"), report.photos.calibration)),
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
        "tolerances": _tolerances(result.gate),
        "engines": list(map(_engine, result.engines)),
        "passed": result.passed,
        "failures": result.failures,
    }


def _tolerances(gate: Gate) -> dict[str, float]:
    """A gate's tolerances; a margin only where it has one."""
    found: dict[str, float] = asdict(gate)
    if not gate.margin:
        del found["margin"]
    return found


def _engine(entry: EngineResult) -> dict[str, Any]:
    metrics = entry.metrics
    measured: dict[str, Any] = {}
    smallest = None
    if metrics is not None:
        measured = _figures(metrics)
        smallest = _finite(_tolerances(smallest_gate(metrics)))
    return {
        "backend": entry.backend,
        "device": entry.device,
        "engine": entry.engine,
        "verdict": entry.verdict,
        "not_checked": entry.not_checked,
        "milliseconds": entry.milliseconds,
        "figures": measured,  # the name that readers of the file know
        "smallest_passing_tolerances": smallest,
        "failures": entry.failures,
        "float64": None if entry.exact is None else _finite(entry.exact._asdict()),
    }


def _figures(metrics: Metrics) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, value in metrics._asdict().items():
        figures[name] = _finite(value) if isinstance(value, dict) else value
    for name in ("keras_mean_iou", "reference_mean_iou", "mean_iou", "iou_change", "worst_change"):
        figures[name] = getattr(metrics, name)
    return _finite(figures) | {"worst_class": metrics.worst_class}


def _finite(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same with None in place of NaN and infinity, which JSON has not."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }

"""What a comparison found: rows of figures, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unet_runtime.core.spec import ModelSpec
from unet_training.compare.points import Point


@dataclass(frozen=True)
class Artifact:
    """One exported file in one engine."""

    precision: str
    backend: str
    """``onnx``, ``tflite`` or ``openvino``."""
    milliseconds: float
    """Median of one inference on all cores."""
    bytes: int
    iou_change: float | None
    """Percentage points of mean IoU against the trained model, on the export's parity photos."""
    agreement: float | None
    """Share of pixels with the trained model's class, 0..1."""
    passed: bool
    """Its gate."""
    repair: str
    """What the export had to do for that; empty: nothing."""

    @property
    def way(self) -> str:
        return f"{self.backend} {self.precision}"


@dataclass(frozen=True)
class Row:
    """One network."""

    label: str
    size: int
    """Pixels of its input's side."""
    parameters: int
    mean_iou: float
    """Of the trained model on all test photos, at the size it answers in."""
    border_iou: float
    loss: float
    artifacts: tuple[Artifact, ...]


def row(
    point: Point,
    spec: ModelSpec,
    parameters: int,
    paths: Sequence[Path],
    parity: Mapping[str, Any],
    bench: Mapping[str, Any],
) -> Row:
    """Put together what the commands said of one network."""
    measured = spec.provenance.metrics
    proven = {path.resolve(): entry for path, entry in zip(paths, parity["artifacts"], strict=True)}
    artifacts = [
        _artifact(proven[path], timed)
        for timed in bench["rows"]
        if (path := Path(timed["model"]["file"]).resolve()) in proven and timed["stages"]
    ]
    return Row(
        label=point.label,
        size=spec.input.height,
        parameters=parameters,
        mean_iou=measured["mean_iou"],
        border_iou=measured["iou"]["border"],
        loss=measured["loss"],
        artifacts=tuple(artifacts),
    )


def _artifact(proven: Mapping[str, Any], timed: Mapping[str, Any]) -> Artifact:
    engines = [entry for entry in proven["engines"] if entry["backend"] == timed["backend"]]
    figures = engines[0]["figures"] if engines else {}
    return Artifact(
        precision=proven["precision"],
        backend=timed["backend"],
        milliseconds=timed["stages"]["inference"]["p50"],
        bytes=proven["bytes"],
        iou_change=figures.get("iou_change"),
        agreement=figures.get("agreement"),
        passed=proven["passed"],
        repair=_repair(proven["quantization"]),
    )


_METHOD, _PHOTOS = "minmax", 200
"""How, and on how many photos, an export calibrates unless it has to repair."""


def _repair(quantization: Mapping[str, Any]) -> str:
    """What was done besides calibrating."""
    words = []
    if (method := quantization.get("method", _METHOD)) != _METHOD:
        words.append(f"calibration by {method}")
    if (photos := quantization.get("photos", _PHOTOS)) > _PHOTOS:
        words.append(f"{photos} calibration photos")
    if quantization.get("equalized"):
        words.append("equal ranges")
    if quantization.get("precise"):
        words.append(f"{len(quantization['precise'])} layers precise")
    if quantization.get("finetune_steps"):
        words.append(f"{quantization['finetune_steps']} steps of fine-tuning")
    return ", ".join(words)


def ways(rows: Sequence[Row]) -> list[str]:
    """Every engine with its precision, in the order they were met."""
    return list(dict.fromkeys(artifact.way for row in rows for artifact in row.artifacts))


def as_json(rows: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"settings": dict(settings), "rows": [asdict(row) for row in rows]}


def table(rows: Sequence[Row]) -> Iterator[str]:
    """Lines of a Markdown table, the most accurate network first."""
    known = ways(rows)
    head = [
        "network",
        "input",
        "parameters",
        "mean IoU",
        "border IoU",
        *(f"{way}, ms" for way in known),
        *(f"{way}, points" for way in known if "int8" in way),
    ]
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for entry in sorted(rows, key=lambda entry: -entry.mean_iou):
        by_way = {artifact.way: artifact for artifact in entry.artifacts}
        accuracy = [f"{entry.mean_iou:.4f}", f"{entry.border_iou:.4f}"]
        cells = [entry.label, str(entry.size), f"{entry.parameters:,}", *accuracy]
        cells += [f"{by_way[way].milliseconds:.1f}" if way in by_way else "" for way in known]
        cells += [_change(by_way.get(way)) for way in known if "int8" in way]
        yield f"| {' | '.join(cells)} |"


def _change(artifact: Artifact | None) -> str:
    if artifact is None or artifact.iou_change is None:
        return ""
    notes = [f"repaired: {artifact.repair}"] if artifact.repair else []
    notes += [] if artifact.passed else ["gate failed"]
    return f"{artifact.iou_change:+.2f}" + (f" ({', '.join(notes)})" if notes else "")

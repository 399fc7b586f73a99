"""What a comparison found: one row of metrics per network, as JSON and as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """Whether it passed its gate."""
    repair: str
    """What the export had to do for that; empty: nothing."""

    @property
    def variant(self) -> str:
        """Engine and precision: ``onnx int8``."""
        return f"{self.backend} {self.precision}"


@dataclass(frozen=True)
class Row:
    """One network."""

    label: str
    size: int
    """Pixels of its input's side."""
    parameters: int
    mean_iou: float
    """Mean IoU of the trained model on all test photos, at the size of its output."""
    data: str
    """What it was trained on, and how many photos of it."""
    photos: int
    """Test photos that ``mean_iou`` is of."""
    lowest_class: str
    """The class of the lowest IoU."""
    lowest_iou: float
    loss: float
    artifacts: tuple[Artifact, ...]


def make_row(
    point: Point,
    spec: ModelSpec,
    parameters: int,
    paths: Sequence[Path],
    parity: Mapping[str, Any],
    bench: Mapping[str, Any],
) -> Row:
    """Put together what the commands reported about one network.

    Args:
        point, spec, parameters: the network, its trained model and its number of parameters.
        paths: exported files, in the order of ``parity["artifacts"]``.
        parity, bench: content of ``parity.json``, and of ``bench.json`` of all networks.
    """
    metrics = spec.provenance.metrics
    checked = {}
    for path, entry in zip(paths, parity["artifacts"], strict=True):
        checked[path.resolve()] = entry
    artifacts = []
    for timed in bench["rows"]:
        path = Path(timed["model"]["file"]).resolve()
        if path in checked and timed["stages"]:  # an engine that failed has no stages
            artifacts.append(_artifact(checked[path], timed))
    return Row(
        label=point.label,
        size=spec.input.height,
        parameters=parameters,
        mean_iou=metrics["mean_iou"],
        data=spec.provenance.data,
        photos=metrics.get("photos", 0),
        lowest_class=min(metrics["iou"], key=metrics["iou"].__getitem__),
        lowest_iou=min(metrics["iou"].values()),
        loss=metrics["loss"],
        artifacts=tuple(artifacts),
    )


def _artifact(checked: Mapping[str, Any], timed: Mapping[str, Any]) -> Artifact:
    figures = {engine["backend"]: engine["figures"] for engine in reversed(checked["engines"])}
    measured = figures.get(timed["backend"]) or {}
    return Artifact(
        precision=checked["precision"],
        backend=timed["backend"],
        milliseconds=timed["stages"]["inference"]["p50"],
        bytes=checked["bytes"],
        iou_change=measured.get("iou_change"),
        agreement=measured.get("agreement"),
        passed=checked["passed"],
        repair=_repair(checked["quantization"]),
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


def variants(rows: Sequence[Row]) -> list[str]:
    """Every engine with its precision, in the order of first appearance."""
    return list(dict.fromkeys(artifact.variant for row in rows for artifact in row.artifacts))


def as_json(rows: Sequence[Row], settings: Mapping[str, Any]) -> dict[str, Any]:
    """``compare.json``."""
    return {"settings": dict(settings), "rows": list(map(asdict, rows))}


def markdown(rows: Sequence[Row]) -> str:
    """A Markdown table, the most accurate network first."""
    timed = variants(rows)
    quantized = [variant for variant in timed if "int8" in variant]
    # Of most data the same class is the worst one of every network.
    lowest = {row.lowest_class for row in rows}
    head = ["network", "input", "parameters", "mean IoU", f"{lowest.pop() if len(lowest) == 1 else 'lowest'} IoU"]
    for variant in timed:
        head.append(f"{variant}, ms")
    for variant in quantized:
        head.append(f"{variant}, points")
    lines = [head, ["---"] * len(head)]
    for row in sorted(rows, key=lambda row: -row.mean_iou):
        known = {artifact.variant: artifact for artifact in row.artifacts}
        cells = [row.label, str(row.size), f"{row.parameters:,}", f"{row.mean_iou:.4f}", f"{row.lowest_iou:.4f}"]
        for variant in timed:
            cells.append(f"{known[variant].milliseconds:.1f}" if variant in known else "")
        cells += map(_change, map(known.get, quantized))
        lines.append(cells)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _change(artifact: Artifact | None) -> str:
    if artifact is None or artifact.iou_change is None:
        return ""
    notes = [f"repaired: {artifact.repair}"] if artifact.repair else []
    if not artifact.passed:
        notes.append("gate failed")
    return f"{artifact.iou_change:+.2f}" + (f" ({', '.join(notes)})" if notes else "")

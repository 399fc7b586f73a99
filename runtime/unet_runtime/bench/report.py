"""The measurements as text for a terminal, and as JSON (docs/commands.md says what its keys mean)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any

from unet_runtime import __version__
from unet_runtime.bench.machine import Machine
from unet_runtime.bench.measure import TOTAL, Row, Settings
from unet_runtime.bench.plan import Refusal, thread_count
from unet_runtime.bench.worker import STAGES
from unet_runtime.core.text import table
from unet_runtime.io.kind import STAMP_KEY

SCHEMA = 1


@dataclass(frozen=True)
class Report:
    machine: Machine
    settings: Settings
    rows: tuple[Row, ...]
    refused: tuple[Refusal, ...]
    advice: tuple[str, ...]
    labelled: int = 0
    """Number of photos with labels that accuracy was measured on."""

    @property
    def measured(self) -> list[Row]:
        """Rows with measurements, the fastest first."""
        return sorted(filter(attrgetter("stages"), self.rows), key=lambda row: row.stages[TOTAL].p50)

    @property
    def failed(self) -> int:
        """Number of combinations and models that something is wrong with."""
        return len(list(filter(attrgetter("error"), self.rows))) + len(self.refused)


def to_json(report: Report) -> str:
    """One line of JSON in ASCII (a file name need not be Unicode text), as docs/commands.md says."""
    content = {
        STAMP_KEY: "unet-bench",
        "schema": SCHEMA,
        "version": __version__,
        "machine": asdict(report.machine) | {"busy": report.machine.busy},
        "settings": asdict(report.settings) | {"truth": report.labelled, "stages": STAGES},
        "rows": list(map(_row_content, report.rows)),
        "refused": list(map(asdict, report.refused)),
        "advice": report.advice,
    }
    return json.dumps(content, default=str, allow_nan=False)  # str: of paths


def _row_content(row: Row) -> dict[str, Any]:
    combination = row.combination
    model = combination.model
    content = {
        "model": {
            "file": model.path,
            "bytes": model.bytes,
            "sha256": model.sha256,
            "name": model.spec.name,
            "precision": model.spec.precision,
            "weights_sha256": model.spec.provenance.weights_sha256,
        },
        "backend": combination.backend,
        "threads": combination.threads,
        "device_wanted": combination.device,
    }
    measurements = asdict(row)
    del measurements["combination"]
    return content | measurements


def to_text(report: Report) -> str:
    """Tables and sentences for a terminal."""
    settings, rows = report.settings, report.measured
    parts = [_machine_line(report.machine)]
    if rows:
        photos = f"{rows[0].photos} photos each in {settings.rounds} rounds, file to {settings.picture} PNG"
        parts += [
            f"Each combination in processes of its own, taking turns: {photos}.\n" + table(_main_cells(rows)),
            "Milliseconds per photo by stage, p50 / p95 / p99:\n" + table(_stage_cells(rows)),
        ]
    scores = _accuracy_cells(rows)
    if scores:
        parts.append("Intersection over union, on the model's own grid:\n" + table(scores))
    failures = []
    for row in report.rows:
        if row.error:
            failures.append(f"failed: {label(row, report.rows)}: {row.error}")
    for refusal in report.refused:
        failures.append(f"failed: {refusal.reason}")
    parts += ["\n".join(failures), "\n".join(report.advice)]
    return "\n\n".join(filter(None, parts))


def label(row: Row, rows: Sequence[Row], *, threads: bool = True) -> str:
    """``pets.onnx, ONNX Runtime 1.31.1, 2 threads``: what tells a row from the others."""
    parts = [_file(row, rows), row.engine or row.combination.backend]
    devices = {other.device or other.combination.device for other in rows}
    if len(devices) > 1:
        parts.append(row.device or row.combination.device)
    if threads:
        parts.append(thread_count(row.combination.threads))
    return ", ".join(parts)


def _file(row: Row, rows: Sequence[Row]) -> str:
    """A file's name, or its path where two files of different folders have the same name."""
    path = row.combination.model.path
    for other in rows:
        if other.combination.model.path.name == path.name and other.combination.model.path != path:
            return str(path)
    return path.name


def _machine_line(machine: Machine) -> str:
    features = "unknown instructions" if machine.features is None else " ".join(machine.features) or "no vector unit"
    line = f"{machine.cpu or machine.architecture}, {machine.cores} cores ({features}), {machine.system}"
    if machine.load is not None:
        line += f", load {machine.load:.1f}"
    if machine.busy:
        line += "\nThe machine is busy: times are longer and less certain than on a quiet one"
    return line


def _main_cells(rows: Sequence[Row]) -> list[list[str]]:
    cells = []
    scored = any(map(attrgetter("accuracy"), rows))
    for row in rows:
        assert row.cold_start
        line = {
            "model": _file(row, rows),
            "engine": row.engine,
            "device": row.device,
            "threads": str(row.combination.threads),
            "ms per photo": f"{row.stages[TOTAL].p50:.1f}",
            "inference": f"{row.stages['inference'].p50:.1f}",
            "photos/s": f"{row.photos_a_second:.1f}",
            "cold start": f"{row.cold_start.total:.0f} ms",
            "memory": f"{row.peak_memory / 1e6:.0f} MB" if row.peak_memory else "?",
            "file": f"{row.combination.model.bytes / 1e6:.1f} MB",
        }
        if scored:
            line["mean IoU"] = f"{row.accuracy.mean_iou:.4f}" if row.accuracy else ""
        cells.append(list(line.values()))
    return [list(line), *cells]


def _stage_cells(rows: Sequence[Row]) -> list[list[str]]:
    cells = [["", *STAGES]]
    for row in rows:
        line = [label(row, rows)]
        for stage in STAGES:
            times = row.stages[stage]
            line.append(f"{times.p50:.1f} / {times.p95:.1f} / {times.p99:.1f}")
        cells.append(line)
    return cells


def _accuracy_cells(rows: Sequence[Row]) -> list[list[str]]:
    """One line for each model and engine: the number of threads changes no prediction."""
    cells: dict[str, list[str]] = {}
    for row in rows:
        if row.accuracy:
            line = [_file(row, rows), row.engine, f"mean {row.accuracy.mean_iou:.4f}"]
            for name, value in row.accuracy.class_iou.items():
                line.append(f"{name} {value:.4f}")
            cells[label(row, rows, threads=False)] = [*line, f"{row.accuracy.photos} photos"]
    return list(cells.values())

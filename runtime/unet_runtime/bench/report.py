"""The measurements as text for a terminal, and as JSON.

The JSON is one object; times are milliseconds unless the name says otherwise, and what is unknown is null:

    schema       1
    version      of unet-edge-runtime
    machine      system, architecture, cpu, cores (usable by this process), features (instructions that matter),
                 memory (bytes), load (average before the measurement), busy (whether that is too much), python
    settings     rounds, photos_a_round, picture (what is drawn and encoded), photos (timed ones: path of each),
                 truth (how many photos with trimaps accuracy was measured on), stages (their names, in order)
    rows         one per combination, in the order in which they took turns:
        model        file, bytes, sha256 (of the file), name, precision, weights_sha256 (of the trained weights)
        backend, threads, device_wanted     what was asked for
        device, engine, note                what runs: engine with its version; why no faster device
        error        why the combination or its accuracy could not be measured; empty if all is well
        photos       how many were timed
        stages       by stage, and "total": p50, p95, p99
        photos_a_second   one after another, median of the rounds
        cold_start   total (process start to first result), load, first; medians of the rounds
        peak_memory  bytes
        accuracy     photos, mean_iou, class_iou (by class), left_out (why, one text per photo); or null
    refused      models that cannot be measured at all: file, reason
    advice       sentences: the fastest, int8 against float32, what is not installed
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unet_runtime import __version__
from unet_runtime.bench.machine import Machine
from unet_runtime.bench.measure import TOTAL, Row, Settings
from unet_runtime.bench.plan import Refusal, thread_count
from unet_runtime.bench.worker import STAGES
from unet_runtime.core.text import table

SCHEMA = 1


@dataclass(frozen=True)
class Report:
    machine: Machine
    settings: Settings
    rows: tuple[Row, ...]
    refused: tuple[Refusal, ...]
    advice: tuple[str, ...]
    labelled: int = 0
    """Number of photos with trimaps that accuracy was measured on."""

    @property
    def measured(self) -> list[Row]:
        return [row for row in self.rows if row.stages]

    @property
    def failed(self) -> int:
        """Number of combinations and models that something is wrong with."""
        return sum(bool(row.error) for row in self.rows) + len(self.refused)


def to_json(report: Report) -> str:
    """One line of JSON in ASCII (a file name need not be Unicode text), as this module's docstring says."""
    content = {
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
    failures = [f"failed: {label(row, report.rows)}: {row.error}" for row in report.rows if row.error]
    failures += [f"failed: {refusal.reason}" for refusal in report.refused]
    for lines in (failures, report.advice):
        if lines:
            parts.append("\n".join(lines))
    return "\n\n".join(parts)


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
    if machine.busy:
        line += (
            f"\nThe machine is busy (load {machine.load:.1f} on {machine.cores} cores): "
            "times are longer and less certain than on a quiet one"
        )
    return line


def _main_cells(rows: Sequence[Row]) -> list[list[str]]:
    head = "model,engine,device,threads,ms per photo,inference,photos/s,cold start,memory,file".split(",")
    cells = [head]
    for row in rows:
        assert row.cold_start
        cells.append(
            [
                _file(row, rows),
                row.engine,
                row.device,
                str(row.combination.threads),
                f"{row.stages[TOTAL].p50:.1f}",
                f"{row.stages['inference'].p50:.1f}",
                f"{row.photos_a_second:.1f}",
                f"{row.cold_start.total:.0f} ms",
                f"{row.peak_memory / 1e6:.0f} MB" if row.peak_memory else "?",
                f"{row.combination.model.bytes / 1e6:.1f} MB",
            ]
        )
    if any(row.accuracy for row in rows):
        head.append("mean IoU")
        for row, line in zip(rows, cells[1:], strict=True):
            line.append(f"{row.accuracy.mean_iou:.4f}" if row.accuracy else "")
    return cells


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
    cells: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        if row.accuracy:
            by_class = [f"{name} {value:.4f}" for name, value in row.accuracy.class_iou.items()]
            key = (_file(row, rows), row.engine, row.device)
            cells[key] = [*key[:2], f"mean {row.accuracy.mean_iou:.4f}", *by_class, f"{row.accuracy.photos} photos"]
    return list(cells.values())

"""Rows of figures -> text for a terminal, and JSON.

The JSON is one object; times are milliseconds unless the name says otherwise, and what is unknown is null:

    schema       1
    version      of unet-edge-runtime
    machine      system, architecture, cpu, cores (usable by this process), features (instructions that matter),
                 memory (bytes), load (average before the measurement), busy (whether that is too much), python
    settings     rounds, photos_a_round, picture (what is drawn and encoded), photos (timed ones: path of each),
                 truth (how many photos with trimaps accuracy was asked on), stages (their names, in order)
    rows         one a combination, in the order in which they took turns:
        model        file, bytes, sha256 (of the file), name, precision, weights_sha256 (of the trained weights)
        backend, threads, device_wanted     what was asked for
        device, engine, note                what runs: engine with its version; why no faster device
        error        why it or its accuracy could not be measured; empty if all is well
        photos       how many were timed
        stages       by stage, and "total": p50, p95, p99
        photos_a_second   one after another, median of the rounds
        cold_start   total (process start to first answer), load, first; medians of the rounds
        peak_memory  bytes
        accuracy     photos, mean_iou, class_iou (by class), left_out (why, one text a photo); or null
    refused      models that cannot be measured at all: file, reason
    advice       sentences: the fastest, int8 against float32, what is not installed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unet_runtime import __version__
from unet_runtime.bench.machine import Machine
from unet_runtime.bench.measure import TOTAL, Row, Settings
from unet_runtime.bench.plan import Refusal, thread_count
from unet_runtime.bench.worker import STAGES

SCHEMA = 1


@dataclass(frozen=True)
class Report:
    machine: Machine
    settings: Settings
    rows: tuple[Row, ...]
    refused: tuple[Refusal, ...]
    advice: tuple[str, ...]
    truth: int = 0
    """Photos with trimaps that accuracy was asked on."""

    @property
    def measured(self) -> list[Row]:
        return [row for row in self.rows if row.stages]

    @property
    def failed(self) -> int:
        """Combinations and models that something is wrong with."""
        return sum(bool(row.error) for row in self.rows) + len(self.refused)


def to_json(report: Report) -> dict[str, Any]:
    """As this module's docstring says."""
    settings = report.settings
    return {
        "schema": SCHEMA,
        "version": __version__,
        "machine": asdict(report.machine) | {"busy": report.machine.busy},
        "settings": {
            "rounds": settings.rounds,
            "photos_a_round": settings.photos_a_round,
            "picture": settings.kind,
            "photos": [str(path) for path in settings.photos],
            "truth": report.truth,
            "stages": list(STAGES),
        },
        "rows": [_row(row) for row in report.rows],
        "refused": [{"file": str(refusal.path), "reason": refusal.reason} for refusal in report.refused],
        "advice": list(report.advice),
    }


def _row(row: Row) -> dict[str, Any]:
    model, start = row.combination.model, row.cold_start
    return {
        "model": {
            "file": str(model.path),
            "bytes": model.bytes,
            "sha256": model.sha256,
            "name": model.spec.name,
            "precision": model.spec.precision,
            "weights_sha256": model.spec.provenance.weights_sha256,
        },
        "backend": row.combination.backend,
        "threads": row.combination.threads,
        "device_wanted": row.combination.device,
        "device": row.device,
        "engine": row.engine,
        "note": row.note,
        "error": row.error,
        "photos": row.photos,
        "stages": {stage: asdict(values) for stage, values in row.stages.items()},
        "photos_a_second": row.photos_a_second or None,
        "cold_start": {name: seconds * 1000 for name, seconds in start._asdict().items()} if start else None,
        "peak_memory": row.peak_memory,
        "accuracy": asdict(row.accuracy) if row.accuracy else None,
    }


def to_text(report: Report) -> str:
    """Tables and sentences for a terminal."""
    settings, rows = report.settings, report.measured
    parts = [_machine_line(report.machine)]
    if rows:
        photos = f"{rows[0].photos} photos each in {settings.rounds} rounds, file to {settings.kind} PNG"
        parts += [
            f"Each combination in processes of its own, taking turns: {photos}.\n" + _table(_main_cells(rows)),
            "Milliseconds a photo by stage, p50 / p95 / p99:\n" + _table(_stage_cells(rows)),
        ]
    if any(row.accuracy for row in rows):
        parts.append("Intersection over union, on the model's own grid:\n" + _table(_accuracy_cells(rows)))
    failures = [f"failed: {name(row, report.rows)}: {row.error}" for row in report.rows if row.error]
    failures += [f"failed: {refusal.reason}" for refusal in report.refused]
    parts += ["\n".join(lines) for lines in (failures, report.advice) if lines]
    return "\n\n".join(parts)


def name(row: Row, rows: Sequence[Row], *, threads: bool = True) -> str:
    """``pets.onnx, ONNX Runtime 1.31.1, 2 threads``: what tells a row from the others."""
    parts = [_file(row, rows), row.engine or row.combination.backend]
    if len({other.device or other.combination.device for other in rows}) > 1:
        parts.append(row.device or row.combination.device)
    if threads:
        parts.append(thread_count(row.combination.threads))
    return ", ".join(parts)


def _file(row: Row, rows: Sequence[Row]) -> str:
    """A file's name, or its path where two of different folders have the same."""
    path = row.combination.model.path
    same = {other.combination.model.path for other in rows if other.combination.model.path.name == path.name}
    return str(path) if len(same) > 1 else path.name


def _machine_line(machine: Machine) -> str:
    features = "unknown instructions" if machine.features is None else " ".join(machine.features) or "no vector unit"
    line = f"{machine.cpu or machine.architecture}, {machine.cores} cores ({features}), {machine.system}"
    if machine.busy:
        line += (
            f"\nThe machine is busy (load {machine.load:.1f} on {machine.cores} cores): "
            "times are longer than on a quiet one, and less sure"
        )
    return line


def _main_cells(rows: Sequence[Row]) -> list[list[str]]:
    head = [
        "model",
        "engine",
        "device",
        "threads",
        "ms a photo",
        "inference",
        "photos/s",
        "cold start",
        "memory",
        "file",
    ]
    cells = [[*head, "mean IoU"]]
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
                f"{row.cold_start.total * 1000:.0f} ms",
                f"{row.peak_memory / 1e6:.0f} MB" if row.peak_memory else "?",
                f"{row.combination.model.bytes / 1e6:.1f} MB",
                f"{row.accuracy.mean_iou:.4f}" if row.accuracy else "",
            ]
        )
    return cells if any(line[-1] for line in cells[1:]) else [line[:-1] for line in cells]


def _stage_cells(rows: Sequence[Row]) -> list[list[str]]:
    cells = [["", *STAGES]]
    for row in rows:
        values = [row.stages[stage] for stage in STAGES]
        cells.append([name(row, rows), *(f"{v.p50:.1f} / {v.p95:.1f} / {v.p99:.1f}" for v in values)])
    return cells


def _accuracy_cells(rows: Sequence[Row]) -> list[list[str]]:
    """One line for each model and engine: the number of threads changes no answer."""
    found = {(row.combination.model.path, row.engine, row.device): row for row in rows if row.accuracy}
    cells = []
    for row in found.values():
        assert row.accuracy
        by_class = [f"{label} {value:.4f}" for label, value in row.accuracy.class_iou.items()]
        photos = f"{row.accuracy.photos} photos"
        cells.append([_file(row, rows), row.engine, f"mean {row.accuracy.mean_iou:.4f}", *by_class, photos])
    width = max(map(len, cells))
    return [line + [""] * (width - len(line)) for line in cells]


def _table(cells: Sequence[Sequence[str]]) -> str:
    """Columns aligned: numbers to the right, text to the left."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [_is_number(cells[-1][place]) for place in range(len(widths))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    )


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit()

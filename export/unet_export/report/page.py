"""The page for people: everything the gate found, as one HTML file that loads nothing else and runs nothing."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from unet_export.gate.gate import ParityResult, smallest_gate
from unet_export.report import numbers
from unet_export.report.pictures import DIFFERENT, histogram, lengths, pictures
from unet_export.report.recommend import baselines, recommend
from unet_export.report.report import Report, as_json
from unet_export.staging import COMMAND, PARITY_NAME, REPORT_NAME
from unet_runtime.core.text import ratio
from unet_runtime.io.stamps import page_mark


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write ``report.html`` and ``parity.json``; returns their paths. Raises OSError."""
    page = folder / REPORT_NAME
    page.write_text(page_mark(COMMAND) + render(report), encoding="utf-8")
    machine = folder / PARITY_NAME
    machine.write_text(as_json(report), encoding="utf-8")
    return [page, machine]


def render(report: Report) -> str:
    """The page: HTML without scripts or references to anything outside it."""
    # Photos, models and commands are named by others: whatever their names hold is text.
    environment = Environment(
        loader=PackageLoader("unet_export.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for name in ("milliseconds", "scientific", "percent", "iou", "signed", "setting", "tolerance"):
        environment.filters[name] = getattr(numbers, name)
    environment.filters["ratio"] = ratio
    base = next(iter(baselines(report.results)), None)
    return environment.get_template("report.html.j2").render(
        report=report,
        spec=report.spec,
        provenance=report.spec.provenance,
        not_checked=_not_checked(report.results),
        base=base if base and base[0].startswith("ONNX Runtime") else None,
        recommendations=recommend(report),
        smallest=smallest_gate,
        histogram=histogram,
        lengths=lengths,
        different=DIFFERENT,
        noise=f"{numbers.NOISE:g}",
        pictures=partial(pictures, spec=report.spec),
    )


def _not_checked(results: Iterable[ParityResult]) -> dict[tuple[str, str], list[str]]:
    """Files by (engine, reason) of every engine that could not check them."""
    found: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for entry in result.engines:
            if entry.not_checked:
                found.setdefault((entry.engine, entry.not_checked), []).append(result.path.name)
    return found

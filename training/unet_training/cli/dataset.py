"""unet-train download and unet-train check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unet_runtime.cli.shared import GroupedCommand, echo, setup_logging, verbosity
from unet_runtime.core.errors import OK
from unet_training.cli.options import DEFAULT_DATA, FOLDER, json_option
from unet_training.cli.start import import_keras, print_result
from unet_training.errors import DatasetError

if TYPE_CHECKING:
    from unet_training.data.check import Report

_SHOWN = 5
"""Names of an oddity that are listed."""


@click.command(cls=GroupedCommand)
@click.argument("folder", type=FOLDER, envvar="PETS_DIR", default=DEFAULT_DATA)
@verbosity
def download(folder: Path, verbosity: int | None) -> int:
    """Download Oxford-IIIT Pet (0.8 GB) to FOLDER, unless it is there."""
    setup_logging(verbosity)
    import_keras()
    from unet_training.data.dataset import ensure_dataset

    ensure_dataset(folder)
    echo(f"Oxford-IIIT Pet is in {folder}")
    return OK


@click.command(cls=GroupedCommand)
@click.argument("data", type=FOLDER, envvar="PETS_DIR", default=DEFAULT_DATA)
@json_option
@verbosity
def check(data: Path, json_file: Path | None, verbosity: int | None) -> int:
    """Read every photo and trimap in DATA, and name each oddity and what training does about it."""
    setup_logging(verbosity)
    from unet_training.data.check import check_dataset

    report = check_dataset(data)
    print_result(_as_text(report, data), json.dumps(report.as_json(), indent=1), json_file)
    if errors := report.errors():
        raise DatasetError("; ".join(errors))
    return OK


def _as_text(report: Report, data: Path) -> str:
    from unet_training.data.check import ODDITIES

    formats = ", ".join(f"{count} {name}" for name, count in sorted(report.formats.items()))
    lines = [f"{report.pairs} photos named by lists or paired with a trimap in {data}; usable: {formats or 'none'}"]
    for part, count in report.usable.items():
        lines.append(f"{count:6}  usable in the {part} part")
    for oddity, names in report.names.items():
        if names:
            what, handling = ODDITIES[oddity]
            shown = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            lines.append(f"{len(names):6}  {what}: {handling} ({shown})")
    return "\n".join(lines)

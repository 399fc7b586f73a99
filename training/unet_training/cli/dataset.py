"""unet-train download and unet-train check."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import click

from unet_runtime.cli.shared import GroupedCommand, echo, option_group, overwrite_option, setup_logging, verbosity
from unet_runtime.core import files
from unet_runtime.core.datasets import Dataset
from unet_runtime.core.datasets.classes import FILES, as_yaml, class_file
from unet_runtime.core.errors import OK, OutputError
from unet_training.cli import options
from unet_training.cli.options import DEFAULT_DATA, FOLDER, json_option
from unet_training.cli.start import import_keras, print_result
from unet_training.errors import DatasetError

logger = logging.getLogger(__name__)

PAGE = "check.html"


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
@options.dataset_options
@option_group(
    "Results",
    click.option(
        "-o",
        "--output",
        "--html",
        "html",
        type=options.FILE,
        default=PAGE,
        help="Page with a sheet of photos under their labels.",
    ),
    click.option("--no-html", is_flag=True, help="Write no page."),
    click.option("--write-classes", is_flag=True, help="Write DATA/classes.yaml, to be edited: names, colours, roles."),
    json_option,
    overwrite_option,
)
@verbosity
def check(
    data: Path,
    layout: str,
    classes: str | None,
    ignore: str | None,
    html: Path,
    no_html: bool,
    write_classes: bool,
    json_file: Path | None,
    overwrite: bool,
    verbosity: int | None,
) -> int:
    """Check the photos and labels in DATA: each problem, and how training handles it.

    Exit code 1: training would refuse the data, or the data is certainly wrong.
    """
    setup_logging(verbosity)
    from unet_training.check import check_dataset, write_page

    pages = () if no_html else (html,)
    options.check_files(pages, json_file, overwrite=overwrite)
    dataset = options.read_dataset(data, layout, classes, ignore)
    options.check_files(pages, json_file, options.dataset_files(dataset), overwrite=overwrite)
    report = check_dataset(dataset)
    print_result(report.as_text(), json.dumps(report.as_json(), indent=1), json_file)
    if write_classes:
        logger.info("classes are in %s: edit names, colours and roles there", _write_classes(dataset))
    if not no_html:
        write_page(report, html)
        logger.info("photos with their labels are in %s", html)
    if errors := report.errors():
        raise DatasetError("; ".join(errors))
    return OK


def _write_classes(dataset: Dataset) -> Path:
    """Begin a class file in the data's folder."""
    found = class_file(dataset.root)
    if found is not None:
        raise OutputError(f"{found}: is there already: edit it, or take it away to begin a new one")
    path = dataset.root / FILES[0]
    settings = replace(dataset.options, classes=dataset.classes, values=dataset.values)
    files.write_text(path, as_yaml(settings))
    return path

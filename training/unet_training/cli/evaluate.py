"""unet-train evaluate: the command, and an Evaluation as text."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unet_runtime.cli.quiet import engines_quiet
from unet_runtime.cli.shared import (
    COUNT,
    PATH,
    GroupedCommand,
    option_group,
    overwrite_option,
    setup_logging,
    verbosity,
)
from unet_runtime.core.datasets import PARTS, Part
from unet_runtime.core.errors import INPUTS_FAILED, OK
from unet_runtime.core.text import table
from unet_runtime.engines import ENGINES
from unet_training.cli.options import DEFAULT_DATA, FILE, STDOUT, check_files, data_option, json_option
from unet_training.cli.start import import_keras, print_result
from unet_training.files import writing

if TYPE_CHECKING:
    from unet_training.evaluate import Evaluation
    from unet_training.segmentation_metrics import SegmentationMetrics

logger = logging.getLogger(__name__)

_SHOWN = 5
"""Breeds at each end."""

_MATRIX = 12
"""Classes of a confusion matrix, at most."""


@click.command(cls=GroupedCommand)
@click.argument("model", type=PATH)
@option_group(
    "Photos",
    data_option("Folder of photos and labels of the model's classes.", default=DEFAULT_DATA),
    click.option("--split", "part", type=click.Choice(PARTS), default="test", help="Part of the split."),
    click.option("--count", type=COUNT, help="Photos, spread evenly over the part (default: all)."),
)
@option_group(
    "Engine",
    click.option(
        "--backend",
        type=click.Choice(["auto", *ENGINES]),
        default="auto",
        help="Engine of an exported MODEL; a .keras file runs in Keras.",
    ),
)
@option_group(
    "Results",
    click.option("-o", "--output", type=FILE, help="JSON file of the metrics, as --json FILE."),
    json_option,
    overwrite_option,
)
@verbosity
def evaluate(
    model: Path,
    data: Path,
    part: Part,
    count: int | None,
    backend: str,
    output: Path | None,
    json_file: Path | None,
    overwrite: bool,
    verbosity: int | None,
) -> int:
    """Measure MODEL (.keras, .onnx or .tflite), by default on the photos that its training did not see."""
    setup_logging(verbosity)
    if output is not None:
        if json_file is not None:
            raise click.UsageError("--output and --json exclude each other")
        json_file = output
    check_files((), json_file, [model], overwrite=overwrite)
    from unet_training import evaluate as evaluation

    if model.suffix == ".keras":
        import_keras()
    with engines_quiet():
        loaded = evaluation.load_model(model, backend)
    if json_file not in (None, STDOUT):  # before minutes of measuring
        with writing(json_file):
            json_file.parent.mkdir(parents=True, exist_ok=True)
    result = evaluation.evaluate(loaded, data, part=part, count=count)
    print_result(evaluation_text(result), result.to_json(), json_file)
    for problem in result.problems:
        logger.warning("left out: %s", problem)
    return INPUTS_FAILED if result.problems else OK


def evaluation_text(evaluation: Evaluation) -> str:
    """Metrics over all photos, confusion matrix, worst and best breeds, resolution classes."""
    ordered = sorted(evaluation.breeds, key=lambda name: evaluation.breeds[name].mean_iou)
    parts = [
        f"{evaluation.model} {evaluation.precision} on {evaluation.engine}, {evaluation.device}: "
        f"{evaluation.overall.photos} {evaluation.part} photos of the {evaluation.split} split",
        _overall(evaluation),
        _confusion(evaluation),
    ]
    if absent := [name for name in evaluation.classes if math.isnan(evaluation.overall.iou[name])]:
        parts.append(f"in no photo, nor predicted, so not in the mean: {', '.join(absent)}")
    if not ordered:
        pass  # the photos are not named by breed
    elif len(ordered) <= 2 * _SHOWN:
        parts.append(_groups(evaluation, "breed", evaluation.breeds, ordered))
    else:
        parts.append(_groups(evaluation, f"worst {_SHOWN} breeds", evaluation.breeds, ordered[:_SHOWN]))
        parts.append(_groups(evaluation, f"best {_SHOWN} breeds", evaluation.breeds, ordered[-_SHOWN:]))
    if evaluation.resolutions:
        parts.append(_groups(evaluation, "resolution", evaluation.resolutions, list(evaluation.resolutions)))
    return "\n\n".join(parts)


def _overall(evaluation: Evaluation) -> str:
    height, width = evaluation.size
    rows = [("", f"{width}x{height}", "own size")]
    for row in evaluation.rows():
        label = f"  {row.label}" if row.of_class else row.label
        rows.append((label, _decimal(row.value), "" if row.own_size is None else _decimal(row.own_size)))
    return table(rows)


def _decimal(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share:.2%}"


def _confusion(evaluation: Evaluation) -> str:
    if len(evaluation.classes) > _MATRIX:
        return _most_confused(evaluation)
    rows: list[tuple[str, ...]] = [("truth", *map("taken for {}".format, evaluation.classes))]
    for name, shares in zip(evaluation.classes, evaluation.confusion_shares, strict=True):
        rows.append((name, *map(_percent, shares)))
    return table(rows)


def _most_confused(evaluation: Evaluation) -> str:
    """For more classes than a table has columns for: what each is most often taken for."""
    rows: list[tuple[str, ...]] = [("truth", "right", "most often taken for", "")]
    for index, name in enumerate(evaluation.classes):
        shares = dict(enumerate(evaluation.confusion_shares[index]))
        right = shares.pop(index)
        if not math.isnan(right):
            other = max(shares, key=shares.__getitem__)
            rows.append((name, _percent(right), evaluation.classes[other], _percent(shares[other])))
    return table(rows)


def _groups(evaluation: Evaluation, title: str, groups: Mapping[str, SegmentationMetrics], names: Sequence[str]) -> str:
    whole = evaluation.whole
    rows: list[tuple[str, ...]] = [
        (title, "photos", "mean IoU", *(["+".join(whole)] * bool(whole)), "boundary F1", "own size")
    ]
    for name in names:
        metrics = groups[name]
        values = [metrics.mean_iou, *([metrics.whole_pet_iou] * bool(whole))]
        values += [metrics.boundary_f1, metrics.own_size_mean_iou]
        rows.append((name, str(metrics.photos), *map(_decimal, values)))
    return table(rows)

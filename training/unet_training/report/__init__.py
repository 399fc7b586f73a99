"""The report of a training: one self-contained page of HTML, and its pictures as files beside it.

canvas.py   what every plot shares
curves.py   train and validation, epoch by epoch, and the gap between them
panels.py   best, worst and random photos with truth and prediction
plots.py    confusion matrix, bars of breeds
stages.py   the model's stages as a table
page.py     all of it as HTML
"""

from __future__ import annotations

import logging
from pathlib import Path

from unet_runtime.core.artifact import read_artifact
from unet_training import keras_backend
from unet_training.errors import TrainingInterruptedError
from unet_training.evaluate import Model, evaluate_decoded
from unet_training.files import writing
from unet_training.pipeline import Result
from unet_training.report import curves, page, panels, plots
from unet_training.report.stages import stages

logger = logging.getLogger(__name__)

REPORT = "report.html"
PICTURES = ("curves", "best", "worst", "random", "confusion", "breeds")
"""Pictures beside the page: ``curves.png`` and so on."""

FILES = (REPORT, *map("{}.png".format, PICTURES))
"""Names of all that a report may replace."""


def write_report(result: Result, output: Path) -> None:
    """Write ``report.html`` and its pictures, PNG, into ``output``.

    Metrics and predictions are those of the written model file, not of the model in memory. A picture that an
    earlier training left there and this one has none of is removed.

    Raises:
        OutputError: a file cannot be written.
        ModelFileError: the model file was damaged since it was written.
        TrainingInterruptedError: Ctrl-C; the model is written whole, the report is not.
    """
    try:
        _measure_and_write(result, output)
    except KeyboardInterrupt as error:
        raise TrainingInterruptedError(
            f"interrupted while the report was made: {result.model} is whole, {output / REPORT} is missing or old"
        ) from error


def _measure_and_write(result: Result, output: Path) -> None:
    artifact = read_artifact(result.model)
    network = keras_backend.load_model(artifact)
    model = Model(artifact.spec, keras_backend.KerasBackend(network))
    provenance, photos = result.spec.provenance, result.test
    part, epoch = str(provenance.metrics["split"]), int(provenance.metrics["epoch"])
    logger.info("measuring %s on %d %s photos, for the report", result.model.name, len(photos), part)
    evaluation, scores = evaluate_decoded(model, photos, part=part)
    paths = {name: output / f"{name}.png" for name in PICTURES}
    pictures = {
        "curves": curves.draw(result.history, epoch, paths["curves"]),
        "confusion": plots.confusion_matrix(evaluation, paths["confusion"]),
        "breeds": plots.breed_bars(evaluation, paths["breeds"]),
    }
    for name, chosen in panels.choose(scores, provenance.seed or 0).items():
        pictures[name] = panels.draw(model, photos, scores, chosen, paths[name])
    for name, path in paths.items():
        if pictures[name] is None:
            with writing(path):
                path.unlink(missing_ok=True)
    page.write(
        output / REPORT,
        result,
        evaluation=evaluation,
        gaps=curves.gaps(result.history, epoch),
        pictures=pictures,
        stages=stages(network),
    )

"""The report of a training: one self-contained page of HTML, and its pictures as files beside it.

curves.py    train and validation, epoch by epoch, and the gap between them
panels.py    best, worst and random photos with truth and prediction
plots.py     confusion matrix, bars of breeds; what the plots share
network.py   the model's stages, drawn by Graphviz
page.py      all of it as HTML
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unet_runtime.core.artifact import read_artifact
from unet_training import keras_backend
from unet_training.errors import TrainingInterruptedError
from unet_training.evaluate import Model, evaluate_decoded
from unet_training.files import writing
from unet_training.pipeline import Result
from unet_training.report import curves, network, page, panels, plots
from unet_training.report.page import Picture

REPORT = "report.html"
PICTURES = {
    "curves": "curves.png",
    "best": "best.png",
    "worst": "worst.png",
    "random": "random.png",
    "confusion": "confusion.png",
    "breeds": "breeds.png",
    "network": "model.png",
}
"""Files beside the page, by what they show."""

Say = Callable[[str], None]


def write_report(result: Result, output: Path, say: Say) -> None:
    """Write ``report.html`` and its pictures, PNG, into ``output``.

    Figures and predictions are those of the written model file, not of the model in memory. A picture that an
    earlier training left there and this one has none of is removed.

    Args:
        result: of the training.
        output: folder, made if missing.
        say: receives a line of progress now and then, and one for what the report lacks.

    Raises:
        OutputError: a file cannot be written.
        ModelFileError: the model file was damaged since it was written.
        TrainingInterruptedError: Ctrl-C; the model is written whole, the report is not.
    """
    try:
        _write(result, output, say)
    except KeyboardInterrupt as error:
        raise TrainingInterruptedError(
            f"interrupted while the report was made: {result.model} is whole, {output / REPORT} is missing or old"
        ) from error


def _write(result: Result, output: Path, say: Say) -> None:
    artifact = read_artifact(result.model)
    net = keras_backend.load_model(artifact)
    model = Model(artifact.spec, keras_backend.KerasBackend(net))
    spec, photos = result.spec, result.test
    part, epoch = str(spec.provenance.metrics["split"]), int(spec.provenance.metrics["epoch"])
    say(f"measuring {result.model.name} on {len(photos)} {part} photos, for the report")
    evaluation, scores = evaluate_decoded(model, photos, part=part, say=say)
    paths = {name: output / file for name, file in PICTURES.items()}
    pictures: dict[str, Picture | None] = {
        "curves": curves.picture(result.history, epoch, paths["curves"]),
        **panels.pictures(model, photos, scores, spec.provenance.seed or 0, paths),
        "confusion": plots.confusion_matrix(evaluation, paths["confusion"]),
        "breeds": plots.breed_bars(evaluation, paths["breeds"]),
    }
    pictures["network"], lacking = network.picture(net, paths["network"])
    if lacking:
        say(f"the report has no plot of the model: {lacking}")
    for name, path in paths.items():
        if pictures[name] is None:
            with writing(path):
                path.unlink(missing_ok=True)
    page.write(
        output / REPORT,
        result=result,
        evaluation=evaluation,
        gaps=curves.gaps(result.history, epoch),
        pictures=pictures,
        network_lacks=lacking,
    )

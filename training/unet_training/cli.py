"""unet-train: train a model. The only module of this package that prints."""

from __future__ import annotations

import json
import os
import shlex
import sys
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from unet_runtime.backends import ENGINES
from unet_runtime.cli import exits
from unet_runtime.cli.quiet import engines_quiet
from unet_runtime.errors import BackendError
from unet_runtime.labelled import PARTS
from unet_training import __version__
from unet_training.compare.cli import compare
from unet_training.errors import DatasetError, TrainingInterruptedError
from unet_training.options import given, make_recipe, recipe_options, words
from unet_training.recipes import PRESETS, Recipe

if TYPE_CHECKING:
    from unet_training.train import Result

SYNTHETIC = "synthetic"
DEFAULT_DATA = "data/oxford-iiit-pet"

_PATHS = ("data", "output", "weights", "teacher", "encoder_weights")

_SHOWN = 5  # names of an oddity
_TEST_SHARE = 4  # of generated pictures, one in four is kept for the test


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data",
    metavar=f"PATH|{SYNTHETIC}",
    envvar="PETS_DIR",
    default=DEFAULT_DATA,
    show_default=True,
    show_envvar=True,
    help="Oxford-IIIT Pet's folder, downloaded if missing; or generated pictures (./synthetic: a folder so named).",
)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    help=f"Recipe to start from (default: edge; demo for --data {SYNTHETIC}).",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("artifacts"),
    show_default=True,
    help="Folder of model.keras, report.html and its pictures, history.json.",
)
@recipe_options
@click.option(
    "--weights", type=click.Path(path_type=Path, dir_okay=False), help="Start from this .keras model's weights."
)
@click.option(
    "--teacher", type=click.Path(path_type=Path, dir_okay=False), help="Learn from this .keras model besides the truth."
)
@click.option("--resume", is_flag=True, help="Go on with the training killed in --output, given the same command.")
@click.option(
    "--distribute",
    type=click.Choice(("auto", "none")),
    default="auto",
    show_default=True,
    help="auto: every accelerator takes a share of each batch (KERAS_BACKEND=jax); none: one trains.",
)
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--synthetic-count",
    type=click.IntRange(min=8),
    default=360,
    show_default=True,
    help="Pictures to generate; a quarter of them are kept for the test.",
)
@click.option(
    "--cache",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of prepared photos, kept for the next training  [default: OUTPUT/cache]",
)
@click.option("--no-cache", is_flag=True, help="Prepare the photos in memory and keep none.")
@click.option(
    "--tensorboard",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of logs for TensorBoard, which needs its extra.",
)
@click.version_option(__version__)
@click.pass_context  # fmt: skip
def command(
    context: click.Context, /, data: str, preset: str | None, output: Path, seed: int, synthetic_count: int,
    cache: Path | None, no_cache: bool, weights: Path | None, teacher: Path | None, resume: bool, distribute: str,
    tensorboard: Path | None, **changes: Any,
) -> int:  # fmt: skip
    """Train the U-Net, choose its best epoch, measure it, and write one model.keras that carries its spec.

    Options that are not given come from the preset. Ctrl-C after the first epoch keeps the best one so far.
    """
    if context.invoked_subcommand is not None:
        return exits.OK
    synthetic = data == SYNTHETIC
    if not synthetic and context.get_parameter_source("synthetic_count") is not ParameterSource.DEFAULT:
        raise click.UsageError(f"--synthetic-count goes with --data {SYNTHETIC}, here --data is {data}")
    if no_cache and cache is not None:
        raise click.UsageError("--cache and --no-cache exclude each other")
    recipe = make_recipe(preset or ("demo" if synthetic else "edge"), changes)
    import_keras()
    _check_sizes(recipe)
    try:
        folder = _draw(output, synthetic_count, seed) if synthetic else _ensure(Path(data))
        result = _train(
            recipe, folder, output, cache=None if no_cache else cache or output / "cache",
            data_name=SYNTHETIC if synthetic else "Oxford-IIIT Pet", command=_canonical(context),
            seed=seed, weights=weights, teacher=teacher, resume=resume, distribute=distribute, tensorboard=tensorboard,
        )  # fmt: skip
    except KeyboardInterrupt as error:
        raise TrainingInterruptedError("interrupted before the end of the first epoch: nothing was kept") from error
    _say_result(result, output, synthetic)
    return exits.INTERRUPTED if result.interrupted else exits.OK


@command.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), envvar="PETS_DIR", default=DEFAULT_DATA)
def download(folder: Path) -> int:
    """Download Oxford-IIIT Pet (0.8 GB) to FOLDER, unless it is there."""
    import_keras()
    click.echo(f"Oxford-IIIT Pet is in {_ensure(folder)}")
    return exits.OK


@command.command()
@click.argument(
    "data", type=click.Path(path_type=Path, file_okay=False), envvar="PETS_DIR", default=DEFAULT_DATA
)  # fmt: skip
@click.option("--json", "report", type=click.Path(path_type=Path, dir_okay=False), help="Write every name there.")
def check(data: Path, report: Path | None) -> int:
    """Read every photo and trimap in DATA, and name each oddity and what training does about it."""
    from unet_training.check import check_dataset
    from unet_training.files import replacing

    found = check_dataset(data)
    if report is not None:
        with replacing(report) as temporary:
            temporary.write_text(json.dumps(asdict(found), indent=1), encoding="utf-8")
    formats = ", ".join(f"{count} {name}" for name, count in sorted(found.formats.items()))
    click.echo(f"{found.pairs} photos named by lists or paired with a trimap in {data}; usable: {formats or 'none'}")
    for part, count in found.usable.items():
        click.echo(f"{count:6}  usable in the {part} part")
    for what, done, names in found.oddities():
        more = ", ..." if len(names) > _SHOWN else ""
        click.echo(f"{len(names):6}  {what}: {done} ({', '.join(names[:_SHOWN])}{more})")
    if errors := found.errors():
        raise DatasetError("; ".join(errors))
    return exits.OK


def import_keras() -> None:
    """Late, so that ``--help`` is quick, and once, so that a missing backend gets one clear message."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # Off by default on CPUs without AVX-512, where a training step was quicker with it too.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    try:
        with engines_quiet():
            import keras

            keras.ops.ones((1,))  # looks for devices
            keras.utils.set_random_seed(0)  # loads TensorFlow, where it is installed, under any backend
        # Of class ids on their way into Keras' confusion matrix, under JAX: they fit into any integer.
        warnings.filterwarnings("ignore", "Explicitly requested dtype int64", UserWarning)
    except ImportError as error:
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        raise BackendError(f"Keras' backend {backend} cannot be imported ({error}): pip install {backend}") from error


def _check_sizes(recipe: Recipe) -> None:
    """Before the data is downloaded."""
    from unet_training.build import input_spec

    for size in recipe.sizes or (recipe.size,):
        input_spec(recipe, size)


def _ensure(folder: Path) -> Path:
    from unet_training import dataset

    dataset.ensure_dataset(folder)
    return folder


def _draw(output: Path, count: int, seed: int) -> Path:
    from unet_training import synthetic

    folder = output / SYNTHETIC
    test = count // _TEST_SHARE
    click.echo(f"{count} generated pictures in {folder}, {test} of them for the test")
    synthetic.ensure_dataset(folder, train=count - test, test=test, seed=seed)
    return folder


def _train(recipe: Recipe, data: Path, output: Path, *, cache: Path | None, **settings: Any) -> Result:
    from unet_training.cache import PhotoCache
    from unet_training.report import write_report
    from unet_training.train import train

    kept = None if cache is None else PhotoCache(cache, click.echo)
    terminal = sys.stdout if sys.stdout.isatty() else None
    result = train(recipe, data, output, cache=kept, say=click.echo, terminal=terminal, **settings)
    write_report(result, output, click.echo)
    return result


def _canonical(context: click.Context) -> str:
    """The command with the options that were given, in the order of ``--help``, folders by their last name only:
    the spec travels with the model, and another machine's folders say nothing there. Neither the cache nor an
    interruption nor logs change the model."""
    typed = ["unet-train"]
    for parameter, value in given(context):
        if parameter.name not in ("cache", "no_cache", "resume", "tensorboard"):
            typed += words(parameter, value if parameter.name not in _PATHS else Path(value).resolve().name)
    return shlex.join(typed)


def _say_result(result: Result, output: Path, synthetic: bool) -> None:
    from unet_training.report import REPORT

    figures = result.spec.provenance.metrics
    click.echo(f"\n{result.spec.name}, epoch {figures['epoch']}, on {figures['photos']} {figures['split']} photos")
    rows = {"loss": figures["loss"], "pixel accuracy": figures["pixel_accuracy"], "mean IoU": figures["mean_iou"]}
    rows |= {f"  {name} IoU": value for name, value in figures["iou"].items()}
    for label, value in rows.items():
        click.echo(f"  {label:<18} {value:.4f}")
    for label, path in (("model", result.model), ("report", output / REPORT)):
        click.echo(f"{label:<8}{path}")
    if synthetic:
        click.echo("Trained on drawn animals: for trying the way only, of no use on photos.")


@command.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="PETS_DIR",
    default=DEFAULT_DATA,
    show_default=True,
    show_envvar=True,
    help="Photos and trimaps in Oxford-IIIT Pet's layout.",
)
@click.option("--split", "part", type=click.Choice(PARTS), default="test", show_default=True, help="Of MODEL's split.")
@click.option("--count", type=click.IntRange(min=1), help="Photos, spread evenly over the part (default: all).")
@click.option(
    "--backend",
    type=click.Choice(["auto", *ENGINES]),
    default="auto",
    show_default=True,
    help="Of an exported MODEL; a .keras file runs in Keras.",
)
@click.option("--json", "report", type=click.Path(path_type=Path, dir_okay=False), help="Write every figure there.")
def evaluate(model: Path, data: Path, part: str, count: int | None, backend: str, report: Path | None) -> int:
    """Measure MODEL (.keras, .onnx or .tflite), by default on the photos that its training did not see."""
    from unet_training import evaluate as evaluation
    from unet_training import files, tables

    if model.suffix == ".keras":
        import_keras()
    with engines_quiet():
        loaded = evaluation.load_model(model, backend)
    if report is not None:  # before minutes of measuring
        with files.writing(report):
            report.parent.mkdir(parents=True, exist_ok=True)
    result = evaluation.evaluate(loaded, data, part=part, count=count, say=lambda line: click.echo(line, err=True))
    for line in tables.lines(result):
        click.echo(line)
    if report is not None:
        with files.replacing(report) as temporary:
            temporary.write_text(result.to_json(), encoding="utf-8")
        click.echo(f"\nevery figure: {report}")
    for problem in result.problems:
        click.echo(f"left out: {problem}", err=True)
    return exits.INPUTS_FAILED if result.problems else exits.OK


command.add_command(compare)


def main() -> None:
    exits.run(command)

"""unet-train: train a model; its subcommands are in modules of their own."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from unet_runtime.cli import exits
from unet_runtime.cli.shared import CommandGroup, option_group, setup_logging, verbosity
from unet_runtime.core.errors import OK
from unet_runtime.core.text import table
from unet_training import __version__, processes
from unet_training.cli import options
from unet_training.cli.compare import compare
from unet_training.cli.dataset import check, download
from unet_training.cli.evaluate import evaluate
from unet_training.cli.start import import_keras, print_result
from unet_training.errors import TrainingInterruptedError
from unet_training.recipes import PRESETS, Recipe

if TYPE_CHECKING:
    from unet_training.pipeline import Result

logger = logging.getLogger(__name__)

SYNTHETIC = "synthetic"

EXAMPLES = """\b
Examples:
  unet-train                                      the preset edge on Oxford-IIIT Pet, downloaded if missing
  unet-train --data synthetic -o demo             two minutes, offline: generated pictures
  unet-train --preset article --split official    another recipe, changed in one field
  unet-train --architecture attention --width 8   another network
  unet-train --preset accurate                    the same network at 256 pixels
  unet-train --data welds --preset few            forty photos of your own
  unet-train --resume                             go on with the training that was killed in artifacts/
  unet-train --resume --epochs 30                 prolong a training that has ended
  unet-train --weights old.keras --epochs 5       train an existing model further
  unet-train evaluate artifacts/model.keras       measure it on the photos that training did not see"""

_PATHS = ("data", "output", "weights", "teacher", "encoder_weights", "class_weights")
_WITHOUT_EFFECT = (
    "cache",
    "no_cache",
    "resume",
    "overwrite",
    "tensorboard",
    "json_file",
    "verbosity",
    "hosts",
    "host_number",
)
"""Parameters that change nothing about the model."""

_OTHERS = ("weights", "teacher", "seed", "resume", "overwrite", "distribute", "tensorboard")
"""Parameters that go to the training as they are."""

_LABELS = ("layout", "classes", "ignore")
"""Parameters that say how the data is read."""

_TEXTS = ("name", "license", "data_license")

_QUIET = -1  # of ``verbosity``
_TEST_SHARE = 4  # of generated pictures, one in four is kept for the test


@click.group(cls=CommandGroup, invoke_without_command=True, epilog=EXAMPLES)
@option_group(
    "Data",
    options.data_option(
        "Folder of photos and labels; the default one is downloaded if missing. Or generated pictures (./synthetic: a "
        "folder so named).",
        type=options.DataName(),
        metavar=f"PATH|{SYNTHETIC}",
        default=options.DEFAULT_DATA,
    ),
    click.option(
        "--synthetic-count",
        type=click.IntRange(8, 1_000_000),
        default=360,
        help="Pictures to generate; a quarter of them are kept for the test.",
    ),
    click.option(
        "--group-by",
        type=options.DataName(),
        metavar="REGEX",
        help="Keep photos together in which this finds the same part of the name: frames of a video, a patient's "
        "slices. With --split random:SEED or fold:K/N.",
    ),
    click.option(
        "--crop", is_flag=True, help="Short for --fit crop: for large photos of small objects, later run in tiles."
    ),
    click.option(
        "--cache",
        type=options.FOLDER,
        help="Folder of prepared photos, kept for the next training  [default: OUTPUT/cache]",
    ),
    click.option("--no-cache", is_flag=True, help="Prepare the photos in memory and keep none."),
)
@options.dataset_options
@option_group(
    "Training",
    click.option(
        "--preset",
        type=click.Choice(list(PRESETS)),
        help=f"Recipe to start from  [default: {options.DEFAULT_PRESET}; with --data {SYNTHETIC}: demo]",
    ),
    click.option("--weights", type=options.FILE, help="Start from this .keras model's weights."),
    click.option(
        "--teacher",
        type=options.FILE,
        help="Learn from this .keras model besides the truth (distillation); any input size.",
    ),
    click.option("--seed", type=options.SEED, default=1, help="Seed of all randomness."),
    click.option(
        "--resume",
        is_flag=True,
        help="Go on with the training killed in --output, given the same command; with more --epochs, prolong it.",
    ),
    click.option(
        "--distribute",
        type=click.Choice(("auto", "none")),
        default="auto",
        help="auto: every accelerator takes a share of each batch (KERAS_BACKEND=jax); none: one trains.",
    ),
    click.option(
        "--hosts",
        type=options.Words(),
        metavar="HOST:PORT,HOST...|auto",
        help="Machines that train together, each of which runs this command (KERAS_BACKEND=jax): their names, the "
        "first with a port that the others reach; auto: as Slurm, Open MPI or Kubernetes say. --output is a folder "
        "that all share; the first writes.",
    ),
    click.option(
        "--host-number", type=click.IntRange(1), help="Which of --hosts this process is, from 1; not with auto."
    ),
)
@options.recipe_options()
@option_group(
    "Results",
    options.output_option("artifacts", "model.keras, report.html and its pictures, history.json"),
    click.option(
        "--overwrite", is_flag=True, help="Replace the model of another training in --output, and files of others."
    ),
    click.option(
        "--name", type=options.ModelName(), help="Name of the model  [default: the data's and the preset's name]"
    ),
    click.option("--license", type=options.Words(), help="Licence of the model  [default: what the data's implies]"),
    click.option(
        "--data-license",
        type=options.Words(),
        help="Licence of the data  [default: what a LICENSE or README in it says]",
    ),
    click.option("--tensorboard", type=options.FOLDER, help="Folder of logs for TensorBoard, which needs its extra."),
    options.json_option,
)
@verbosity
@click.version_option(__version__)
@click.pass_context
def command(
    context: click.Context,
    /,
    data: str,
    preset: str | None,
    output: Path,
    synthetic_count: int,
    cache: Path | None,
    no_cache: bool,
    json_file: Path | None,
    verbosity: int | None,
    hosts: str | None,
    host_number: int | None,
    **settings: Any,
) -> int:
    """Train a segmentation model, choose its best epoch, measure it, and write one model.keras that carries its spec.

    Options that are not given come from the preset. Ctrl-C after the first epoch keeps the best one so far.
    """
    if context.invoked_subcommand is not None:
        return OK
    setup_logging(verbosity)
    synthetic = data == SYNTHETIC
    if not synthetic and context.get_parameter_source("synthetic_count") is not ParameterSource.DEFAULT:
        raise click.UsageError(f"--synthetic-count goes with --data {SYNTHETIC}, here --data is {data}")
    if no_cache and cache is not None:
        raise click.UsageError("--cache and --no-cache exclude each other")
    others = {name: settings.pop(name) for name in _OTHERS}
    if settings.pop("crop"):
        if settings["fit"] not in (None, "crop"):
            raise click.UsageError(f"--crop is --fit crop, and --fit is {settings['fit']}: expected one of them")
        settings["fit"] = "crop"
    texts: dict[str, Any] = {name: settings.pop(name) or "" for name in _TEXTS}
    labels: dict[str, Any] = {name: settings.pop(name) for name in _LABELS}
    group_by = settings.pop("group_by")
    recipe = options.make_recipe(preset or ("demo" if synthetic else options.DEFAULT_PRESET), settings)
    recipe = options.with_groups(recipe, group_by)
    _start(hosts, host_number, others)
    from unet_training.build import input_spec
    from unet_training.data.cache import PhotoCache
    from unet_training.pipeline import check_output, train
    from unet_training.report import FILES, write_report

    overwrite = others["overwrite"] or not processes.is_first()
    read = [others["weights"], others["teacher"], *_named_files(recipe, labels["classes"])]
    check_output(output, resume=others["resume"], overwrite=overwrite, read=tuple(filter(None, read)))
    options.check_files(map(output.joinpath, FILES), json_file, read, overwrite=overwrite)
    for size in recipe.sizes or (recipe.size,):  # before the data is downloaded
        input_spec(recipe, size)
    try:
        dataset = options.read_dataset(_folder(data, output, synthetic_count, others["seed"]), **labels)
        options.check_files((), json_file, options.dataset_files(dataset), overwrite=overwrite)
        result = train(
            recipe,
            dataset,
            output,
            cache=None if no_cache else PhotoCache(cache or output / "cache"),
            data_name=SYNTHETIC if synthetic else "",
            **texts,
            command=_recorded_command(context),
            terminal=sys.stderr if sys.stderr.isatty() else None,
            **others,
        )
        if processes.is_first():
            write_report(result, output)
    except KeyboardInterrupt as error:
        raise TrainingInterruptedError("interrupted before the end of the first epoch: nothing was kept") from error
    if processes.is_first():
        _print(result, output, json_file, synthetic)
    return exits.stopped() if result.interrupted else OK


def _start(hosts: str | None, number: int | None, others: Mapping[str, Any]) -> None:
    """Load Keras, and meet the other processes of the training."""
    _check_hosts(hosts, number, others)
    import_keras(hosts, number)
    if not processes.is_first():
        setup_logging(_QUIET)  # all say the same


def _check_hosts(hosts: str | None, number: int | None, others: Mapping[str, Any]) -> None:
    """Refuse what does not go together with, or without, ``--hosts``.

    Raises:
        click.UsageError: exit code 2.
        TrainingError: Keras runs on another backend than JAX.
    """
    if hosts is None:
        if number is not None:
            raise click.UsageError("--host-number without --hosts: it says which of them this process is.")
        return
    if others["distribute"] == "none":
        raise click.UsageError("--hosts and --distribute none: the machines' devices share each batch, or one trains.")
    if others["tensorboard"] is not None:
        raise click.UsageError("--hosts and --tensorboard: its pictures are made by one process: leave it out.")
    names = hosts.split(",")
    if hosts == processes.AUTO:
        if number is not None:
            raise click.UsageError("--hosts auto and --host-number: JAX finds out which this process is: leave it out.")
    elif number is None or number > len(names):
        raise click.UsageError(f"--host-number {number}, expected 1 to {len(names)}: which of --hosts this process is.")
    elif not all(names) or not names[0].rpartition(":")[2].isdigit() or ":" not in names[0]:
        raise click.UsageError(f"--hosts {hosts}, expected HOST:PORT,HOST..., such as 10.0.0.1:7000,10.0.0.2, or auto.")
    processes.require_jax()


for subcommand in (download, check, evaluate, compare):
    command.add_command(subcommand)


def _named_files(recipe: Recipe, classes: str | None) -> list[Path]:
    """What may be files among the options that take words, too."""
    return [Path(word) for word in (recipe.encoder_weights, recipe.class_weights, classes) if word]


def _folder(data: str, output: Path, count: int, seed: int) -> Path:
    """The folder of photos, drawn where that has not been done yet; the default one is downloaded, and no other: its
    name may be a slip of the fingers."""
    from unet_training.data import dataset, synthetic

    if data != SYNTHETIC:
        if Path(data) == Path(options.DEFAULT_DATA):
            dataset.ensure_dataset(Path(data))
        return Path(data)
    folder = output / SYNTHETIC
    test = count // _TEST_SHARE
    logger.info("%d generated pictures in %s, %d of them for the test", count, folder, test)
    synthetic.ensure_dataset(folder, train=count - test, test=test, seed=seed)
    return folder


def _recorded_command(context: click.Context) -> str:
    """The command with the options that were given, in the order of ``--help``, folders by their last name only:
    the spec travels with the model, and another machine's folders say nothing there."""
    words = ["unet-train"]
    for parameter, value in options.given(context):
        if parameter.name not in _WITHOUT_EFFECT:
            words += options.as_typed(parameter, value if parameter.name not in _PATHS else Path(value).resolve().name)
    return shlex.join(words)


def _print(result: Result, output: Path, json_file: Path | None, synthetic: bool) -> None:
    metrics = json.dumps({"model": str(result.model), **result.spec.provenance.metrics}, indent=1)
    print_result(_as_text(result, output), metrics, json_file)
    if synthetic:
        logger.warning("trained on drawn animals: for trying it out only, of no use on photos")


def _as_text(result: Result, output: Path) -> str:
    from unet_training.report import REPORT

    metrics = result.spec.provenance.metrics
    heading = f"{result.spec.name}, epoch {metrics['epoch']}, on {metrics['photos']} {metrics['split']} photos"
    values = {"loss": metrics["loss"], "pixel accuracy": metrics["pixel_accuracy"], "mean IoU": metrics["mean_iou"]}
    for name, value in metrics["iou"].items():
        values[f"  {name} IoU"] = value
    rows = [(label, f"{value:.4f}") for label, value in values.items()]
    for name in metrics.get("absent", ()):
        rows.append((f"  {name} IoU", "in no photo"))
    return f"{heading}\n{table(rows, indent='  ')}\nmodel   {result.model}\nreport  {output / REPORT}"


def main() -> None:
    """Run the command."""
    exits.stop_once()
    exits.run(command)

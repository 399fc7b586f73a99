"""unet-bench: what each model costs in each engine on this machine."""

from __future__ import annotations

import logging
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import click

from unet_runtime import __version__
from unet_runtime.bench import photos as photo_files
from unet_runtime.bench import plot
from unet_runtime.bench.benchmark import bench
from unet_runtime.bench.measure import Settings
from unet_runtime.bench.plan import model_files, plan
from unet_runtime.bench.report import Report, to_json, to_text
from unet_runtime.bench.worker import KINDS
from unet_runtime.cli import exits
from unet_runtime.cli.shared import (
    COUNT,
    MAX_THREADS,
    PATH,
    GroupedCommand,
    NameList,
    PathName,
    echo,
    option_group,
    overwrite_option,
    refuse_model,
    setup_logging,
    verbosity,
)
from unet_runtime.core.cores import usable_cores
from unet_runtime.core.errors import INPUTS_FAILED, MODEL, OK, OutputError
from unet_runtime.core.files import is_stream, replacing, write_text
from unet_runtime.core.install import pip_command
from unet_runtime.engines import DEVICES, ENGINES
from unet_runtime.io.places import Places

logger = logging.getLogger(__name__)

_STDOUT = Path("-")

_EXAMPLES = """\b
Examples:
  unet-bench                                      the bundled models, every engine, one and all cores
  unet-bench artifacts/export --data $PETS_DIR    the files of an export, with their accuracy
  unet-bench model.onnx --threads 1,2,4 --json    one model; the measurements as JSON on standard output"""


class _ThreadList(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """``1,all`` -> (1, 8); each number once."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        counts: list[int] = []
        for part in str(value).split(","):
            text = part.strip()
            count = usable_cores() if text == "all" else _number(text)
            if not 1 <= count <= MAX_THREADS:
                self.fail(f"{text!r}, expected numbers from 1 to {MAX_THREADS:,}, or all, as 1,2,all", param, ctx)
            counts.append(count)
        return tuple(dict.fromkeys(counts))


def _number(text: str) -> int:
    """A whole number; -1 for anything else, and for more digits than Python reads."""
    try:
        return int(text)
    except ValueError:
        return -1


@click.command(cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("models", nargs=-1, type=PATH, metavar="[MODEL]...")
@option_group(
    "Engines and devices",
    click.option(
        "--backend",
        "backends",
        type=NameList(tuple(ENGINES)),
        default=(),
        metavar="LIST",
        help=f"Engines, some of {','.join(ENGINES)} (default: every engine that is installed and reads the model).",
    ),
    click.option(
        "--device",
        "devices",
        type=NameList(DEVICES),
        default="auto",
        metavar="LIST",
        help=f"Devices, some of {','.join(DEVICES)}.",
    ),
    click.option(
        "--threads",
        type=_ThreadList(),
        default="1,all",
        metavar="LIST",
        help="Numbers of CPU threads; all: every core that this process may use.",
    ),
)
@option_group(
    "Photos",
    click.option(
        "--photos",
        type=PATH,
        help="Folder of photos to time; of a dataset, accuracy on all of them.",
    ),
    click.option(
        "--data",
        type=PATH,
        envvar="PETS_DIR",
        show_envvar=True,
        help="Dataset of the models' classes: accuracy on the test part of each model's own split.",
    ),
    click.option(
        "--count", type=COUNT, default=200, help="Number of photos that accuracy is measured on, spread evenly."
    ),
    click.option("--rounds", type=COUNT, default=5, help="Turns of each combination, each in a new process."),
    click.option("--photos-a-round", type=COUNT, default=20, help="Photos timed in each turn."),
    click.option(
        "--save",
        "picture",
        type=click.Choice(list(KINDS)),
        default="mask",
        help="Picture that is made of each photo and encoded.",
    ),
)
@option_group(
    "Results",
    click.option("-o", "--output", type=PATH, default="unet-bench", help="Folder of bench.json and bench.png."),
    click.option(
        "--json",
        "json_path",
        type=PathName(dir_okay=False, allow_dash=True),
        is_flag=False,
        flag_value="-",
        metavar="[PATH]",
        help="Print one JSON object instead of text; with PATH, write it there instead of into the folder.",
    ),
    overwrite_option,
)
@verbosity
@click.version_option(__version__)
def command(
    models: tuple[Path, ...],
    backends: tuple[str, ...],
    devices: tuple[str, ...],
    threads: tuple[int, ...],
    photos: Path | None,
    data: Path | None,
    count: int,
    rounds: int,
    photos_a_round: int,
    picture: str,
    output: Path,
    json_path: Path | None,
    overwrite: bool,
    verbosity: int | None,
) -> int:
    """Measure MODELs (files, or folders of them; default: the bundled ones) on this machine.

    Every model in every engine with each number of threads: milliseconds per photo from file to PNG by stage, photos
    per second, cold start, memory, and accuracy where there are labels.
    """
    setup_logging(verbosity)
    to_stdout = json_path == _STDOUT
    path = output / "bench.json" if json_path is None or to_stdout else json_path
    for folder in (output, path.parent):
        _check_writable(folder)  # now, not after minutes of measuring
    files = model_files(models, backends)
    refuse_model("--json", path, files)
    plot_path = output / "bench.png"
    places = Places(files, overwrite=overwrite, command="unet-bench")
    for place in (path, plot_path):
        if not is_stream(place):
            places.check(place)
    combinations, refusals = plan(files, backends, devices, threads)
    timed, problems = photo_files.timed_photos(photos or data, rounds * photos_a_round)
    for problem in problems:
        logger.error("%s", problem)
    settings = Settings(timed, rounds, photos_a_round, picture)
    labelled = partial(photo_files.labelled_photos, photos=photos, data=data, count=count)
    report = bench(combinations, refusals, settings, labelled)
    echo(to_json(report) if to_stdout else to_text(report))
    _write(report, path, plot_path)
    if not report.measured:
        return MODEL
    return INPUTS_FAILED if report.failed or problems else OK


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error}): see --output, --json") from error


def _write(report: Report, json_path: Path, plot_path: Path) -> None:
    """Write the JSON and, where there is something to draw and matplotlib to draw it with, the plot."""
    write_text(json_path, to_json(report) + "\n", "see --output, --json")
    logger.info("written: %s", json_path)
    if report.measured and not plot.available():
        logger.warning("no plot: matplotlib is not installed: %s", pip_command("bench"))
    elif report.measured:
        with replacing(plot_path, "see --output") as file:
            plot.draw(report, file)
        logger.info("written: %s", plot_path)


def main() -> None:
    exits.stop_once()  # a signal ends the worker, too
    exits.run(command)

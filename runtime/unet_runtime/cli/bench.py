"""unet-bench: what each model costs in each engine on this machine."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

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
from unet_runtime.core.cores import usable_cores
from unet_runtime.core.errors import OutputError
from unet_runtime.core.files import replacing
from unet_runtime.engines import DEVICES, ENGINES


def _list_of(known: tuple[str, ...]) -> Callable[[click.Context, click.Parameter, str], tuple[str, ...]]:
    """A callback: ``a,b`` -> ("a", "b"), each of ``known``; nothing -> ()."""

    def read(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(part.strip() for part in value.split(","))) if value else ()
        for name in names:
            if name not in known:
                raise click.BadParameter(f"{name!r}, expected some of {','.join(known)}")
        return names

    return read


def _threads(context: click.Context, parameter: click.Parameter, value: str) -> tuple[int, ...]:
    """``1,all`` -> (1, 8); once where that is the same."""
    counts = [str(usable_cores()) if part.strip() == "all" else part.strip() for part in value.split(",")]
    for count in counts:
        if not count.isdecimal() or int(count) < 1:
            raise click.BadParameter(f"{count!r}, expected numbers of threads from 1 up, or all, as 1,2,all")
    return tuple(dict.fromkeys(map(int, counts)))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("models", nargs=-1, type=click.Path(path_type=Path), metavar="[MODEL]...")
@click.option(
    "--backend",
    "backends",
    callback=_list_of(tuple(ENGINES)),
    default="",
    metavar="LIST",
    help=f"Of {','.join(ENGINES)} (default: every engine that is installed and reads the model).",
)
@click.option(
    "--device",
    "devices",
    callback=_list_of(DEVICES),
    default="auto",
    show_default=True,
    metavar="LIST",
    help=f"Of {','.join(DEVICES)}.",
)
@click.option(
    "--threads",
    callback=_threads,
    default="1,all",
    show_default=True,
    metavar="LIST",
    help="Numbers of CPU threads; all: every core that this process may use.",
)
@click.option(
    "--photos",
    type=click.Path(path_type=Path),
    help="Folder of photos to time; with images/ and annotations/trimaps/ in it, accuracy on all of them.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Dataset in Oxford-IIIT Pet's layout: accuracy on the test part of each model's own split.",
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    help="Photos that accuracy is measured on, spread evenly.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Turns of each combination, each in a new process.",
)
@click.option(
    "--photos-a-round", type=click.IntRange(min=1), default=20, show_default=True, help="Photos timed in each turn."
)
@click.option(
    "--save",
    "kind",
    type=click.Choice(list(KINDS)),
    default="mask",
    show_default=True,
    help="Picture that is made of each photo and encoded.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default="unet-bench",
    show_default=True,
    help="Folder of bench.json and bench.png.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the JSON here instead.")
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
    kind: str,
    output: Path,
    json_path: Path | None,
) -> int:
    """Measure MODELs (files, or folders of them; default: the bundled ones) on this machine.

    Every model in every engine with each number of threads: milliseconds a photo from file to PNG by stage, photos a
    second, cold start, memory, and accuracy where there are trimaps.
    """
    json_path = json_path or output / "bench.json"
    for folder in (output, json_path.parent):
        _check_writable(folder)  # now, not after minutes of measuring
    combinations, refusals = plan(model_files(models, backends), backends, devices, threads)
    _say("reading the photos")
    timed, problems = photo_files.timed_photos(photos or data, rounds * photos_a_round)
    _say("")
    for problem in problems:
        click.echo(f"error: {problem}", err=True)
    settings = Settings(timed, rounds, photos_a_round, kind)
    truth = partial(photo_files.truth, photos=photos, data=data, count=count)
    report = bench(combinations, refusals, settings, truth, _say)
    _say("")
    click.echo(to_text(report))
    for line in _write(report, json_path, output / "bench.png"):
        click.echo(line)
    if not report.measured:
        return exits.MODEL
    return exits.INPUTS_FAILED if report.failed or problems else exits.OK


def _say(line: str) -> None:
    """What is being done, in one line that the next replaces; in a log it would be noise."""
    if sys.stderr.isatty():
        click.echo(f"\r\033[K{line}", err=True, nl=False)


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error}): see --output, --json") from error


def _write(report: Report, json_path: Path, plot_path: Path) -> list[str]:
    """Write the JSON and, where there is something to draw and something to draw with, the plot; say which."""
    text = json.dumps(to_json(report), indent=1, allow_nan=False)  # ASCII: a file name need not be Unicode text
    with replacing(json_path) as file:
        file.write(text.encode() + b"\n")
    lines = [f"written: {json_path}"]
    if report.measured and not plot.available():
        lines.append(f"no plot: matplotlib is not installed: {plot.INSTALL}")
    elif report.measured:
        with replacing(plot_path) as file:
            plot.draw(report, file)
        lines.append(f"written: {plot_path}")
    return lines


def main() -> None:
    exits.stop_once()  # the children end with us
    exits.run(command)

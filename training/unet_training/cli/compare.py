"""unet-train compare."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unet_runtime.cli.shared import (
    COUNT,
    MAX_COUNT,
    GroupedCommand,
    option_group,
    overwrite_option,
    setup_logging,
    verbosity,
)
from unet_runtime.core import files
from unet_runtime.core.errors import GATE, OK
from unet_runtime.io.kind import STAMP_KEY
from unet_runtime.io.stamps import page_mark
from unet_training.cli import options
from unet_training.cli.start import import_keras, print_result
from unet_training.compare.points import FAMILY, Point, parse
from unet_training.files import COMMAND
from unet_training.recipes import PRESETS, Recipe

if TYPE_CHECKING:
    from unet_training.compare.result import Row
    from unet_training.compare.steps import Steps

logger = logging.getLogger(__name__)

EXAMPLES = """\b
Examples:
  unet-train compare --data pets                       every architecture
  unet-train compare unet:16 edge-fast:24 --data pets --epochs 5"""


@click.command(cls=GroupedCommand, epilog=EXAMPLES)
@click.argument("points", nargs=-1, metavar="[NAME[:WIDTH[:DEPTH]][@SIZE]]...")
@option_group("Data", options.data_option("Folder of photos and labels.", required=True))
@option_group(
    "Training",
    click.option(
        "--preset", type=click.Choice(list(PRESETS)), default=options.DEFAULT_PRESET, help="Recipe of every network."
    ),
    click.option("--seed", type=options.SEED, default=1, help="Seed of every training."),
)
@options.recipe_options("architecture", "filters", "depth", "encoder_weights", "encoder_rate")
@option_group(
    "Export and timing",
    click.option(
        "--parity-count",
        type=click.IntRange(64, MAX_COUNT),
        default=512,
        help="Test photos on which each export is compared with its model.",
    ),
    click.option("--rounds", type=COUNT, default=5, help="Rounds of the timing."),
)
@option_group(
    "Results",
    options.output_option(
        "artifacts/compare", "compare.json, compare.md and compare.png, and of each network's folder"
    ),
    options.json_option,
    overwrite_option,
)
@verbosity
@click.pass_context
def compare(
    context: click.Context,
    /,
    points: tuple[str, ...],
    data: Path,
    preset: str,
    output: Path,
    seed: int,
    parity_count: int,
    rounds: int,
    json_file: Path | None,
    overwrite: bool,
    verbosity: int | None,
    **changes: Any,
) -> int:
    """Train networks alike, export, prove and time them, and draw accuracy against what it costs.

    Without names: every architecture. A name is followed by the filters of the first stage, the stages, and the
    input's size where that is not --size, as edge-fast:24 or unet2015:8:3@212. What was done is not done again: after
    Ctrl-C the same command goes on. Every step is one of the commands unet-train, unet-export and unet-bench.
    """
    setup_logging(verbosity)
    recipes = {point: _recipe(point, preset, changes) for point in map(parse, points or FAMILY)}
    table, page, plot = map(output.joinpath, ("compare.json", "compare.md", "compare.png"))
    options.check_files((table, page, plot), json_file, overwrite=overwrite)
    import_keras()
    from unet_training.compare.plot import draw
    from unet_training.compare.result import as_json, markdown
    from unet_training.compare.steps import Steps

    training = ["--preset", preset, "--seed", str(seed), *options.recipe_words(context)]
    rows = _compare(recipes, Steps(data, output, training, parity_count, rounds))
    settings = {"training": training, "parity_photos": parity_count, "rounds": rounds}
    text, json_text = markdown(rows), json.dumps(as_json(rows, settings), indent=1)
    files.write_text(table, json.dumps({STAMP_KEY: COMMAND} | json.loads(json_text), indent=1) + "\n")
    files.write_text(page, page_mark(COMMAND) + text)
    draw(rows, plot)
    places = f"table  {page}\nplot   {plot}"
    print_result(f"\n{text}\n{places}", json_text, json_file)
    passed = all(artifact.passed for row in rows for artifact in row.artifacts)
    return OK if passed else GATE


def _recipe(point: Point, preset: str, changes: dict[str, Any]) -> Recipe:
    own = {"architecture": point.architecture, "filters": point.filters, "depth": point.depth}
    if point.size:
        own |= {"size": point.size, "sizes": None}
    return options.make_recipe(preset, changes | own)


def _compare(recipes: dict[Point, Recipe], steps: Steps) -> list[Row]:
    from unet_training.build import build_model
    from unet_training.compare.result import make_row

    parameters, specs = {}, {}
    for point, recipe in recipes.items():  # before minutes of training: a network that cannot be built says so
        parameters[point] = build_model(recipe).count_params()
    for number, (point, recipe) in enumerate(recipes.items(), start=1):
        logger.info("network %d of %d: %s, %s parameters", number, len(recipes), point.label, f"{parameters[point]:,}")
        specs[point] = steps.train(steps.output / point.folder, _own_words(point, recipe))
    exported = {point: steps.export(steps.output / point.folder) for point in recipes}
    artifacts: list[Path] = []
    for paths, _ in exported.values():
        artifacts += paths
    bench = steps.bench(artifacts)
    return [make_row(point, specs[point], parameters[point], *exported[point], bench) for point in recipes]


def _own_words(point: Point, recipe: Recipe) -> list[str]:
    words = ["--architecture", point.architecture, "--width", str(recipe.filters)]
    for option, value in (("--depth", point.depth), ("--size", point.size), ("--sizes", point.size)):
        if value is not None:
            words += [option, str(value)]
    return words

"""unet-train compare: the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unet_runtime.cli import exits
from unet_training.cli.options import make_recipe, recipe_words, training_options
from unet_training.compare.points import FAMILY, Point, parse
from unet_training.recipes import PRESETS, Recipe

if TYPE_CHECKING:
    from unet_training.compare.result import Row


@click.command()
@click.argument("points", nargs=-1, metavar="[NAME[:WIDTH[:DEPTH]][@SIZE]]...")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="PETS_DIR",
    required=True,
    show_envvar=True,
    help="Dataset in Oxford-IIIT Pet's layout.",
)
@click.option("--preset", type=click.Choice(list(PRESETS)), default="edge", show_default=True, help="Recipe of each.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("artifacts/compare"),
    show_default=True,
    help="Folder of compare.json, compare.md and compare.png, and of a folder for each network.",
)
@training_options
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
@click.option(
    "--parity-count",
    type=click.IntRange(min=64),
    default=512,
    show_default=True,
    help="Test photos that each export is held against its model on.",
)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Turns of the timing.")
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
    **changes: Any,
) -> int:
    """Train networks alike, export, prove and time them, and draw accuracy against what it costs.

    Without names: every architecture. A name is followed by the filters of the first stage, the stages, and the
    input's size where that is not --size, as edge-fast:24 or unet2015:8:3@212. What was done is not done again: after
    Ctrl-C the same command goes on. Every step is one of the commands unet-train, unet-export and unet-bench.
    """
    recipes = {point: _recipe(point, preset, changes) for point in map(parse, points or FAMILY)}
    training = ["--preset", preset, "--seed", str(seed), *recipe_words(context)]
    rows = _compare(recipes, training, data, output, parity_count, rounds)
    _write(rows, output, {"training": training, "parity_photos": parity_count, "rounds": rounds})
    return exits.OK if all(one.passed for row in rows for one in row.artifacts) else exits.GATE


def _recipe(point: Point, preset: str, changes: dict[str, Any]) -> Recipe:
    own = {"architecture": point.architecture, "filters": point.filters, "depth": point.depth, "size": point.size}
    own = {name: value for name, value in own.items() if value is not None}
    if point.size:
        changes = changes | {"sizes": None}
    return make_recipe(preset, changes | own)


def _compare(
    recipes: dict[Point, Recipe], training: list[str], data: Path, output: Path, parity_count: int, rounds: int
) -> list[Row]:
    from unet_training.cli.command import import_keras

    import_keras()
    from unet_training.build import build_model
    from unet_training.compare.result import row
    from unet_training.compare.steps import Steps

    parameters = {point: build_model(recipe).count_params() for point, recipe in recipes.items()}
    steps = Steps(data, output, training, parity_count, rounds)
    specs = {}
    for number, (point, recipe) in enumerate(recipes.items(), start=1):
        click.echo(f"\n== {number} of {len(recipes)}: {point.label}, {parameters[point]:,} parameters")
        specs[point] = steps.train(output / point.folder, _own_words(point, recipe))
    exported = {point: steps.export(output / point.folder) for point in recipes}
    bench = steps.bench([path for paths, _ in exported.values() for path in paths])
    return [row(point, specs[point], parameters[point], *exported[point], bench) for point in recipes]


def _own_words(point: Point, recipe: Recipe) -> list[str]:
    words = ["--architecture", point.architecture, "--width", str(recipe.filters)]
    words += [] if point.depth is None else ["--depth", str(point.depth)]
    return words + ([] if point.size is None else ["--size", str(point.size), "--sizes", str(point.size)])


def _write(rows: list[Row], output: Path, settings: dict[str, Any]) -> None:
    from unet_training.compare.plot import draw
    from unet_training.compare.result import as_json, table
    from unet_training.files import replacing

    text = "\n".join(table(rows)) + "\n"
    contents = {"compare.json": json.dumps(as_json(rows, settings), indent=1) + "\n", "compare.md": text}
    for name, content in contents.items():
        with replacing(output / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    draw(rows, output / "compare.png")
    click.echo(f"\n{text}\ntable  {output / 'compare.md'}\nplot   {output / 'compare.png'}")

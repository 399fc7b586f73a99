"""Command-line options of a recipe's fields."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from unet_runtime.errors import SourceError
from unet_runtime.labelled import check_split
from unet_training.recipes import PRESETS, Recipe

PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
REGION_LOSSES = ("none", "dice", "lovasz")
ARCHITECTURE_NAMES = (
    "unet", "unet2015", "attention", "residual", "recurrent-residual", "dense", "ladder", "canet", "edge-fast",
    "lite", "lite1", "lite2",
)  # fmt: skip
"""Those of ``models.ARCHITECTURES``, which takes seconds to import."""

PRETRAINED_NAMES = ("lite", "lite1", "lite2")
"""Those of ``encoder_weights.PUBLISHED``: they have an encoder that others have trained."""

_FIELDS = {entry.name for entry in fields(Recipe)}

Command = TypeVar("Command", bound=Callable[..., Any])


def _sizes(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        sizes = tuple(int(word) for word in value.split(","))
    except ValueError as error:
        raise click.BadParameter(f"{value!r}, expected sizes in pixels with commas between, as 96,128,160") from error
    for size in sizes:
        if size <= 0:
            raise click.BadParameter(f"{size} pixels, expected more than none")
    return sizes


def _split(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else check_split(value)
    except SourceError as error:
        raise click.BadParameter(str(error)) from error


def _option(name: str, kind: Any, explanation: str, field: str = "", **more: Any) -> Callable[[Command], Command]:
    """``field``: of the recipe, where it is not called as the option is."""
    return click.option(name, *([field] if field else []), type=kind, help=explanation, **more)


_NETWORK = (
    _option("--architecture", click.Choice(ARCHITECTURE_NAMES), "Of the network."),
    _option("--width", click.IntRange(min=1), "Filters of the first stage; each below has more.", field="filters"),
    _option("--depth", click.IntRange(min=1), "Stages above the bridge (default: the architecture's own)."),
    _option(
        "--encoder-weights",
        click.STRING,
        "What the encoder of lite, lite1, lite2 starts with: ImageNet's weights, none, or a file of PyTorch.",
        metavar="imagenet|none|FILE",
    ),
    _option(
        "--encoder-rate",
        click.FloatRange(min=0, max=1),
        "That encoder's share of --learning-rate; 0: it stays as it is.",
    ),
)

_TRAINING = (
    _option(
        "--split", click.STRING, "Which photos train and which are kept for the test.",
        callback=_split, metavar="official|article|random:SEED",
    ),
    _option("--epochs", click.IntRange(min=1), "Times to see every photo."),
    _option("--batch-size", click.IntRange(min=1), "Photos a step."),
    _option("--accumulation", click.IntRange(min=1), "Steps whose gradients are summed into one."),
    _option("--size", click.IntRange(min=1), "Input height and width, pixels."),
    _option(
        "--sizes", click.STRING, "Progressive training: sizes in equal shares of the epochs, ending with --size.",
        callback=_sizes, metavar="S,S,...",
    ),
    _option("--augment/--no-augment", None, "Show photos flipped, scaled, shifted, in other colours.", default=None),
    _option("--activation", click.Choice(("softmax", "sigmoid")), "Of the head; the article has sigmoid."),
    _option("--learning-rate", click.FloatRange(min=0, min_open=True), "At its peak."),
    _option("--region-loss", click.Choice(REGION_LOSSES), "Added to the cross-entropy."),
    _option("--region-weight", click.FloatRange(min=0), "Of the region loss; the cross-entropy has 1."),
    _option("--border-weight", click.FloatRange(min=0, min_open=True), "Of a border pixel; others have 1."),
    _option(
        "--outline-weight", click.FloatRange(min=0),
        "Added to a pixel's weight between outlines, as in the U-Net's paper (there 10).",
    ),
    _option("--outline-sigma", click.FloatRange(min=0, min_open=True), "Pixels over which that fades."),
    _option("--distillation-weight", click.FloatRange(min=0), "Of the teacher's answer; the cross-entropy has 1."),
    _option("--ema", click.FloatRange(min=0, max=1, max_open=True), "Momentum of averaged weights; 0: none."),
    _option("--precision", click.Choice(PRECISIONS), "While training; the saved model is float32 always."),
)  # fmt: skip


def recipe_options(command: Command) -> Command:
    """Add an option for each field that a preset can be changed in."""
    return _with(command, _NETWORK + _TRAINING)


def training_options(command: Command) -> Command:
    """The same but for the network's own fields: architecture, width and depth."""
    return _with(command, _TRAINING)


def _with(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def given(context: click.Context) -> Iterator[tuple[click.Parameter, Any]]:
    """The options that were typed, or set in the environment, with their values, in the order of ``--help``."""
    for parameter in context.command.params:
        name = str(parameter.name)
        if context.get_parameter_source(name) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
            yield parameter, context.params[name]


def words(parameter: click.Parameter, value: Any) -> list[str]:
    """An option as it is typed."""
    if parameter.secondary_opts:  # --augment/--no-augment
        return [parameter.opts[0] if value else parameter.secondary_opts[0]]
    return [parameter.opts[0], ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]


def recipe_words(context: click.Context) -> list[str]:
    """The recipe's options that were given, as they are typed."""
    return [
        word for parameter, value in given(context) if parameter.name in _FIELDS for word in words(parameter, value)
    ]


def make_recipe(preset: str, changes: dict[str, Any]) -> Recipe:
    """The preset, changed in the fields whose option was given (the others are None).

    Raises:
        click.UsageError: fields that do not go together.
    """
    recipe = PRESETS[preset]
    changes = {name: value for name, value in changes.items() if value is not None}
    if changes.get("architecture", recipe.architecture) != recipe.architecture:
        changes["name"] = f"{recipe.name.partition('-')[0]}-{changes['architecture']}"  # pets-edge is a U-Net's name
    recipe = replace(recipe, **changes)
    if recipe.architecture not in PRETRAINED_NAMES and (recipe.encoder_weights, recipe.encoder_rate) != ("none", 1.0):
        raise click.UsageError(
            f"--encoder-weights and --encoder-rate go with the architectures {', '.join(PRETRAINED_NAMES)}, "
            f"here it is {recipe.architecture}"
        )
    if recipe.sizes and recipe.sizes[-1] != recipe.size:
        raise click.UsageError(f"--sizes ends with {recipe.sizes[-1]}, expected the model's --size, {recipe.size}")
    if len(recipe.sizes) > recipe.epochs:
        raise click.UsageError(f"--sizes names {len(recipe.sizes)} sizes for {recipe.epochs} epochs, expected no more")
    return recipe

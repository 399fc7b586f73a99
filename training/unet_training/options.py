"""Command-line options of a recipe's fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import click

from unet_runtime.errors import SourceError
from unet_runtime.labelled import check_split
from unet_training.recipes import PRESETS, Recipe

PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
REGION_LOSSES = ("none", "dice", "lovasz")

_SIZE_STEP = 16
"""Four poolings by two."""

Command = TypeVar("Command", bound=Callable[..., Any])


def _size(context: click.Context, parameter: click.Parameter, value: int | None) -> int | None:
    if value is not None and value % _SIZE_STEP:
        raise click.BadParameter(f"{value} pixels, expected a multiple of {_SIZE_STEP} (the model halves four times)")
    return value


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
        _size(context, parameter, size)
    return sizes


def _split(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else check_split(value)
    except SourceError as error:
        raise click.BadParameter(str(error)) from error


def _option(name: str, kind: Any, explanation: str, **more: Any) -> Callable[[Command], Command]:
    return click.option(name, type=kind, help=explanation, **more)


_OPTIONS = (
    _option(
        "--split", click.STRING, "Which photos train and which are kept for the test.",
        callback=_split, metavar="official|article|random:SEED",
    ),
    _option("--epochs", click.IntRange(min=1), "Times to see every photo."),
    _option("--batch-size", click.IntRange(min=1), "Photos a step."),
    _option("--accumulation", click.IntRange(min=1), "Steps whose gradients are summed into one."),
    _option("--filters", click.IntRange(min=1), "Filters of the first stage; each below doubles them."),
    _option("--size", click.IntRange(min=_SIZE_STEP), "Input height and width, pixels.", callback=_size),
    _option(
        "--sizes", click.STRING, "Progressive training: sizes in equal shares of the epochs, ending with --size.",
        callback=_sizes, metavar="S,S,...",
    ),
    _option("--activation", click.Choice(("softmax", "sigmoid")), "Of the head; the article has sigmoid."),
    _option("--learning-rate", click.FloatRange(min=0, min_open=True), "At its peak."),
    _option("--region-loss", click.Choice(REGION_LOSSES), "Added to the cross-entropy."),
    _option("--region-weight", click.FloatRange(min=0), "Of the region loss; the cross-entropy has 1."),
    _option("--border-weight", click.FloatRange(min=0, min_open=True), "Of a border pixel; others have 1."),
    _option("--distillation-weight", click.FloatRange(min=0), "Of the teacher's answer; the cross-entropy has 1."),
    _option("--ema", click.FloatRange(min=0, max=1, max_open=True), "Momentum of averaged weights; 0: none."),
    _option("--precision", click.Choice(PRECISIONS), "While training; the saved model is float32 always."),
)  # fmt: skip


def recipe_options(command: Command) -> Command:
    """Add an option for each field that a preset can be changed in."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def make_recipe(preset: str, changes: dict[str, Any]) -> Recipe:
    """The preset, changed in the fields whose option was given (the others are None).

    Raises:
        click.UsageError: fields that do not go together.
    """
    recipe = replace(PRESETS[preset], **{name: value for name, value in changes.items() if value is not None})
    if recipe.sizes and recipe.sizes[-1] != recipe.size:
        raise click.UsageError(f"--sizes ends with {recipe.sizes[-1]}, expected the model's --size, {recipe.size}")
    if len(recipe.sizes) > recipe.epochs:
        raise click.UsageError(f"--sizes names {len(recipe.sizes)} sizes for {recipe.epochs} epochs, expected no more")
    return recipe

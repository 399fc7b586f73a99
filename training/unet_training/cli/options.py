"""Command-line options of a recipe's fields, in groups, and the defaults that the presets give them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from unet_runtime.cli.shared import option_group
from unet_runtime.core.datasets.oxford_pets import check_split
from unet_runtime.core.errors import SourceError
from unet_training.encoder_weights import NONE, PUBLISHED
from unet_training.models import ARCHITECTURES
from unet_training.recipes import PRESETS, Recipe

DEFAULT_PRESET = "edge"
DEFAULT_DATA = "data/oxford-iiit-pet"

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
JSON_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)

PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")
REGION_LOSSES = ("none", "dice", "lovasz")

_FIELDS = {entry.name for entry in fields(Recipe)}

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]

json_option: Decorator[Any] = click.option(
    "--json",
    "json_file",
    is_flag=False,
    flag_value="-",
    type=JSON_FILE,
    metavar="[FILE]",
    help="Print the result as JSON; with FILE, write it there and print the text as usual.",
)


def data_option(help_text: str, **settings: Any) -> Decorator[Any]:
    """``--data``, a folder in Oxford-IIIT Pet's layout."""
    settings.setdefault("type", FOLDER)
    return click.option("--data", help=help_text, envvar="PETS_DIR", show_envvar=True, **settings)


class _Sizes(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """Sizes in pixels: ``96,128,160``."""

    name = "S,S,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        words = str(value).split(",")
        if not all(word.isdecimal() and int(word) for word in words):
            self.fail(f"{value!r}, expected sizes in pixels with commas between, as 96,128,160", param, ctx)
        return tuple(map(int, words))


class _Split(click.ParamType):  # type: ignore[type-arg]
    """Name of a split."""

    name = "official|article|random:SEED"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return check_split(value)
        except SourceError as error:
            self.fail(str(error), param, ctx)


def _option(name: str, kind: Any, explanation: str, field: str = "", metavar: str | None = None) -> Decorator[Any]:
    """An option that changes ``field`` of the recipe (default: the one named alike)."""
    field = field or name.partition("/")[0].removeprefix("--").replace("-", "_")
    text = f"{explanation}  [{_defaults(field)}]"
    return click.option(name, field, type=kind, metavar=metavar, help=text, default=None)


def _defaults(field: str) -> str:
    """``default: 16; article: 64``: a field in the default preset, and in the presets that have another value."""
    default = getattr(PRESETS[DEFAULT_PRESET], field)
    text = f"default: {_as_text(default)}"
    for name, preset in PRESETS.items():
        value = getattr(preset, field)
        if value != default:
            text += f"; {name}: {_as_text(value)}"
    return text


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "the architecture's own" if value is None else str(value or "none")


_DATA = _option("--split", _Split(), "Which photos train and which are kept for the test.")
_NETWORK = (
    _option("--architecture", click.Choice(list(ARCHITECTURES)), "Architecture of the network."),
    _option("--width", click.IntRange(min=1), "Filters of the first stage; each below has more.", field="filters"),
    _option("--depth", click.IntRange(min=1), "Stages above the bridge."),
    _option(
        "--encoder-weights",
        click.STRING,
        f"Weights that the encoder of {', '.join(PUBLISHED)} starts from: ImageNet's, or a PyTorch file's.",
        metavar="imagenet|none|FILE",
    ),
    _option(
        "--encoder-rate",
        click.FloatRange(min=0, max=1),
        "Learning rate of that encoder, as a share of --learning-rate; 0: its kernels stay.",
    ),
)
_INPUT_OUTPUT = (
    _option("--size", click.IntRange(min=1), "Input height and width, pixels."),
    _option("--sizes", _Sizes(), "Progressive training: in equal shares of the epochs, ending with --size."),
    _option("--activation", click.Choice(("softmax", "sigmoid")), "Activation of the head."),
)
_TRAINING = (
    _option("--epochs", click.IntRange(min=1), "Times to see every photo."),
    _option("--batch-size", click.IntRange(min=1), "Photos per step."),
    _option("--accumulation", click.IntRange(min=1), "Steps whose gradients are summed into one."),
    _option("--augment/--no-augment", None, "Show photos flipped, scaled, shifted, in other colours."),
    _option("--learning-rate", click.FloatRange(min=0, min_open=True), "Learning rate at its peak."),
    _option("--ema", click.FloatRange(min=0, max=1, max_open=True), "Momentum of averaged weights; 0: no averaging."),
    _option("--precision", click.Choice(PRECISIONS), "Precision while training; the saved model is float32 always."),
)
_LOSS = (
    _option("--region-loss", click.Choice(REGION_LOSSES), "Loss added to the cross-entropy."),
    _option("--region-weight", click.FloatRange(min=0), "Weight of the region loss, the cross-entropy having 1."),
    _option("--border-weight", click.FloatRange(min=0, min_open=True), "Weight of border pixels, others having 1."),
    _option(
        "--outline-weight", click.FloatRange(min=0), "Weight added to pixels between outlines (U-Net's paper: 10)."
    ),
    _option("--outline-sigma", click.FloatRange(min=0, min_open=True), "Pixels over which that weight fades."),
    _option("--distillation-weight", click.FloatRange(min=0), "Weight of the distance from --teacher's output."),
)


def recipe_options(*, network: bool = True) -> Decorator[Any]:
    """An option for every field that a preset can be changed in.

    Args:
        network: those of the network itself too: architecture, width and depth.
    """

    def decorate(command: Any) -> Any:
        command = option_group("Loss", *_LOSS)(command)
        command = option_group("Training", *_TRAINING)(command)
        command = option_group("Network", *(_NETWORK if network else ()), *_INPUT_OUTPUT)(command)
        return option_group("Data", _DATA)(command)

    return decorate


def given(context: click.Context) -> Iterator[tuple[click.Parameter, Any]]:
    """The options that were typed, or set in the environment, with their values, in the order of ``--help``."""
    for parameter in context.command.params:
        name = str(parameter.name)
        if context.get_parameter_source(name) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
            yield parameter, context.params[name]


def as_typed(parameter: click.Parameter, value: Any) -> list[str]:
    """The words that give an option this value."""
    name = max(parameter.opts, key=len)  # --output, not -o
    if isinstance(value, bool):
        return [name if value else parameter.secondary_opts[0]]
    return [name, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]


def recipe_words(context: click.Context) -> list[str]:
    """The recipe's options that were given, as they are typed."""
    words: list[str] = []
    for parameter, value in given(context):
        if parameter.name in _FIELDS:
            words += as_typed(parameter, value)
    return words


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
    _check_encoder(recipe)
    if recipe.sizes and recipe.sizes[-1] != recipe.size:
        raise click.UsageError(f"--sizes ends with {recipe.sizes[-1]}, expected the model's --size, {recipe.size}")
    if len(recipe.sizes) > recipe.epochs:
        raise click.UsageError(f"--sizes names {len(recipe.sizes)} sizes for {recipe.epochs} epochs, expected no more")
    return recipe


def _check_encoder(recipe: Recipe) -> None:
    if recipe.architecture not in PUBLISHED and (recipe.encoder_weights, recipe.encoder_rate) != (NONE, 1.0):
        raise click.UsageError(
            f"--encoder-weights and --encoder-rate go with the architectures {', '.join(PUBLISHED)}, "
            f"here it is {recipe.architecture}"
        )
    if recipe.optimizer != "adamw" and recipe.encoder_rate != 1.0:
        raise click.UsageError(
            f"--encoder-rate goes with presets that train with adamw, here the optimizer is {recipe.optimizer}"
        )

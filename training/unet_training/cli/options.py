"""Command-line options of a recipe's fields, in groups, and the defaults that the presets give them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import Field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import click
from click.core import ParameterSource

from unet_runtime.cli.shared import PATH, PathName, Real, option_group
from unet_runtime.core.datasets import AUTO, Dataset, check_split, grouped, layouts, open_dataset
from unet_runtime.core.datasets.classes import parse_values
from unet_runtime.core.datasets.splits import AUTOMATIC
from unet_runtime.core.errors import SourceError
from unet_runtime.core.files import is_stream
from unet_runtime.io.places import Places
from unet_training.encoder_weights import NONE, PUBLISHED
from unet_training.files import COMMAND
from unet_training.identity import NAME
from unet_training.models import ARCHITECTURES
from unet_training.recipes import PRESETS, Recipe

DEFAULT_PRESET = "edge"
DEFAULT_DATA = "data/oxford-iiit-pet"

FOLDER = PathName(file_okay=False)
FILE = PathName(dir_okay=False)
JSON_FILE = PathName(dir_okay=False, allow_dash=True)

SEED = click.IntRange(0, 2**32 - 1)
"""As NumPy takes it."""

_MAX_SIZE = 16_384  # pixels
_MAX_DIGITS = 10
_MAX_WORDS = 500
_MOST = {
    "filters": 4096,
    "depth": 16,
    "size": _MAX_SIZE,
    "batch_size": 65_536,
    "accumulation": 65_536,
    "weight_bits": 24,
}
"""Largest values of whole numbers; of all others 1,000,000."""

_FIELDS = {entry.name for entry in fields(Recipe)}

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]


STDOUT = Path("-")


json_option: Decorator[Any] = click.option(
    "--json",
    "json_file",
    is_flag=False,
    flag_value="-",
    type=JSON_FILE,
    metavar="[FILE]",
    help="Print the result as JSON; with FILE, write it there and print the text as usual.",
)


def check_files(
    paths: Iterable[Path], json_file: Path | None, read: Iterable[Path | None] = (), *, overwrite: bool
) -> None:
    """Refuse to replace what is read or what others made: now, not after hours of training.

    Args:
        paths: to be written.
        json_file: the value of ``--json``.
        read: what the command reads.
        overwrite: whether what others made may be replaced.

    Raises:
        OutputError: one of them must stay.
    """
    inputs = tuple(filter(None, read))
    if json_file is not None and json_file != STDOUT and not is_stream(json_file):
        Places(inputs, overwrite=overwrite, command=COMMAND).check(json_file)
    places = Places(inputs, overwrite=overwrite, command=COMMAND)
    for path in paths:
        places.check(path)


def dataset_files(dataset: Dataset) -> Iterator[Path]:
    """Photos and files of labels."""
    for sample in dataset.samples:
        yield sample.photo
        yield sample.labels.path


def data_option(help_text: str, **settings: Any) -> Decorator[Any]:
    """``--data``, a dataset's folder."""
    settings.setdefault("type", FOLDER)
    return click.option("--data", help=help_text, envvar="PETS_DIR", show_envvar=True, **settings)


def output_option(default: str, content: str) -> Decorator[Any]:
    """``--output``, a folder of ``content``."""
    return click.option("-o", "--output", type=FOLDER, default=Path(default), help=f"Folder of {content}.")


class DataName(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """A folder's name, or a word; not the empty one."""

    name = "data"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        PATH.convert(value, param, ctx)
        return str(value)


class ModelName(click.ParamType):  # type: ignore[type-arg]
    """A model's name, which the names of exported files begin with."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not NAME.fullmatch(str(value)):
            self.fail(f"{value!r}, expected up to 100 letters, digits and . + - _, as welds-edge", param, ctx)
        return str(value)


class Words(click.ParamType):  # type: ignore[type-arg]
    """A line of text."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if not text.strip() or not text.isprintable() or len(text) > _MAX_WORDS:
            self.fail(f"{text!r}, expected a line of up to {_MAX_WORDS} letters, as 'CC BY 4.0'", param, ctx)
        return text


class _ClassWeights(DataName):
    """A file's name, or a word."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "none|balanced|FILE"


class _MaskValues(click.ParamType):  # type: ignore[type-arg]
    """Values or colours in masks: ``0,254`` or ``#ffffff``."""

    name = "V,V,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            parse_values(str(value))
        except SourceError as error:
            self.fail(str(error), param, ctx)
        return str(value)


dataset_options: Decorator[Any] = option_group(
    "Labels",
    click.option(
        "--layout", type=click.Choice((AUTO, *layouts())), default=AUTO, help="Layout of the data; auto: detected."
    ),
    click.option(
        "--classes",
        type=DataName(),
        metavar="NAME,NAME,...|FILE",
        help="Classes by id, where need be with value or colour in masks, as cat:3 or cat:#800000, and role; or a "
        "file  [default: classes.yaml in the data, or what the data says]",
    ),
    click.option("--ignore", type=_MaskValues(), help="Mask values or colours that are no class, in addition to 255."),
)


def read_dataset(folder: Path, layout: str, classes: str | None, ignore: str | None) -> Dataset:
    """The dataset as the values of ``dataset_options`` describe it."""
    return open_dataset(folder, layout=layout, classes=classes or (), ignore=parse_values(ignore or ""))


class _Sizes(click.ParamType):  # type: ignore[type-arg]
    """Sizes in pixels: ``96,128,160``."""

    name = "S,S,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        words = str(value).split(",")
        sizes = [int(word) if word.isdecimal() and len(word) < _MAX_DIGITS else 0 for word in words]
        if not all(1 <= size <= _MAX_SIZE for size in sizes):
            self.fail(
                f"{value!r}, expected sizes up to {_MAX_SIZE} pixels with commas between, as 96,128,160", param, ctx
            )
        return tuple(sizes)


class _Split(click.ParamType):  # type: ignore[type-arg]
    """Name of a split."""

    name = "auto|official|random:SEED|fold:K/N|article"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return AUTO if value == AUTO else check_split(value)
        except SourceError as error:
            self.fail(str(error), param, ctx)


class _EncoderWeights(DataName):
    """A file's name, or a word."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "imagenet|none|FILE"


_KINDS: dict[str, Any] = {
    "architecture": click.Choice(list(ARCHITECTURES)),
    "split": _Split(),
    "sizes": _Sizes(),
    "encoder_weights": _EncoderWeights(),
    "class_weights": _ClassWeights(),
}
"""Types of the fields whose annotation does not say which values there are."""


def recipe_options(*without: str) -> Decorator[Any]:
    """An option for every field of a recipe that has one, but those named, in groups."""
    groups: dict[str, list[Decorator[Any]]] = {}
    annotations = get_type_hints(Recipe)
    for entry in fields(Recipe):
        if entry.metadata and entry.name not in without:
            groups.setdefault(entry.metadata["group"], []).append(_option(entry, annotations[entry.name]))

    def decorate(command: Any) -> Any:
        for title, options in reversed(groups.items()):
            command = option_group(title, *options)(command)
        return command

    return decorate


def _option(entry: Field[Any], annotation: Any) -> Decorator[Any]:
    name = "--" + (entry.metadata["option"] or entry.name).replace("_", "-")
    if annotation is bool:
        name += f"/--no-{name.removeprefix('--')}"
    text = f"{entry.metadata['explanation']}  [{_defaults(entry.name)}]"
    return click.option(name, entry.name, type=_kind(entry, annotation), help=text, default=None)


def _kind(entry: Field[Any], annotation: Any) -> Any:
    if annotation is bool:
        return None
    if annotation is float:
        return Real(**({"min": 0} | entry.metadata["limits"]))
    if get_origin(annotation) is Literal:
        return click.Choice(get_args(annotation))
    return _KINDS.get(entry.name) or click.IntRange(1, _MOST.get(entry.name, 1_000_000))


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
        changes["name"] = (
            f"{recipe.name.partition('-')[0]}-{changes['architecture']}"  # pets-edge names another network
        )
        if changes["architecture"] not in PUBLISHED:  # what the preset sets for its own encoder
            recipe = replace(recipe, encoder_weights=NONE, encoder_rate=1.0)
    recipe = replace(recipe, **changes)
    _check_encoder(recipe)
    if recipe.sizes and recipe.sizes[-1] != recipe.size:
        raise click.UsageError(f"--sizes ends with {recipe.sizes[-1]}, expected the model's --size, {recipe.size}")
    if len(recipe.sizes) > recipe.epochs:
        raise click.UsageError(f"--sizes names {len(recipe.sizes)} sizes for {recipe.epochs} epochs, expected no more")
    return recipe


def with_groups(recipe: Recipe, group_by: str | None) -> Recipe:
    """The recipe with a split that keeps photos of one group together.

    Raises:
        click.UsageError: a split whose parts are given, or no pattern.
    """
    if group_by is None:
        return recipe
    split = AUTOMATIC if recipe.split == AUTO else recipe.split
    try:
        return replace(recipe, split=grouped(split, group_by))
    except SourceError as error:
        raise click.UsageError(str(error)) from error


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

"""The command line's options, grouped by what they say; ``cli.py`` puts them on commands."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from unet_export import calibration
from unet_export.formats import FORMATS
from unet_export.photos import MIN_PARITY, PhotoSource
from unet_export.source_model import HEADS, PIXELS, Description, parse_classes
from unet_runtime.core.spec import FITS

FOLDER = click.Path(path_type=Path, file_okay=False)

_Decorator = Callable[[Any], Any]


class Size(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """``160`` or ``160x224``: height and width, pixels."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        found = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", str(value))
        if found is None:
            self.fail(f"{value!r} is no size in pixels, expected HEIGHT or HEIGHTxWIDTH as 160 or 160x224", param, ctx)
        height, width = found.groups()
        return int(height), int(width or height)


class Formats(click.ParamType):  # type: ignore[type-arg]
    """``all``, or names of formats, separated by commas."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if value == "all":
            return tuple(FORMATS)
        names = tuple(dict.fromkeys(part.strip() for part in str(value).split(",")))
        if unknown := [name for name in names if name not in FORMATS]:
            self.fail(f"{', '.join(map(repr, unknown))}: expected all, or some of {', '.join(FORMATS)}", param, ctx)
        return names


def photo_options(function: Any) -> Any:
    """Where calibration and proof have their photos from."""
    return _all(
        function,
        click.option(
            "--data",
            type=FOLDER,
            help="Dataset in Oxford-IIIT Pet's layout: its trainval part calibrates, its test part proves.",
        ),
        click.option("--split", help="Of --data: official, article or random:SEED  [default: the model's own]"),
        click.option("--calibration", type=FOLDER, help="Folder of photos that calibrate, in place of --data's."),
        click.option(
            "--parity",
            type=FOLDER,
            help="Folder of photos that prove, in place of --data's; their trimaps too where it has that layout.",
        ),
        click.option(
            "--calibration-count",
            default=calibration.DEFAULT_COUNT,
            show_default=True,
            type=click.IntRange(min=calibration.MIN_COUNT),
            help="Photos that int8 ranges are measured on; all of a smaller part.",
        ),
        click.option(
            "--parity-count",
            default=128,
            show_default=True,
            type=click.IntRange(min=MIN_PARITY),
            help="Photos that the gate runs; all of a smaller part.",
        ),
    )


def photo_source(given: dict[str, Any]) -> PhotoSource:
    """What ``photo_options`` were given."""
    names = ("data", "calibration", "parity", "calibration_count", "parity_count")
    if given["data"] is None and None in (given["calibration"], given["parity"]):
        raise click.UsageError("--data is missing, or --calibration and --parity, a folder of photos each")
    return PhotoSource(**{name: given[name] for name in names}, split=given["split"] or "")


def model_options(function: Any) -> Any:
    """What a model that unet-train did not make does not say of itself."""
    return _all(
        function,
        click.option(
            "--classes",
            help="Of a .keras file without a spec: names by class id, as pet:foreground,background,border:neutral.",
        ),
        click.option(
            "--size", type=Size(), help="Of such a model: its input, HEIGHT or HEIGHTxWIDTH  [default: its own]"
        ),
        click.option(
            "--pixels",
            type=click.Choice(list(PIXELS)),
            default="0..255",
            show_default=True,
            help="Of such a model: what it expects a pixel to be.",
        ),
        click.option(
            "--head",
            type=click.Choice(HEADS),
            default="softmax",
            show_default=True,
            help="Of such a model: what its last layer gives.",
        ),
        click.option(
            "--fit",
            type=click.Choice(FITS),
            default="stretch",
            show_default=True,
            help="Of such a model: how photos are brought to its size.",
        ),
    )


def description(given: dict[str, Any]) -> Description | None:
    """What ``model_options`` were given; None for a model that says all of this itself."""
    if given["classes"] is not None:
        classes = parse_classes(given["classes"])
        return Description(classes, given["size"], given["pixels"], given["head"], given["fit"], given["split"] or "")
    for name, default in (("size", None), ("pixels", "0..255"), ("head", "softmax"), ("fit", "stretch")):
        if given[name] != default:
            raise click.UsageError(f"--{name} goes with --classes, for a model without a spec")
    return None


def words(text: str | None) -> list[str] | None:
    """Of a list separated by commas."""
    return None if text is None else [word.strip() for word in text.split(",")]


def _all(function: Any, *options: _Decorator) -> Any:
    """The options on ``function``, in this order in its help."""
    for option in reversed(options):
        function = option(function)
    return function

"""Options that several commands of unet-export have, in groups, and what they mean to the library."""

from __future__ import annotations

import re
from typing import Any

import click

from unet_export.foreign.files import Code
from unet_export.foreign.inputs import CHANNELS, PIXELS, PREPROCESSING
from unet_export.foreign.load import SIDE, Description, parse_classes
from unet_export.foreign.outputs import HEADS
from unet_export.photos import MIN_CALIBRATION, MIN_PARITY, PhotoSource
from unet_runtime.cli.shared import MAX_COUNT, PathName, option_group
from unet_runtime.core.spec import FITS

FOLDER = PathName(file_okay=False)


class Size(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """``160`` or ``160x224``: height and width, pixels."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        found = re.fullmatch(r"([1-9]\d{0,4})(?:x([1-9]\d{0,4}))?", str(value))
        if found is None:
            self.fail(f"{value!r} is no size in pixels, expected HEIGHT or HEIGHTxWIDTH as 160 or 160x224", param, ctx)
        height, width = found.groups()
        return int(height), int(width or height)


class Words(click.ParamType):  # type: ignore[type-arg]
    """Words separated by commas; the library knows which are allowed."""

    name = "list"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        return list(map(str.strip, str(value).split(",")))


photo_options = option_group(
    "Photos",
    click.option(
        "--data",
        type=FOLDER,
        envvar="PETS_DIR",
        show_envvar=True,
        help="Dataset of the model's classes: its training part is for calibration, its test part for the proof.",
    ),
    click.option(
        "--split", help="Split of --data: official, random:SEED, fold:K/N or article  [default: the model's own]"
    ),
    click.option("--calibration", type=FOLDER, help="Folder of calibration photos, instead of --data's."),
    click.option(
        "--parity",
        type=FOLDER,
        help="Folder of photos for the proof, instead of --data's; their labels too if it is a dataset.",
    ),
    click.option(
        "--calibration-count",
        default=MIN_CALIBRATION,
        show_default=True,
        type=click.IntRange(MIN_CALIBRATION, MAX_COUNT),
        help="Photos on which int8 ranges are measured; all of a smaller part.",
    ),
    click.option(
        "--parity-count",
        default=128,
        show_default=True,
        type=click.IntRange(MIN_PARITY, MAX_COUNT),
        help="Photos on which artifacts are compared with the model; all of a smaller part.",
    ),
)

_FOREIGN = (*("size", "pixels", "preprocess", "channels", "head", "output_name", "fit", "custom_objects", "build"),)
"""Options that go with --classes."""

model_options = option_group(
    "Model without a spec (not made by unet-train)",
    click.option(
        "--classes",
        help="Names by class id, with the role of each, as pet:foreground,background,border:neutral; of a model of one "
        "channel the object's name alone.",
    ),
    click.option(
        "--size",
        type=Size(),
        help=f"Its input, HEIGHT or HEIGHTxWIDTH in pixels  [default: its own; {SIDE} where it takes any]",
    ),
    click.option(
        "--pixels",
        type=click.Choice(list(PIXELS)),
        help="Range of values that it expects of a pixel.  [default: 0..255]",
    ),
    click.option(
        "--preprocess",
        type=click.Choice(list(PREPROCESSING)),
        metavar="NAME",
        help="In place of --pixels: imagenet (mean and std), caffe (BGR less the mean), tf (-1..1), or the encoder as "
        "segmentation_models names it (resnet34, efficientnetb0, ...).",
    ),
    click.option(
        "--channels",
        type=click.Choice(list(CHANNELS)),
        help="What it takes: rgba is a photo and its opacity.  [default: rgb of three, grey of one]",
    ),
    click.option("--head", type=click.Choice(HEADS), help="Output of its last layer.  [default: what its graph says]"),
    click.option("--output-name", help="Which output is the map, of a model that has several."),
    click.option(
        "--fit", type=click.Choice(FITS), help="How a photo is brought to its input size.  [default: stretch]"
    ),
    click.option(
        "--custom-objects", type=PathName(dir_okay=False), help="Python file that defines its own layers; it is run."
    ),
    click.option(
        "--build",
        metavar="MODULE:FUNCTION",
        help="Function (or FILE.py:FUNCTION) that makes the model, for a file of weights; it is run.",
    ),
)


def photo_source(given: dict[str, Any]) -> PhotoSource:
    """The values of ``photo_options`` as the library takes them."""
    names = ("data", "calibration", "parity", "calibration_count", "parity_count")
    if given["data"] is None and None in (given["calibration"], given["parity"]):
        raise click.UsageError("--data is missing, or --calibration and --parity, a folder of photos each")
    return PhotoSource(**{name: given[name] for name in names}, split=given["split"] or "")


def description(given: dict[str, Any]) -> Description | None:
    """The values of ``model_options`` as the library takes them; None for a model with a spec."""
    if given["classes"] is None:
        for name in _FOREIGN:
            if given[name] is not None:
                option = name.replace("_", "-")
                raise click.UsageError(f"--{option} goes with --classes, for a model without a spec")
        return None
    if given["pixels"] and given["preprocess"]:
        raise click.UsageError("--pixels and --preprocess both say what the model expects of a pixel: leave one out")
    return Description(
        parse_classes(given["classes"]),
        given["size"],
        given["pixels"] or "0..255",
        given["head"] or "auto",
        given["fit"] or "stretch",
        given["split"] or "",
        given["channels"],
        given["preprocess"] or "",
        given["output_name"] or "",
        Code(given["custom_objects"], given["build"] or ""),
    )

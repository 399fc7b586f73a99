"""The command unet-export adopt: files of other tools."""

from __future__ import annotations

import json
import math
import shlex
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from unet_export.cli.options import FOLDER, Size
from unet_export.foreign.inputs import PREPROCESSING
from unet_export.foreign.load import parse_classes
from unet_runtime.cli import exits
from unet_runtime.cli.quiet import engines_quiet
from unet_runtime.cli.shared import PATH, GroupedCommand, echo, option_group, overwrite_option, setup_logging, verbosity
from unet_runtime.core.spec import CHANNELS, FITS, LAYOUTS
from unet_runtime.core.text import table

_EXAMPLES = """\b
Examples:
  unet-export adopt theirs.onnx --classes background,road,sky --range 0..1 --channels rgb \\
      --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 --data photos-with-masks
  unet-export adopt theirs.onnx --classes background,pet --range 0..1 --channels rgb --reference outputs.npz
  unet-export adopt theirs.tflite --classes background,person --reference theirs.keras
"""

_ACTIVATIONS = ("softmax", "sigmoid", "logits", "sigmoid-logits", "labels")


class Range(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """``0..1``: two numbers, the second above the first."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        low, _, high = str(value).partition("..")
        try:
            found = float(low), float(high)
        except ValueError:
            found = math.nan, math.nan
        if not (math.isfinite(found[0]) and math.isfinite(found[1]) and found[0] < found[1]):
            self.fail(f"{value!r} is no range, expected LOW..HIGH as 0..1, 0..255 or -1..1", param, ctx)
        return found


class Numbers(click.ParamType):  # type: ignore[type-arg]
    """Numbers separated by commas."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            found = tuple(map(float, str(value).split(",")))
        except ValueError:
            found = (math.nan,)
        if not all(map(math.isfinite, found)):
            self.fail(f"{value!r}, expected a number, or one for each channel as 0.485,0.456,0.406", param, ctx)
        return found


@click.command(cls=GroupedCommand, epilog=_EXAMPLES)
@click.argument("model", type=PATH)
@option_group(
    "What the file does not say",
    click.option("--classes", help="Names in the order of its channels, as background,pet or pet:foreground,rest."),
    click.option("--range", type=Range(), help="What a black and a white pixel are: 0..1, 0..255 or -1..1."),
    click.option("--mean", type=Numbers(), help="Mean of each channel, in the model's order, on the scale of --range."),
    click.option("--std", type=Numbers(), help="Standard deviation, as --mean."),
    click.option(
        "--preprocess",
        type=click.Choice(list(PREPROCESSING)),
        metavar="NAME",
        help="imagenet (torch), caffe, tf or an encoder's name, in place of --range, --mean, --std and --channels.",
    ),
    click.option("--channels", type=click.Choice(CHANNELS), help="Its colours, in its order."),
    click.option("--size", type=Size(), help="Size of its input, HEIGHT or HEIGHTxWIDTH, where it leaves that open."),
    click.option(
        "--activation",
        type=click.Choice(_ACTIVATIONS),
        help="What its output is; logits get a softmax, or a sigmoid where there is one channel.",
    ),
    click.option("--layout", type=click.Choice(LAYOUTS), help="Axes of its input  [default: by its shape]"),
    click.option("--output-layout", type=click.Choice(LAYOUTS), help="Axes of its output  [default: by its shape]"),
    click.option("--output-name", help="Which of its outputs is the map."),
    click.option(
        "--covers",
        type=click.Choice(("all", "middle")),
        help="Part of the input that a smaller output covers: middle for unpadded convolutions.",
    ),
    click.option("--fit", type=click.Choice(FITS), help="How a photo is brought to its size  [default: stretch]"),
    click.option("--name", help="Its name  [default: the file's]"),
    click.option("--license", help="Its license  [default: what the file says]"),
)
@option_group(
    "Proof",
    click.option("--data", type=FOLDER, help="Photos with masks, on which it is measured: any layout of unet-train."),
    click.option("--split", help="Split of --data; its test part is measured  [default: all photos]"),
    click.option("--no-alternatives", is_flag=True, help="Do not try other colours and means on --data."),
    click.option(
        "--reference",
        type=PATH,
        help="A .npz with inputs and outputs, or the same model as .keras, .onnx or .tflite: it must give the same.",
    ),
    click.option(
        "--gate",
        "gates",
        multiple=True,
        metavar="PRECISION.CRITERION=VALUE",
        help="Change a tolerance of --reference, as float32.max_abs=0.001 (default: 0.0001); may be repeated.",
    ),
)
@option_group(
    "Result",
    click.option(
        "-o", "--output", default="artifacts/adopted", show_default=True, type=FOLDER, help="Folder for the file."
    ),
    overwrite_option,
    click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables."),
)
@verbosity
def adopt(model: Path, output: Path, as_json: bool, verbosity: int | None, **given: Any) -> int:
    """Give MODEL, a .onnx or .tflite of another tool, a spec, so that the runtime runs it.

    What the file says of itself is read, and the metadata of ultralytics, MediaPipe and Hugging Face; what it does not
    say is asked for. Writes NAME-SIZE.PRECISION.onnx or .tflite and parity.json. Exit code 4 where it differs from its
    reference, or other preprocessing is better on --data.
    """
    setup_logging(verbosity)
    with engines_quiet(verbosity != 1):
        from unet_export.adopt.adopt import ADOPTION_GATES, Evidence
        from unet_export.adopt.adopt import adopt as adopted
        from unet_export.adopt.describe import PRESETS, Choices
        from unet_export.gate.gate import ParityError, changed_gates
        from unet_export.report.report import table as parity_table

        names = [
            field.name for field in fields(Choices) if field.name in given and field.name not in ("classes", "split")
        ]
        preset = PRESETS[PREPROCESSING[given["preprocess"]]] if given["preprocess"] else {}
        values = {name: preset.get(name) if given[name] is None else given[name] for name in names}
        choices = Choices(
            classes=None if given["classes"] is None else parse_classes(given["classes"]),
            **values,
            split=given["split"] or "",
            command=shlex.join(["unet-export", *sys.argv[1:]]),
        )
        evidence = Evidence(
            given["data"],
            given["reference"],
            changed_gates(given["gates"], ADOPTION_GATES),
            not given["no_alternatives"],
        )
        try:
            made = adopted(model, choices, output, evidence, overwrite=given["overwrite"])
        except ParityError as error:
            if not as_json:
                echo(parity_table(error.results))
            raise
    if as_json:
        echo(json.dumps({"file": str(made.path), "spec": json.loads(made.spec.to_json()), "rows": made.rows}, indent=1))
        return exits.OK
    echo(table([("what", "value", "from"), *made.rows]))
    if made.measurement is not None:
        echo(made.measurement.table())
    for proof in made.proofs:
        echo(f"{proof.result.engine}: outputs differ by at most {proof.raw:.1e} on {proof.pictures} pictures")
    if made.proofs:
        echo(parity_table([made.result]))
    else:
        echo("not proven: no --reference was given")
    echo(f"adopted: {made.path}")
    return exits.OK

"""unet-export: a trained model -> files for devices, proven equal."""

from __future__ import annotations

import difflib
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from unet_export import __version__
from unet_export.bundle.wheels import PLATFORMS
from unet_export.cli.adopt import adopt
from unet_export.cli.options import FOLDER, Words, description, model_options, photo_options, photo_source
from unet_export.formats import DEFAULT_FORMATS, FORMATS, ONNX_FORMATS
from unet_export.staging import PARITY_NAME, REJECTED_NAME
from unet_runtime.cli import exits
from unet_runtime.cli.quiet import engines_quiet
from unet_runtime.cli.shared import (
    PATH,
    CommandGroup,
    NameList,
    PathName,
    echo,
    means_folder,
    option_group,
    overwrite_option,
    setup_logging,
    verbosity,
)

_DEFAULT = "model"

_MODEL = click.argument("model", default="artifacts/model.keras", type=PATH)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")

_EXAMPLES = """\b
Examples:
  unet-export model.keras --data oxford-iiit-pet
  unet-export model.keras --data oxford-iiit-pet --formats onnx,tflite-int8 --repair auto
  unet-export model.keras --calibration photos/a --parity photos/b -o export
  unet-export model.keras --data oxford-iiit-pet --formats web
"""

_BUNDLE_EXAMPLES = """\b
Examples:
  unet-export bundle artifacts/export --platform linux-aarch64
  unet-export bundle --platform windows-x86_64 --python 3.12 -o unet-edge.zip
"""


_SIGN_EXAMPLES = """\b
Examples:
  openssl ecparam -name prime256v1 -genkey -noout -out maker.key
  openssl ec -in maker.key -pubout -out maker.pub
  unet-export sign artifacts/export --key maker.key
  unet-run --model artifacts/export/pets-edge-160.int8.onnx --verify-key maker.pub photo.jpg
"""


class _ModelOrCommand(CommandGroup):
    """``unet-export MODEL`` exports; ``unet-export bundle FOLDER`` and the like are commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        first = args[0] if args else ""
        misspelt = "." not in first and not Path(first).exists() and difflib.get_close_matches(first, self.commands)
        if first not in (*self.commands, "-h", "--help", "--version") and not misspelt:
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ModelOrCommand)
@click.version_option(__version__)
def command() -> None:
    """Export a trained Keras model, and prove every artifact equal to it.

    unet-export [MODEL.keras] [OPTIONS] is short for unet-export model; its options: unet-export model --help.
    """


@command.command(_DEFAULT, epilog=_EXAMPLES)
@_MODEL
@option_group(
    "Artifacts",
    click.option(
        "--formats",
        type=NameList(tuple(FORMATS), "all"),
        help=f"all, or some of {', '.join(FORMATS)}, separated by commas  [default: {len(DEFAULT_FORMATS)} of them]",
    ),
    click.option(
        "-o",
        "--output",
        default="artifacts/export",
        show_default=True,
        type=FOLDER,
        help="Folder for the artifacts; a previous export in it is replaced when one passes the gate.",
    ),
    click.option("--dynamic", is_flag=True, help="ONNX files take any height and width that the network can halve."),
    click.option("--labels", is_flag=True, help="ONNX files have a second output, labels: the argmax, uint8."),
    _JSON,
    overwrite_option,
)
@photo_options
@option_group(
    "Gate",
    click.option(
        "--gate",
        "gates",
        multiple=True,
        metavar="PRECISION.CRITERION=VALUE",
        help="Change a tolerance, as int8.agreement=0.98; may be repeated.",
    ),
    click.option(
        "--repair",
        type=click.Choice(("none", "auto")),
        default="auto",
        show_default=True,
        help="auto: try remedies, cheapest first, on an integer artifact that fails; they take minutes.",
    ),
    click.option("--all-or-nothing", is_flag=True, help="Accept nothing unless every artifact is made and passes."),
    click.option("--study", is_flag=True, help="Report what fewer calibration photos would have cost."),
)
@model_options
@verbosity
def export(model: Path, output: Path, as_json: bool, verbosity: int | None, **given: Any) -> int:
    """Export MODEL (default: artifacts/model.keras) and prove every artifact equal to it.

    Writes NAME-SIZE.PRECISION.onnx and .tflite, saved_model/, NAME-SIZE.web/ (a page that runs the model in a browser),
    NAME-SIZE.triton/ (a model repository for Triton and OpenVINO Model Server), NAME-SIZE.tflite-micro/ (a C array for
    microcontrollers), parity.json and report.html. Each artifact is accepted or rejected by itself: one that differs
    more than its gate allows is in OUTPUT/rejected, and the exit code is 4.
    """
    setup_logging(verbosity)
    with engines_quiet(verbosity != 1):
        # Imported here: --help must not wait for TensorFlow.
        from unet_export.gate.gate import FOREIGN_GATES, GATES, ParityError, changed_gates
        from unet_export.pipeline import ExportOptions, export_model
        from unet_export.report.report import table

        described = description(given)
        is_foreign = described is not None or model.suffix == ".onnx"
        options = ExportOptions(
            formats=given["formats"] or (ONNX_FORMATS if model.suffix == ".onnx" else DEFAULT_FORMATS),
            gates=changed_gates(given["gates"], FOREIGN_GATES if is_foreign else GATES),
            repair=given["repair"] == "auto",
            all_or_nothing=given["all_or_nothing"],
            study=given["study"],
            dynamic=given["dynamic"],
            labels=given["labels"],
            description=described,
            command=shlex.join(["unet-export", *sys.argv[1:]]),
            overwrite=given["overwrite"],
        )
        failure: ParityError | None = None
        try:
            results = export_model(model, photo_source(given), output, options)
        except ParityError as error:
            failure = error
            results = error.results
    report = (output / REJECTED_NAME if failure else output) / PARITY_NAME
    refused = failure.refused if failure else ()
    echo(report.read_text(encoding="utf-8").rstrip() if as_json else table(results, refused))
    if failure:
        raise failure
    if not as_json:
        echo(f"accepted: {output}")
    return exits.OK


@command.command()
@_MODEL
@option_group(
    "Result",
    click.option(
        "--format",
        "format_name",
        type=click.Choice([name for name, form in FORMATS.items() if form.quantized]),
        default="tflite-int8",
        show_default=True,
        help="The integer format to compare with float32.",
    ),
    click.option(
        "-o",
        "--output",
        default="artifacts/diagnosis",
        show_default=True,
        type=FOLDER,
        help="Folder for diagnosis.json and the pictures.",
    ),
    _JSON,
    overwrite_option,
)
@photo_options
@model_options
@verbosity
def diagnose(model: Path, format_name: Any, output: Path, as_json: bool, verbosity: int | None, **given: Any) -> int:
    """Compare an integer export of MODEL with its float32 counterpart layer by layer.

    Shows which layers add the noise, and where the masks differ. Accepts and changes no export.
    """
    setup_logging(verbosity)
    with engines_quiet(verbosity != 1):
        from unet_export.diagnosis.diagnose import table
        from unet_export.diagnosis.examine import REPORT_NAME, examine

        found = examine(
            model, format_name, photo_source(given), output, description(given), overwrite=given["overwrite"]
        )
    if as_json:
        echo((output / REPORT_NAME).read_text(encoding="utf-8").rstrip())
        return exits.OK
    echo(table(found.errors))
    echo(f"same class on {found.agreement:.3%} of the pixels")
    for path in found.files:
        echo(f"written: {path}")
    return exits.OK


@command.command(epilog=_BUNDLE_EXAMPLES)
@click.argument("folder", default="artifacts/export", type=FOLDER)
@option_group(
    "Device",
    click.option("--platform", required=True, type=click.Choice(list(PLATFORMS)), help="Its system and processor."),
    click.option("--python", default="3.11", show_default=True, help="Its version of Python."),
)
@option_group(
    "Contents",
    click.option("--engines", type=Words(), help="Separated by commas  [default: what the models need]"),
    click.option(
        "--models", type=Words(), help="File names in FOLDER, separated by commas  [default: every .onnx and .tflite]"
    ),
    click.option(
        "--runtime",
        type=PATH,
        help="Wheel or source folder of unet-edge-runtime  [default: the one installed here]",
    ),
    click.option(
        "-o",
        "--output",
        default=".",
        type=PATH,
        help="The archive, or a folder for it.",
    ),
    overwrite_option,
)
@verbosity
def bundle(folder: Path, platform: Any, output: Path, verbosity: int | None, **choices: Any) -> int:
    """Pack what a device without a network needs.

    The archive has the models of FOLDER that the gate accepted, the runtime, its wheels for the platform, and a script
    that installs them.
    """
    from unet_export.bundle.bundle import bundle as pack

    setup_logging(verbosity)
    if means_folder("output") and not output.is_dir():
        raise click.UsageError(f"--output {output}{os.sep}: no such folder: make it first, or name an archive.")
    echo(f"bundle: {pack(folder, platform, output, **choices)}")
    return exits.OK


@command.command(epilog=_SIGN_EXAMPLES)
@click.argument("place", metavar="FOLDER|FILE", type=PATH)
@click.option(
    "--key",
    required=True,
    type=PathName(dir_okay=False),
    help="Private key: an elliptic curve's, PEM. The password of an encrypted one is asked for, or in the variable "
    "UNET_EDGE_KEY_PASSWORD.",
)
@overwrite_option
@verbosity
def sign(place: Path, key: Path, overwrite: bool, verbosity: int | None) -> int:
    """Sign an export or one model file, so that others can verify who made it.

    Writes FOLDER/model.sig, or FILE.sig, in the format of OpenSSF Model Signing 1.0. unet-run --verify-key and
    model_signing verify key check it.
    """
    from unet_export.signature import PasswordError
    from unet_export.signature import sign as write_signature

    setup_logging(verbosity)
    password = os.environ.get("UNET_EDGE_KEY_PASSWORD", "")
    try:
        written, files = write_signature(place, key, password=password, overwrite=overwrite)
    except PasswordError:
        if password or not sys.stdin.isatty():
            raise
        password = click.prompt("Password of the key", hide_input=True, err=True)
        written, files = write_signature(place, key, password=password, overwrite=overwrite)
    echo(f"signed: {files} file{'' if files == 1 else 's'}, {written}")
    return exits.OK


command.add_command(adopt)


def main() -> None:
    exits.stop_once()
    exits.run(command)

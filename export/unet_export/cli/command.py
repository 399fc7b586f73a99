"""unet-export: a trained model -> files for devices, proven equal. The only module of this package that prints."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from unet_export import __version__
from unet_export.bundle.wheels import PLATFORMS
from unet_export.cli.options import FOLDER, Formats, description, model_options, photo_options, photo_source, words
from unet_export.errors import ParityError
from unet_export.formats import DEFAULT_FORMATS, FORMATS, GraphOptions
from unet_runtime.cli import exits
from unet_runtime.cli.quiet import engines_quiet

_DEFAULT = "model"

_MODEL = click.argument("model", default="artifacts/model.keras", type=click.Path(path_type=Path))
_VERBOSE = click.option("--verbose", is_flag=True, help="Show what TensorFlow and the converters have to say.")


class _ModelOrCommand(click.Group):
    """``unet-export MODEL`` exports; ``unet-export bundle FOLDER`` and the like are commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or args[0] not in (*self.commands, "-h", "--help", "--version"):
            args = [_DEFAULT, *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ModelOrCommand, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def command() -> None:
    """Export a trained Keras model, and prove every artifact equal to it.

    unet-export [MODEL.keras] [OPTIONS] is short for unet-export model; its options: unet-export model --help.
    """


@command.command(_DEFAULT)
@_MODEL
@click.option(
    "--formats",
    type=Formats(),
    help=f"all, or some of {', '.join(FORMATS)}, separated by commas  [default: all but tflite-int16x8]",
)
@click.option(
    "--output",
    default="artifacts/export",
    show_default=True,
    type=FOLDER,
    help="Folder of the artifacts; a previous export in it is replaced when the gate passes.",
)
@photo_options
@click.option(
    "--gate",
    "gates",
    multiple=True,
    metavar="PRECISION.CRITERION=VALUE",
    help="A tolerance of your own, as int8.agreement=0.98; may be given again.",
)
@click.option(
    "--repair",
    type=click.Choice(("none", "auto")),
    default="none",
    show_default=True,
    help="auto: try cures, cheapest first, on an integer artifact that fails.",
)
@click.option("--study", is_flag=True, help="Show in the report what fewer calibration photos would have cost.")
@click.option("--dynamic", is_flag=True, help="ONNX files take any height and width that the network can halve.")
@click.option("--labels", is_flag=True, help="ONNX files have a second output, labels: the argmax, uint8.")
@model_options
@_VERBOSE
def export(
    model: Path,
    formats: tuple[str, ...] | None,
    output: Path,
    gates: tuple[str, ...],
    repair: str,
    study: bool,
    dynamic: bool,
    labels: bool,
    verbose: bool,
    **others: Any,
) -> int:
    """Export MODEL (default: artifacts/model.keras) and prove every artifact equal to it.

    Writes NAME-SIZE.PRECISION.onnx and .tflite, saved_model/, parity.json and report.html. If one artifact differs more
    than its gate allows, none is accepted, all are in OUTPUT/rejected, and the exit code is 4.
    """
    with engines_quiet(not verbose):
        # Here and not above: --help must not wait for TensorFlow.
        from unet_export.gate.gate import changed_gates
        from unet_export.pipeline import ExportOptions, export_model
        from unet_export.report.report import table

        options = ExportOptions(
            formats or DEFAULT_FORMATS,
            changed_gates(gates),
            repair == "auto",
            study,
            GraphOptions(dynamic, labels),
            description(others),
            shlex.join(["unet-export", *sys.argv[1:]]),
        )
        try:
            results = export_model(model, photo_source(others), output, options, click.echo)
        except ParityError as error:
            click.echo(table(error.results))
            raise
    click.echo(table(results))
    click.echo(f"accepted: {output}")
    return exits.OK


@command.command()
@_MODEL
@click.option(
    "--format",
    "format_name",
    type=click.Choice([name for name, form in FORMATS.items() if form.quantized]),
    default="tflite-int8",
    show_default=True,
)
@click.option(
    "--output",
    default="artifacts/diagnosis",
    show_default=True,
    type=FOLDER,
    help="Folder of diagnosis.json and the pictures.",
)
@photo_options
@model_options
@_VERBOSE
def diagnose(model: Path, format_name: str, output: Path, verbose: bool, **others: Any) -> int:
    """Compare an integer export of MODEL with its float32 twin layer by layer: which layers add the noise, and where
    the masks differ. Accepts and changes no export."""
    with engines_quiet(not verbose):
        from unet_export.diagnosis.diagnose import table
        from unet_export.diagnosis.examine import examine

        found = examine(model, format_name, photo_source(others), output, description(others), click.echo)
    click.echo(table(found.errors))
    click.echo(f"same class to {found.agreement:.3%} of the pixels")
    for path in found.files:
        click.echo(f"written: {path}")
    return exits.OK


@command.command()
@click.argument("folder", default="artifacts/export", type=FOLDER)
@click.option("--platform", required=True, type=click.Choice(list(PLATFORMS)), help="Of the device.")
@click.option(
    "--output", default=".", type=click.Path(path_type=Path), help="The archive, or its folder  [default: here]"
)
@click.option("--python", default="3.11", show_default=True, help="Version of Python on the device.")
@click.option("--engines", help="Separated by commas  [default: what the models need]")
@click.option("--models", help="File names of FOLDER, separated by commas  [default: every .onnx and .tflite]")
@click.option(
    "--runtime",
    type=click.Path(path_type=Path),
    help="Wheel or source folder of unet-edge-runtime  [default: the one installed here]",
)
def bundle(
    folder: Path,
    platform: str,
    output: Path,
    python: str,
    engines: str | None,
    models: str | None,
    runtime: Path | None,
) -> int:
    """Pack what a device without a network needs: the models of FOLDER that the gate accepted, the runtime, its
    wheels for PLATFORM, and a script that installs them."""
    from unet_export.bundle.bundle import bundle as pack

    path = pack(
        folder,
        platform,
        output,
        python=python,
        engines=words(engines),
        models=words(models),
        runtime=runtime,
        say=click.echo,
    )
    click.echo(f"bundle: {path}")
    return exits.OK


def main() -> None:
    exits.run(command)

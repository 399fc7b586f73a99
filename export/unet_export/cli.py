"""unet-export: a trained model -> SavedModel, ONNX and int8 TFLite, proven equal to it."""

from __future__ import annotations

from pathlib import Path

import click

from unet_export import __version__, calibration, parity
from unet_export.errors import ParityError
from unet_runtime.cli import exits
from unet_runtime.cli.quiet import engines_quiet


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", default="artifacts/model.keras", type=click.Path(path_type=Path))
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Dataset folder in Oxford-IIIT Pet's layout: calibrates the int8 model, proves all of them.",
)
@click.option(
    "--output",
    default="artifacts/export",
    show_default=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the artifacts; a previous export in it is replaced when the gate passes.",
)
@click.option(
    "--calibration-count",
    default=calibration.DEFAULT_COUNT,
    show_default=True,
    type=click.IntRange(min=calibration.MIN_COUNT),
    help="Photos of the trainval part that int8 ranges are measured on; all of a smaller part.",
)
@click.option(
    "--parity-count",
    default=parity.DEFAULT_COUNT,
    show_default=True,
    type=click.IntRange(min=parity.MIN_COUNT),
    help="Photos of the test part that the gate runs; all of a smaller part.",
)
@click.option("--verbose", is_flag=True, help="Show what TensorFlow and the converters have to say.")
@click.version_option(__version__)
def command(model: Path, data: Path, output: Path, calibration_count: int, parity_count: int, verbose: bool) -> int:
    """Export MODEL (default: artifacts/model.keras) and prove every artifact equal to it.

    Writes saved_model/, NAME.onnx, NAME.int8.tflite and parity.json. If one artifact differs more
    than its gate allows, none is accepted and the exit code is 4.
    """
    with engines_quiet(not verbose):
        # Here and not above: --help must not wait for TensorFlow.
        from unet_export.pipeline import export_model
        from unet_export.report import table

        try:
            results = export_model(
                model, data, output, calibration_count=calibration_count, parity_count=parity_count, say=click.echo
            )
        except ParityError as error:
            click.echo(table(error.results))
            raise
    click.echo(table(results))
    click.echo(f"accepted: {output}")
    return exits.OK


def main() -> None:
    exits.run(command)

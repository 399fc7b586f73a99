"""unet-run: segment photos and folders."""

from __future__ import annotations

import warnings
from pathlib import Path

import click
from PIL import Image

from unet_runtime import __version__
from unet_runtime.backends import DEVICES, ENGINES
from unet_runtime.cli import exits
from unet_runtime.cli.quiet import engines_quiet
from unet_runtime.errors import ImageError, OutputError
from unet_runtime.segmenter import Segmentation, Segmenter
from unet_runtime.sinks import RESULTS, save
from unet_runtime.sources import PhotoFile, find_photos


def _kinds(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, ...]:
    """``mask,overlay`` -> ("mask", "overlay")."""
    kinds = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
    for kind in kinds:
        if kind not in RESULTS:
            raise click.BadParameter(f"{kind!r}, expected some of {','.join(RESULTS)}")
    return kinds


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", type=click.Path(path_type=Path), help="Model file (default: the bundled pets model).")
@click.option("--backend", type=click.Choice(["auto", *ENGINES]), default="auto", show_default=True)
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True)
@click.option(
    "--save",
    "kinds",
    callback=_kinds,
    default="overlay,mask",
    show_default=True,
    metavar="LIST",
    help=f"What to write, of {','.join(RESULTS)}.",
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the results (default: beside each photo; for a folder, FOLDER-segmented).",
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads (default: the engine's choice).")
@click.version_option(__version__)  # fmt: skip
def command(
    photos: tuple[Path, ...], model: Path | None, backend: str, device: str, kinds: tuple[str, ...],
    output_dir: Path | None, threads: int | None,
) -> int:  # fmt: skip
    """Segment PHOTOS (files and folders).

    Writes PHOTO.mask.png (pixel value = class id, at the photo's own size), PHOTO.overlay.png and
    PHOTO.cutout.png (RGBA).
    """
    # A photo of 100 megapixels is no attack; what Pillow takes for one is an error all the same.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    files = find_photos(photos, output_dir)
    with engines_quiet():
        segmenter = Segmenter(model, backend=backend, device=device, threads=threads)
    click.echo(_choice(segmenter))
    failed = 0
    for file in files:
        try:
            _segment(segmenter, file, kinds)
        except (ImageError, OutputError) as error:
            failed += 1
            click.echo(f"error: {error}", err=True)
    if failed:
        click.echo(f"{failed} of {len(files)} photos failed, {len(files) - failed} written", err=True)
    return exits.INPUTS_FAILED if failed else exits.OK


def _choice(segmenter: Segmenter) -> str:
    """``pets-edge float32 on ONNX Runtime 1.31.1, cpu``: what runs, where, and why not faster."""
    backend = segmenter.backend
    note = f" ({backend.note})" if backend.note else ""
    return f"{segmenter.spec.name} {segmenter.spec.precision} on {backend.engine}, {backend.device}{note}"


def _segment(segmenter: Segmenter, file: PhotoFile, kinds: tuple[str, ...]) -> None:
    result = segmenter(file.path)
    written = save(result, kinds, file.output_dir, file.stem)
    click.echo(f"{file.path}: {_areas(result)} -> {', '.join(str(path) for path in written)}")


def _areas(result: Segmentation) -> str:
    """``pet 43 %, border 8 %``: each class but the background."""
    return ", ".join(
        f"{entry.name} {(result.mask == index).mean():.0%}"
        for index, entry in enumerate(result.spec.classes)
        if entry.role != "background"
    )


def main() -> None:
    exits.run(command)

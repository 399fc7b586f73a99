"""The options of unet-run, in groups, and what they mean together."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from unet_runtime.engines import DEVICES, ENGINES
from unet_runtime.io.coco import CONTOURS
from unet_runtime.io.sinks import RESULTS
from unet_runtime.io.sources import STDIN

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_RESULTS = ("overlay", "mask")
STDOUT = Path("-")

MAX_PIXELS = 200_000_000
"""The largest camera sensors have 200 megapixels; decoded, they take 800 MB."""

LIVE_OPTIONS = ("view", "record", "max_seconds", "smooth", "background", "port")
"""Of ``--webcam`` alone; None where the user did not say."""

EXAMPLES = """\b
Examples:
  unet-run photo.jpg                              photo.overlay.png and photo.mask.png beside it
  unet-run holiday --save cutout -o out           every photo of a folder tree, mirrored below out
  unet-run "scans/**/*.tif" --save json           patterns, for shells that do not expand them
  cat a.jpg | unet-run - --output - > cut.png     a cut-out through a pipe
  unet-run holiday --resume                       go on where a run was interrupted
  unet-run film.mp4                               film.overlay.mp4
  unet-run --webcam                               live, in a window"""


def _kinds(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """``mask,overlay`` -> ("mask", "overlay")."""
    if value is None:
        return None
    kinds = tuple(dict.fromkeys(part.strip() for part in value.split(",")))
    for kind in kinds:
        if kind not in RESULTS:
            raise click.BadParameter(f"{kind!r}, expected some of {','.join(RESULTS)}")
    return kinds


def model_options(command: F) -> F:
    """Which model, where it runs, and how a photo is fed to it."""
    return _all(
        command,
        click.option("--model", type=click.Path(path_type=Path), help="Model file (default: the bundled pets model)."),
        click.option("--backend", type=click.Choice(["auto", *ENGINES]), default="auto", show_default=True),
        click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True),
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            help="CPU threads of the engine; with many photos, how many run at a time (default: one for each core).",
        ),
        click.option(
            "--tile",
            type=click.FloatRange(0, 0.75),
            is_flag=False,
            flag_value=0.25,
            metavar="[OVERLAP]",
            help="Cover each photo at its own resolution with tiles of the model's size that overlap by this share "
            "(0.25 if none is given): for models trained on patches.",
        ),
        click.option(
            "--max-pixels",
            type=click.IntRange(min=0),
            default=MAX_PIXELS,
            show_default=True,
            help="Refuse photos of more pixels, against decompression bombs; 0: no limit.",
        ),
    )


def result_options(command: F) -> F:
    """What is written, and where."""
    return _all(
        command,
        click.option(
            "--save",
            "kinds",
            callback=_kinds,
            metavar="LIST",
            help=f"What to write, of {','.join(RESULTS)}.  [default: {','.join(DEFAULT_RESULTS)}]",
        ),
        click.option(
            "-o",
            "--output-dir",
            type=click.Path(path_type=Path, file_okay=False),
            help="Folder of the results (default: beside each photo; for a folder, FOLDER-segmented).",
        ),
        click.option(
            "--output",
            type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
            metavar="FILE",
            help='Write the one result of one photo to this file, or with "-" to standard output: the cut-out, unless '
            "--save names another.",
        ),
        click.option(
            "--contours",
            type=click.Choice(CONTOURS),
            default=CONTOURS[0],
            show_default=True,
            help="Outlines in PHOTO.json; rle needs the extra [coco].",
        ),
        click.option("--json", "as_json", is_flag=True, help="Print one line of JSON a photo, and nothing else."),
    )


def many_options(command: F) -> F:
    """How a run over many photos goes on."""
    return _all(
        command,
        click.option(
            "--resume",
            is_flag=True,
            help="Leave out photos whose results are all there, newer than the photo, and made with the same model "
            "and options.",
        ),
        click.option(
            "--on-error",
            type=click.Choice(["skip", "stop"]),
            default="skip",
            show_default=True,
            help="After a photo that fails: go on with the next, or stop.",
        ),
    )


def live_options(command: F) -> F:
    """The camera, and what is shown of it; see LIVE_OPTIONS."""
    return _all(
        command,
        click.option(
            "--webcam",
            is_flag=False,
            flag_value="0",
            metavar="[INDEX|PATH|URL]",
            help="Segment a camera live: its number (0 if none is given), a device, an address (rtsp://, http://), or "
            "a video file played as if it were one.",
        ),
        click.option(
            "--view",
            type=click.Choice(["auto", "window", "web", "none"]),
            help="Of --webcam: a window, a web page on 127.0.0.1, or nothing  [default: auto]",
        ),
        click.option("--record", type=click.Path(path_type=Path), help="Of --webcam: video file of what is shown."),
        click.option(
            "--max-seconds", type=click.FloatRange(min=0, min_open=True), help="Of --webcam: end after this time."
        ),
        click.option(
            "--smooth",
            type=click.FloatRange(0, 1, max_open=True),
            help="Of --webcam: share of the last frames in each, against flicker  [default: 0]",
        ),
        click.option(
            "--background",
            type=click.Choice(["overlay", "cutout", "blur"]),
            help="Of --webcam: what to begin with; key b switches  [default: overlay]",
        ),
        click.option("--port", type=click.IntRange(0, 65535), help="Of --webcam: the web page's  [default: 8080]"),
    )


def _all(command: F, *options: Callable[[F], F]) -> F:
    for option in reversed(options):
        command = option(command)
    return command


def check(given: dict[str, Any]) -> None:
    """Refuse what does not go together.

    Args:
        given: the command's parameters by name.

    Raises:
        click.UsageError: exit code 2.
    """
    photos: tuple[Path, ...] = given["photos"]
    live = [f"--{name.replace('_', '-')}" for name in LIVE_OPTIONS if given[name] is not None]
    if given["webcam"] is not None:
        if photos:
            raise click.UsageError(f"--webcam together with {photos[0]}: a camera, or photos, not both.")
        return
    if live:
        raise click.UsageError(f"{', '.join(live)} without --webcam: it says how a camera is shown.")
    if not photos:
        raise click.UsageError("Missing argument 'PHOTOS...': name photos, folders, videos or -, or give --webcam.")
    if STDIN in photos and sys.stdin.isatty():
        raise click.UsageError(
            '"-" reads a photo from standard input, which is a terminal: pipe one in, or name a file.'
        )
    if given["output"] is not None:
        _check_one_output(given)


def _check_one_output(given: dict[str, Any]) -> None:
    if given["output_dir"] is not None:
        raise click.UsageError("--output names a file, --output-dir a folder: give one of them.")
    if len(given["kinds"] or ("cutout",)) > 1:
        raise click.UsageError("--output is one file, --save names several: name one, or give --output-dir.")
    if given["resume"]:
        raise click.UsageError("--resume looks for results in a folder: it has no meaning with --output.")
    if given["output"] == STDOUT and sys.stdout.isatty():
        raise click.UsageError("--output - writes a PNG to standard output, which is a terminal: pipe it somewhere.")
    if given["as_json"] and given["output"] == STDOUT:
        raise click.UsageError("--json and --output - both want standard output: give --output a file.")

"""The options of unet-run, in groups, and which of them go together."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from unet_runtime.cli.shared import (
    COUNT,
    DEVICE,
    MAX_COUNT,
    PATH,
    THREADS,
    NameList,
    PathName,
    Real,
    means_folder,
    option_group,
    verify_key_option,
)
from unet_runtime.core.decoders import PHOTO_SUFFIXES
from unet_runtime.core.files import is_stream
from unet_runtime.core.segmentation import MIN_SCORE
from unet_runtime.engines import ENGINES
from unet_runtime.io.coco import CONTOURS
from unet_runtime.io.sinks import KINDS, RESULTS
from unet_runtime.io.sources import STDIN, VIDEO_SUFFIXES, PhotoFile

DEFAULT_RESULTS = ("overlay", "mask")
OVERLAP = 0.25
"""As ``core.tiling.OVERLAP``, which few commands need to load."""

STDOUT = Path("-")

MAX_PIXELS = 200_000_000
"""The largest camera sensors have 200 megapixels; decoded, they take 800 MB."""

_RAY_OPTIONS = ("address", "actors", "gpu_share")
"""Parameters that need ``--engine ray``."""

LIVE_OPTIONS = ("view", "record", "max_seconds", "smooth", "background", "host", "port")
"""Parameters that need ``--webcam``; None where the user did not give them."""

_OTHER_SUFFIXES = (
    ".json",
    ".npz",
    ".npy",
    ".onnx",
    ".tflite",
    ".keras",
    ".pdf",
    ".svg",
    ".psd",
    ".txt",
    ".csv",
    ".zip",
)
_MORE_PICTURES = (".heic", ".heif", ".jxl", ".jp2", ".j2k", ".tga", ".exr", ".ico", ".dng")
_FILE_SUFFIXES = PHOTO_SUFFIXES | VIDEO_SUFFIXES | frozenset(_OTHER_SUFFIXES) | frozenset(_MORE_PICTURES)
"""A new name that ends so is a file's, not a folder's."""

_STDOUT_NAMES = tuple(map(Path, ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")))

_DEFAULT_KINDS = {".json": ("json",), ".npz": ("probabilities",)}

EXAMPLES = """\b
Examples:
  unet-run photo.jpg                              photo.overlay.png and photo.mask.png beside it
  unet-run photo.jpg -o cut.png                   the cut-out alone, in this file
  unet-run holiday --save cutout -o out           every photo of a folder tree, mirrored below out
  unet-run "scans/**/*.tif" --save json           patterns, for shells that do not expand them
  unet-run holiday --save mask --coco all.json    masks, and one COCO data set of the folder
  cat a.jpg | unet-run - -o - > cut.png           a cut-out through a pipe
  unet-run holiday --resume                       go on where a run was interrupted
  unet-run --manifest photos.csv --shard 3/64     the third of 64 shares of a list
  unet-run --manifest photos.csv --engine ray     its photos on all machines of a Ray cluster
  unet-run film.mp4                               film.overlay.mp4
  unet-run --webcam                               live, in a window"""


class _ShardNumber(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.4 on
    """``3/64``: the third of 64 shares."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from unet_runtime.io.manifest import Shard  # few commands need it

        if isinstance(value, Shard):
            return value
        number, _, total = str(value).partition("/")
        is_whole = number.isascii() and number.isdigit() and total.isascii() and total.isdigit()
        if not is_whole or not 1 <= int(number) <= int(total) <= MAX_COUNT:
            self.fail(f"{value!r}, expected K/N with K from 1 to N, such as 3/64", param, ctx)
        return Shard(int(number), int(total))


result_options = option_group(
    "Results",
    click.option(
        "--save",
        "kinds",
        type=NameList(RESULTS),
        metavar="LIST",
        help=f"Results to write, some of {','.join(RESULTS)}.  [default: {','.join(DEFAULT_RESULTS)}]",
    ),
    click.option(
        "-o",
        "--output",
        type=PathName(allow_dash=True),
        help="Folder of the results (default: beside each photo; for a folder, FOLDER-segmented). A name such as "
        'cut.png is the file of the one result of one photo (cut.png/ a folder), "-" is standard output: the cut-out, '
        "unless --save names another. The suffix chooses the format (.png, .webp, .tif; overlays .jpg, too).",
    ),
    click.option(
        "--coco",
        type=PathName(dir_okay=False),
        help="File of one COCO data set of all photos, their names relative to the folder, beside the other results.",
    ),
    click.option(
        "--overwrite",
        is_flag=True,
        help="Replace also files that unet-run did not make (its own are always replaced).",
    ),
    click.option(
        "--output-dir",
        type=PathName(file_okay=False),
        help="Folder of the results, whatever its name looks like.",
    ),
    click.option(
        "--contours",
        type=click.Choice(CONTOURS),
        default=CONTOURS[0],
        help="Outlines in PHOTO.json and --coco; rle needs the package pycocotools.",
    ),
    click.option(
        "--refine",
        is_flag=True,
        help="Move the edges of cut-outs to those of the photo at its own size; masks stay as they are.",
    ),
    click.option(
        "--min-score",
        type=Real(0, 1),
        default=MIN_SCORE,
        help="Mean probability that a foreground class must have in its region, or it counts as not found, and is "
        "taken out of all results. 0: every region counts.",
    ),
    click.option(
        "--min-share",
        type=Real(0, 1),
        default=0.0,
        help="Share of the photo that a foreground class must have, or it counts as not found.",
    ),
    click.option("--json", "as_json", is_flag=True, help="Print one line of JSON per photo instead of text."),
)

many_options = option_group(
    "Many photos",
    click.option(
        "--manifest",
        type=PathName(dir_okay=False),
        help="File that lists the photos instead of PHOTOS: .txt (one on each line), .csv or .parquet (column photo), "
        "paths relative to it, or addresses (s3://...).",
    ),
    click.option(
        "--shard",
        type=_ShardNumber(),
        metavar="K/N",
        help="Process the K-th of N shares of the manifest; other processes, on any machine, take the others. See "
        "unet-run status FOLDER and unet-run merge FOLDER.",
    ),
    click.option(
        "--results",
        type=click.Choice(["files", "parquet", "webdataset"]),
        help="Where the results of a manifest go: files of their own, or bytes in tables.  [default: files]",
    ),
    click.option(
        "--engine",
        type=click.Choice(["local", "ray"]),
        help="What spreads the photos of a manifest: the threads of this process, or actors of Ray.  [default: local]",
    ),
    click.option(
        "--address",
        metavar="HOST[:PORT]|auto",
        help="Head of the Ray cluster; auto: the one this machine belongs to.  [default: one on this machine alone]",
    ),
    click.option(
        "--actors",
        type=COUNT,
        help="Actors of Ray, each with a model and as many CPUs as --threads.  [default: as many as there is room for, "
        "of 1 CPU]",
    ),
    click.option(
        "--gpu-share",
        type=Real(0, 64, min_open=True),
        help="GPUs, or share of one, that each actor of Ray has.  [default: none]",
    ),
    click.option(
        "--resume",
        is_flag=True,
        help="Leave out photos whose results are all there, newer than the photo, and made with the same model and "
        "options.",
    ),
    click.option(
        "--on-error",
        type=click.Choice(["skip", "stop"]),
        default="skip",
        help="After a photo that fails: go on with the next, or stop.",
    ),
)

model_options = option_group(
    "Model and device",
    click.option("--model", type=PATH, help="Model file (default: the bundled pets model)."),
    verify_key_option,
    click.option(
        "--backend",
        type=click.Choice(["auto", *ENGINES]),
        default="auto",
        help="Engine that runs the model; auto: the first installed one that reads it.",
    ),
    click.option(
        "--device",
        type=DEVICE,
        default="auto",
        help="Processor that the engine uses; auto: a GPU if one works, else the CPU.",
    ),
    click.option(
        "--threads",
        type=THREADS,
        help="CPU threads of the engine; with many photos, how many run at a time (default: one for each core).",
    ),
    click.option(
        "--tile",
        type=Real(0, 0.75),
        is_flag=False,
        flag_value=OVERLAP,
        metavar="[OVERLAP]",
        help="Cover each photo at its own resolution with tiles of the model's size that overlap by this share "
        "(0.25 if none is given): for models trained on patches; those that say so in their spec always are.",
    ),
    click.option(
        "--max-pixels",
        type=click.IntRange(min=0),
        default=MAX_PIXELS,
        help="Refuse photos of more pixels, against decompression bombs; 0: no limit.",
    ),
)

live_options = option_group(
    "Live view",
    click.option(
        "--webcam",
        is_flag=False,
        flag_value="0",
        metavar="[INDEX|PATH|URL]",
        help="Segment a camera live: its number (0 if none is given), a device, an address (rtsp://, http://), "
        "picamera (Raspberry Pi), csi (Jetson), gst:PIPELINE, or a video file played as if it were one.",
    ),
    click.option(
        "--view",
        type=click.Choice(["auto", "window", "web", "none"]),
        help="Where to show the camera: a window, a web page on 127.0.0.1, or nowhere.  [default: auto]",
    ),
    click.option("--record", type=PathName(dir_okay=False), help="Video file of what is shown."),
    click.option("--max-seconds", type=Real(min=0, min_open=True), help="End after this time."),
    click.option(
        "--smooth",
        type=Real(0, 1, max_open=True),
        help="Share of the last frames in each, against flicker; for videos too.  [default: 0]",
    ),
    click.option(
        "--background",
        type=click.Choice(["overlay", "cutout", "blur"]),
        help="Background to begin with; key b switches.  [default: overlay]",
    ),
    click.option(
        "--host",
        metavar="ADDRESS",
        help="Address of the web page. Others than this machine reach it at 0.0.0.0, as a container's needs; they need "
        "the token that is printed.  [default: 127.0.0.1]",
    ),
    click.option("--port", type=click.IntRange(0, 65535), help="Port of the web page.  [default: 8080]"),
)


def check(given: dict[str, Any]) -> None:
    """Refuse options that do not go together, and decide whether ``--output`` means a file or a folder.

    Args:
        given: the command's parameters by name. Where ``output`` means a folder it becomes ``output_dir``.

    Raises:
        click.UsageError: exit code 2.
    """
    if given["verify_key"] is not None and given["model"] is None:
        raise click.UsageError("--verify-key without --model: the bundled model is part of the package, and unsigned.")
    if given["output"] is not None:
        _check_output(given)
    if given["engine"] != "ray":
        for name in _RAY_OPTIONS:
            if given[name] is not None:
                raise click.UsageError(f"--{name.replace('_', '-')} without --engine ray: it says where actors run.")
    if given["manifest"] is not None:
        _check_manifest(given)
        return
    if given["webcam"] is not None:
        _check_webcam(given)
        return
    _check_photos(given)


def _check_photos(given: dict[str, Any]) -> None:
    for name in ("shard", "results", "engine"):
        if given[name] is not None:
            raise click.UsageError(f"--{name} without --manifest: it says what becomes of the photos of a list.")
    has_video = any(path.suffix.lower() in VIDEO_SUFFIXES for path in given["photos"])
    live = []
    for name in LIVE_OPTIONS:
        if given[name] is not None and not (name == "smooth" and has_video):
            live.append(f"--{name.replace('_', '-')}")
    if given["refine"] and given["tile"] is not None:
        raise click.UsageError("--refine and --tile: tiles have the photo's own size already: give one of them.")
    if live:
        or_video = " or a video" if live == ["--smooth"] else ""
        raise click.UsageError(f"{', '.join(live)} without --webcam{or_video}: it says how a camera is shown.")
    photos: tuple[Path, ...] = given["photos"]
    if not photos:
        raise click.UsageError("Missing argument 'PHOTOS...': name photos, folders, videos or -, or give --webcam.")
    if STDIN in photos and sys.stdin is None:
        raise click.UsageError('"-" reads a photo from standard input, which is closed: pipe one in, or name a file.')
    if STDIN in photos and sys.stdin.isatty():
        raise click.UsageError(
            '"-" reads a photo from standard input, which is a terminal: pipe one in, or name a file.'
        )


def _check_manifest(given: dict[str, Any]) -> None:
    if given["photos"]:
        raise click.UsageError(f"--manifest together with {given['photos'][0]}: a list of photos, or photos, not both.")
    if given["output"] is not None:
        raise click.UsageError(f"--output {given['output']} is a file, --manifest saves in a folder: name a folder.")
    for name in ("webcam", "coco", *LIVE_OPTIONS):
        if given[name] is not None:
            option = name.replace("_", "-")
            raise click.UsageError(f"--{option} has no meaning with --manifest: leave it out.")
    if given["refine"] and given["tile"] is not None:
        raise click.UsageError("--refine and --tile: tiles have the photo's own size already: give one of them.")


def _check_webcam(given: dict[str, Any]) -> None:
    if not given["webcam"].strip():
        raise click.UsageError('--webcam "" names no camera: is a variable of the shell empty? The first one is 0.')
    if given["photos"]:
        raise click.UsageError(f"--webcam together with {given['photos'][0]}: a camera, or photos, not both.")
    if given["output"] is not None:
        raise click.UsageError(f"--output {given['output']} is a file, --webcam saves in a folder: name a folder.")
    if given["refine"]:
        raise click.UsageError("--refine is for photos and videos: it has no meaning with --webcam.")
    if given["coco"] is not None:
        raise click.UsageError("--coco is a data set of photos: it has no meaning with --webcam.")


def _check_output(given: dict[str, Any]) -> None:
    output: Path = given["output"]
    if given["output_dir"] is not None:
        raise click.UsageError("--output and --output-dir both say where the results go: give one of them.")
    if means_folder("output") and output.exists() and not output.is_dir():
        raise click.UsageError(f"--output {output}{os.sep} names a folder, and {output} is a file: name another one.")
    if means_folder("output") or not _is_file_name(output):
        given["output"], given["output_dir"] = None, output
        return
    if output in _STDOUT_NAMES:
        output = given["output"] = STDOUT
    if len(given["kinds"] or ()) > 1:
        raise click.UsageError(f"--output {output} is one file, --save names several: name one, or give a folder.")
    if given["resume"]:
        raise click.UsageError("--resume looks for results in a folder: it has no meaning with --output FILE.")
    if output in given["photos"] and output != STDOUT and not given["overwrite"]:
        raise click.UsageError(f"-o {output} would replace the photo itself: name another file.")
    if output == STDOUT and sys.stdout.isatty():
        raise click.UsageError("--output - writes a PNG to standard output, which is a terminal: pipe it somewhere.")
    if output == STDOUT and given["as_json"]:
        raise click.UsageError("--json and --output - both want standard output: give --output a file.")


def check_named_file(given: dict[str, Any], files: Sequence[PhotoFile]) -> None:
    """Refuse a file of ``--output`` that cannot hold the result of these inputs; without ``--save``, decide its kind.

    Raises:
        click.UsageError: exit code 2.
    """
    output: Path = given["output"]
    suffix = output.suffix.lower()
    if len(files) > 1:
        raise click.UsageError(f"--output {output} is a file, for the result of one photo: give a folder.")
    if files[0].is_video:
        if suffix not in VIDEO_SUFFIXES:
            raise click.UsageError(f"--output {output} is a picture's name, {files[0].path} is a video: name a .mp4.")
        return
    kind = (given["kinds"] or _DEFAULT_KINDS.get(suffix, ("cutout",)))[0]
    given["kinds"] = (kind,)
    if suffix in KINDS[kind].suffixes or not suffix or is_stream(output) or output == STDOUT:
        return
    others = [f"--save {name}" for name in RESULTS if suffix in KINDS[name].suffixes]
    advice = f", or give {' or '.join(others)}" if others else ""
    raise click.UsageError(
        f"--output {output}: a {kind} can be written as {', '.join(KINDS[kind].suffixes)}: name one of these{advice}."
    )


def _is_file_name(path: Path) -> bool:
    """Whether a path means a file: standard output, an existing file, or a new name that ends as files do."""
    if path.is_dir():
        return False
    return path == STDOUT or path.exists() or path.suffix.lower() in _FILE_SUFFIXES

"""unet-run: segment photos, folders, videos, a camera."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click

from unet_runtime import __version__
from unet_runtime.cli import exits, options
from unet_runtime.cli.quiet import engines_quiet
from unet_runtime.cli.report import Done, Report, describe
from unet_runtime.cli.shared import GroupedCommand, setup_logging, verbosity
from unet_runtime.core.errors import ImageError, OutputError, SourceError
from unet_runtime.core.files import replacing
from unet_runtime.core.photo import open_photo, photo_size
from unet_runtime.core.segmentation import Result
from unet_runtime.io.coco import areas_by_name, require_contours
from unet_runtime.io.jobs import PixelBudget, Plan, Pool, map_in_order, models_to_load, plan
from unet_runtime.io.kind import Checkpoint, Metadata
from unet_runtime.io.sinks import encode, is_current, result_path, save, stamp
from unet_runtime.io.sources import STDIN, PhotoFile, find_photos
from unet_runtime.segmenter import Segmenter

logger = logging.getLogger(__name__)

_SWITCH_SECONDS = 0.0005
"""Python's default is ten times as long: an inference that is ready to begin would wait for a quarter of its time."""

_QUIET, _VERBOSE = -1, 1  # of ``verbosity``


@click.command(cls=GroupedCommand, epilog=options.EXAMPLES)
@click.argument("photos", nargs=-1, type=click.Path(path_type=Path, allow_dash=True))
@options.result_options
@options.many_options
@options.model_options
@options.live_options
@verbosity
@click.version_option(__version__)
def command(**given: Any) -> int:
    """Segment PHOTOS: files, folders (searched recursively), patterns, videos, or - for standard input.

    Writes PHOTO.mask.png (pixel value = class id, at the photo's own size), PHOTO.overlay.png, PHOTO.cutout.png (RGBA),
    PHOTO.probabilities.npz (float16, height x width x classes, for numpy.load) and PHOTO.json (COCO: areas, bounding
    boxes, outlines). A video becomes VIDEO.overlay.mp4 (or .mask, .cutout), without sound.

    Exit codes: 0 all done, 1 some photos failed, 2 wrong usage, 3 model or engine, 130 interrupted, 143 terminated.
    """
    setup_logging(given["verbosity"])
    options.check(given)
    if given["webcam"] is not None:
        return _webcam(given)
    if "json" in (given["kinds"] or ()):
        require_contours(given["contours"])
    files = find_photos(given["photos"], given["output_dir"], strict=False)
    if given["output"] is not None and (len(files) > 1 or files[0].is_video):
        raise click.UsageError(f"--output {given['output']} is a file, for the result of one photo: give a folder.")
    return _run(files, given)


class Settings(NamedTuple):  # not a dataclass: half a millisecond of a cold start
    """The user's choices, for every photo."""

    kinds: tuple[str, ...]
    output: Path | None
    """File of the one result; ``-``: standard output; None: files in each photo's folder of results."""
    video_kinds: tuple[str, ...]
    max_pixels: int | None
    tile: float | None
    metadata: Metadata
    stdin: bytes = b""
    """The photo that came through standard input."""

    @classmethod
    def of(cls, given: dict[str, Any], segmenter: Segmenter) -> Settings:
        """Read them from the command's parameters, and the photo from standard input where it is named."""
        default = ("cutout",) if given["output"] is not None else options.DEFAULT_RESULTS
        metadata = Metadata(
            engine=segmenter.backend.engine,
            contours=given["contours"],
            stamp=stamp(segmenter.spec.to_json(), tile=given["tile"], contours=given["contours"]),
        )
        # Here, not in a worker: a read from a terminal must end with Ctrl-C.
        stdin = sys.stdin.buffer.read() if STDIN in given["photos"] else b""
        return cls(
            given["kinds"] or default,
            given["output"],
            given["kinds"] or ("overlay",),
            given["max_pixels"] or None,
            given["tile"],
            metadata,
            stdin,
        )

    def paths(self, file: PhotoFile) -> list[Path]:
        """List the files that one photo or video results in."""
        if file.is_video:
            return [file.output_dir / f"{file.stem}.{kind}.mp4" for kind in self.video_kinds]
        return [result_path(kind, file.output_dir, file.stem) for kind in self.kinds]

    def is_done(self, file: PhotoFile) -> bool:
        """Whether ``--resume`` may leave it out; a video is done when its results are there."""
        return is_current(file.path, self.paths(file), "" if file.is_video else self.metadata.stamp)


def _run(files: list[PhotoFile], given: dict[str, Any]) -> int:
    """Segment the photos, several at a time where there are several, and then the videos, one by one."""
    shares = plan(sum(not file.is_video for file in files), given["threads"])
    segmenter = _load(given, shares.threads)
    settings = Settings.of(given, segmenter)
    done = {file for file in files if given["resume"] and settings.is_done(file)}
    report = Report(
        len(files) - len(done),
        segmenter,
        as_json=given["as_json"],
        quiet_stdout=given["output"] == options.STDOUT,
        progress=given["verbosity"] != _QUIET,
    )
    try:
        report.begin()
        for file in files:
            if file in done:
                report.skip(file.path, settings.paths(file))
        engines = _engines(segmenter, shares, given)
        budget = PixelBudget() if shares.workers > 1 else None
        work = partial(segment, settings=settings, engines=engines, budget=budget)
        sys.setswitchinterval(_SWITCH_SECONDS)
        photos = [file for file in files if file not in done and not file.is_video]
        with closing(map_in_order(work, photos, workers=shares.workers)) as outcomes:
            for outcome in outcomes:
                report.add(outcome.item.path, outcome.result, outcome.error)
                if outcome.error is not None and given["on_error"] == "stop":
                    return report.end()
        videos = [file for file in files if file not in done and file.is_video]
        if videos and shares.threads != given["threads"]:
            segmenter = _load(given, given["threads"])  # one frame after the other: all threads work on each
        for file in videos:
            _video(file, segmenter, settings, report)
            if report.failed and given["on_error"] == "stop":
                break
    except KeyboardInterrupt:
        report.interrupted()
        raise
    return report.end()


def _engines(segmenter: Segmenter, shares: Plan, given: dict[str, Any]) -> Pool[Segmenter]:
    """A segmenter for each run at a time; several of them may be the same one."""
    count = models_to_load(segmenter.backend, shares.runs)
    loaded = [segmenter, *(_load(given, shares.threads) for _ in range(count - 1))]
    return Pool(loaded * (shares.runs // count))


def segment(
    file: PhotoFile, checkpoint: Checkpoint, *, settings: Settings, engines: Pool[Segmenter], budget: PixelBudget | None
) -> Done:
    """Segment one photo and write its results.

    Raises:
        SourceError, ImageError, OutputError: this photo's problem.
        BackendError: the engine failed.
        StoppedError: the run has ended.
    """
    if file.problem:
        raise SourceError(file.problem)
    try:
        with _reserved(file, budget):
            photo = open_photo(io.BytesIO(settings.stdin) if file.path == STDIN else file.path, settings.max_pixels)
            checkpoint()
            with engines.borrow() as segmenter:
                result = segmenter(photo) if settings.tile is None else segmenter.tiled(photo, settings.tile)
            checkpoint()
            return _save_results(result, file, settings, checkpoint)
    except MemoryError as error:
        raise ImageError(f"{file.path}: too large for this machine's memory") from error


def _reserved(file: PhotoFile, budget: PixelBudget | None) -> AbstractContextManager[None]:
    """Wait until a photo of this size may be decoded; a single photo need not wait."""
    if budget is None or not file.path.is_file():
        return nullcontext()
    size = photo_size(file.path)
    return nullcontext() if size is None else budget.reserve(size[0] * size[1])


def _save_results(result: Result, file: PhotoFile, settings: Settings, checkpoint: Checkpoint) -> Done:
    written: list[Path] = []
    piped = b""
    metadata = replace(settings.metadata, photo=file.path.name)
    if settings.output is None:
        written = save(result, settings.kinds, file.output_dir, file.stem, metadata, checkpoint)
    elif settings.output == options.STDOUT:
        piped = encode(result, settings.kinds[0], metadata)
    else:
        with replacing(settings.output, "see --output", durable=False) as target:
            target.write(encode(result, settings.kinds[0], metadata))
        written = [settings.output]
    areas = areas_by_name(result)
    shares = []
    for known in result.spec.classes:
        if known.role != "background":
            shares.append(f"{known.name} {areas[known.name]['share']:.0%}")
    content = {"width": result.photo.width, "height": result.photo.height, "classes": areas}
    return Done(written, content, ", ".join(shares), piped)


def _video(file: PhotoFile, segmenter: Segmenter, settings: Settings, report: Report) -> None:
    from unet_runtime.cli.live import run_video  # photos need nothing of it

    try:
        paths = settings.paths(file)
        run_video(segmenter, file.path, dict(zip(settings.video_kinds, paths, strict=True)))
        report.add(file.path, Done(paths))
    except (SourceError, OutputError) as error:
        report.add(file.path, None, error)


def _webcam(given: dict[str, Any]) -> int:
    from unet_runtime.cli.live import LiveOptions, run_webcam  # photos need nothing of it

    chosen = {name: given[name] for name in options.LIVE_OPTIONS if given[name] is not None}
    segmenter = _load(given, given["threads"])
    logger.info("%s", describe(segmenter))
    return run_webcam(segmenter, LiveOptions(source=given["webcam"], output_dir=given["output_dir"], **chosen))


def _load(given: dict[str, Any], threads: int | None) -> Segmenter:
    with engines_quiet(given["verbosity"] != _VERBOSE):
        return Segmenter(given["model"], backend=given["backend"], device=given["device"], threads=threads)


def main() -> None:
    if not sys.warnoptions:  # Pillow warns of odd metadata in photos that it reads all the same
        warnings.simplefilter("ignore")
    exits.stop_once()
    exits.run(command, quick=True)

"""unet-run: segment photos, folders, videos, a camera."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unet_runtime import __version__
from unet_runtime.cli import exits, options
from unet_runtime.cli.quiet import engines_quiet
from unet_runtime.cli.report import Done, Report, describe
from unet_runtime.cli.shared import GroupedCommand, PathName, setup_logging, verbosity
from unet_runtime.cli.work import Settings, is_piped, segment
from unet_runtime.core.errors import OutputError, SourceError, UnetRuntimeError
from unet_runtime.core.files import is_stream, remove_leftovers, replacing
from unet_runtime.io.coco import require_contours
from unet_runtime.io.examine import engine_pool
from unet_runtime.io.jobs import (
    Outcome,
    PixelBudget,
    give_back_large_blocks,
    map_in_order,
    plan,
)
from unet_runtime.io.kind import Checkpoint
from unet_runtime.io.places import Places
from unet_runtime.io.sources import STDIN, LeftOut, PhotoFile, find
from unet_runtime.segmenter import Segmenter

if TYPE_CHECKING:
    from unet_runtime.io.coco_set import DataSet

logger = logging.getLogger(__name__)

_SWITCH_SECONDS = 0.0005
"""Python's default is ten times as long: an inference that is ready to begin would wait for a quarter of its time."""

_QUIET, _VERBOSE = -1, 1  # of ``verbosity``


class _RunCommand(GroupedCommand):
    """unet-run, and what looks at the results of many of its processes: ``merge`` and ``status``."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        if args[:1] not in (["merge"], ["status"]):
            return super().make_context(info_name, args, parent, **extra)
        from unet_runtime.cli import manifest  # photos need nothing of it

        chosen = manifest.merge if args[0] == "merge" else manifest.status
        return chosen.make_context(f"{info_name} {args[0]}", args[1:], parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


@click.command(cls=_RunCommand, epilog=options.EXAMPLES)
@click.argument("photos", nargs=-1, type=PathName(allow_dash=True))
@options.result_options
@options.many_options
@options.model_options
@options.live_options
@verbosity
@click.version_option(__version__)
def command(**given: Any) -> int:
    """Segment PHOTOS: files, folders (searched recursively), patterns, videos, or - for standard input.

    Writes PHOTO.mask.png (greyscale, pixel value = class id, at the photo's own size), PHOTO.palette.png (the same in
    the classes' colours), PHOTO.overlay.png, PHOTO.cutout.png (RGBA), PHOTO.probabilities.npz (float16, height x width
    x classes, for numpy.load) and PHOTO.json (COCO: areas, bounding boxes, outlines). A video becomes VIDEO.overlay.mp4
    (or .mask, .cutout), with sound where ffmpeg is installed. What others made is not replaced: see --overwrite.

    Exit codes: 0 all done, 1 some photos failed, 2 wrong usage, 3 model or engine, 130 interrupted, 143 terminated.
    """
    setup_logging(given["verbosity"])
    options.check(given)
    if given["webcam"] is not None:
        return _webcam(given)
    if "json" in (given["kinds"] or ()) or given["coco"] is not None:
        require_contours(given["contours"])
    if given["manifest"] is not None:
        from unet_runtime.cli.manifest import run_manifest  # photos need nothing of it

        sys.setswitchinterval(_SWITCH_SECONDS)
        return run_manifest(given, partial(_load, given))
    files, left_out = find(given["photos"], given["output_dir"], strict=False)
    if given["output"] is not None:
        options.check_named_file(given, files)
    return _run(files, left_out, given)


def _run(files: list[PhotoFile], left_out: list[LeftOut], given: dict[str, Any]) -> int:
    """Segment the photos, several at a time where there are several, and then the videos, one by one."""
    shares = plan(sum(not file.is_video for file in files), given["threads"])
    segmenter = _load(given, shares.threads)
    settings = Settings.of(given, files, segmenter)
    data_set = _data_set(files, given, settings, segmenter)
    settings = settings._replace(data_set=data_set)
    if settings.output is not None and not is_piped(settings.output):
        settings.places.check(settings.output)
    _clean(files)
    done = dict.fromkeys(file for file in files if given["resume"] and settings.is_done(file))  # in their order
    report = Report(
        len(files),
        segmenter,
        as_json=given["as_json"],
        quiet_stdout=given["output"] == options.STDOUT,
        progress=given["verbosity"] != _QUIET,
    )
    try:
        _announce(report, left_out, [file for file in done if data_set is None or file.is_video], settings)
        engines = engine_pool(segmenter, shares, partial(_load, given, shares.threads))
        budget = PixelBudget() if shares.workers > 1 else None
        if shares.workers > 1:
            give_back_large_blocks()
        work = partial(segment, settings=settings, engines=engines, budget=budget, done=done)
        # A data set needs all of them; those that are done are not segmented again.
        photos = [file for file in files if not file.is_video and (data_set is not None or file not in done)]
        if not _segment_photos(photos, work, shares.workers, settings, report, given["on_error"]):
            return report.end()
        if data_set is not None:
            _close_data_set(data_set, report)
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
    finally:
        if data_set is not None:
            data_set.discard()
    return report.end()


def _clean(files: Sequence[PhotoFile]) -> None:
    """Remove what killed runs left in the folders of the results."""
    if len(files) > 1:  # a single photo takes less time than looking through a large folder
        for folder in {file.output_dir for file in files if not file.problem}:
            remove_leftovers(folder)


def _announce(report: Report, left_out: Sequence[LeftOut], skipped: Sequence[PhotoFile], settings: Settings) -> None:
    """Say what runs, what the folders leave out, and what ``--resume`` skips."""
    report.begin()
    for kind in left_out:
        report.leave_out(kind)
    for file in skipped:
        report.skip(file.path, settings.paths(file))


def _segment_photos(
    photos: Sequence[PhotoFile],
    work: Callable[[PhotoFile, Checkpoint], Done],
    workers: int,
    settings: Settings,
    report: Report,
    on_error: str,
) -> bool:
    """Segment the photos, several at a time; False where an error has stopped the run."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    with closing(map_in_order(work, photos, workers=workers)) as outcomes:
        for outcome in outcomes:
            error = _deliver(outcome, settings)
            report.add(outcome.item.path, None if error else outcome.result, error)
            if error is not None and on_error == "stop":
                if settings.data_set is not None:
                    logger.warning("%s: not written, it would lack the rest", settings.data_set.path)
                return False
    return True


def _deliver(outcome: Outcome[PhotoFile, Done], settings: Settings) -> UnetRuntimeError | None:
    """Do what the main thread does with a result: a pipe may wait for its reader until Ctrl-C. Returns an error."""
    done = outcome.result
    if done is None:
        return outcome.error
    try:
        for path in done.written if done.piped else ():
            with replacing(path, "see --output", durable=False) as target:
                target.write(done.piped)
        if settings.data_set is not None and done.entry is not None:
            settings.data_set.add(outcome.item.path, done.entry)
    except OutputError as error:
        return error
    return None


def _data_set(
    files: Sequence[PhotoFile], given: dict[str, Any], settings: Settings, segmenter: Segmenter
) -> DataSet | None:
    """The data set that ``--coco`` names, begun.

    Raises:
        OutputError: its place is taken, or cannot be written.
    """
    path: Path | None = given["coco"]
    if path is None:
        return None
    from unet_runtime.io.coco_set import DataSet, names_root  # few need it

    photos = [file for file in files if not file.is_video and not file.problem]
    if any(file.is_video for file in files):
        logger.info("%s: photos alone, no videos", path)
    for file in photos:
        if path in settings.paths(file):
            raise OutputError(f"{path}: is a result of {file.path}, too: name another file with --coco")
    if not is_stream(path):
        settings.places.check(path)
    root = names_root(given["photos"], [file.path for file in photos if file.path != STDIN])
    return DataSet(path, segmenter.spec, settings.metadata, root)


def _close_data_set(data_set: DataSet, report: Report) -> None:
    try:
        data_set.close()
        logger.info("%s: %d photos, %d annotations", data_set.path, data_set.photos, data_set.annotations)
    except OutputError as error:
        report.fail(error)


def _video(file: PhotoFile, segmenter: Segmenter, settings: Settings, report: Report) -> None:
    from unet_runtime.cli.live import run_video  # photos need nothing of it

    try:
        paths = settings.paths(file)
        for path in paths:
            settings.places.check(path)
        targets = dict(zip(settings.video_kinds, paths, strict=True))
        refine, smooth = settings.choices.refine, settings.smooth
        run_video(segmenter, file.path, targets, settings.video_stamp, refine=refine, smooth=smooth)
        report.add(file.path, Done(paths))
    except (SourceError, OutputError) as error:
        report.add(file.path, None, error)


def _webcam(given: dict[str, Any]) -> int:
    from unet_runtime.cli.live import LiveOptions, run_webcam  # photos need nothing of it

    chosen = {name: given[name] for name in options.LIVE_OPTIONS if given[name] is not None}
    chosen |= {"min_score": given["min_score"], "min_share": given["min_share"]}
    chosen["places"] = Places(_read_live(given), overwrite=given["overwrite"])
    segmenter = _load(given, given["threads"])
    logger.info("%s", describe(segmenter))
    return run_webcam(segmenter, LiveOptions(source=given["webcam"], output_dir=given["output_dir"], **chosen))


def _read_live(given: dict[str, Any]) -> list[Path]:
    """What a live view reads and must not replace; who insists may mean the film itself."""
    read = [] if given["model"] is None else [given["model"]]
    if not given["overwrite"]:
        read.append(Path(given["webcam"]))  # a device or a film; an address is no file
    return read


def _load(given: dict[str, Any], threads: int | None) -> Segmenter:
    with engines_quiet(given["verbosity"] != _VERBOSE):
        return Segmenter(
            given["model"],
            backend=given["backend"],
            device=given["device"],
            threads=threads,
            verify_key=given["verify_key"],
        )


def main() -> None:
    if not sys.warnoptions:  # Pillow warns of odd metadata in photos that it reads all the same
        warnings.simplefilter("ignore")
    exits.stop_once()
    exits.run(command, quick=True)

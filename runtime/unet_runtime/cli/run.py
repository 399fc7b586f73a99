"""unet-run: segment photos, folders, videos, a camera."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from unet_runtime import __version__
from unet_runtime.cli import exits, options
from unet_runtime.cli.quiet import engines_quiet
from unet_runtime.cli.report import Done, Report, describe
from unet_runtime.cli.shared import GroupedCommand, PathName, setup_logging, verbosity
from unet_runtime.core.errors import ImageError, OutputError, SourceError, UnetRuntimeError
from unet_runtime.core.files import is_stream, remove_leftovers, replacing
from unet_runtime.core.photo import photo_size, stored_photo, whole_photo
from unet_runtime.core.segmentation import Result, Segmentation
from unet_runtime.core.spec import ModelSpec
from unet_runtime.io.coco import areas_by_name, require_contours
from unet_runtime.io.jobs import (
    Outcome,
    PixelBudget,
    Plan,
    Pool,
    give_back_large_blocks,
    map_in_order,
    models_to_load,
    plan,
)
from unet_runtime.io.kind import Checkpoint, Metadata
from unet_runtime.io.places import Places
from unet_runtime.io.sinks import encode, result_path, save
from unet_runtime.io.sources import STDIN, LeftOut, PhotoFile, find
from unet_runtime.io.stamps import is_current, stamp
from unet_runtime.segmenter import Segmenter

if TYPE_CHECKING:
    from unet_runtime.core.tiling import TiledSegmentation
    from unet_runtime.io.coco_set import DataSet

logger = logging.getLogger(__name__)

_SWITCH_SECONDS = 0.0005
"""Python's default is ten times as long: an inference that is ready to begin would wait for a quarter of its time."""

_STAMPED = ("tile", "contours", "refine", "min_score", "min_share")
"""Options that decide what is in the results."""

_QUIET, _VERBOSE = -1, 1  # of ``verbosity``

_STDIN_FILE = Path("/dev/stdin")  # where a shell has redirected a file to it, that file


@click.command(cls=GroupedCommand, epilog=options.EXAMPLES)
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
    files, left_out = find(given["photos"], given["output_dir"], strict=False)
    if given["output"] is not None:
        options.check_named_file(given, files)
    return _run(files, left_out, given)


class Settings(NamedTuple):  # not a dataclass: half a millisecond of a cold start
    """The user's choices, for every photo."""

    kinds: tuple[str, ...]
    output: Path | None
    """File of the one result; ``-``: standard output; None: files in each photo's folder of results."""
    video_kinds: tuple[str, ...]
    max_pixels: int | None
    tile: float | None
    refine: bool
    min_score: float
    min_share: float
    metadata: Metadata
    places: Places
    segmenter: Segmenter
    """Prepares photos; any of the engines runs the model."""
    stdin: bytes = b""
    """The photo that came through standard input."""
    data_set: DataSet | None = None
    """What ``--coco`` makes of all photos."""

    @classmethod
    def of(cls, given: dict[str, Any], files: Sequence[PhotoFile], segmenter: Segmenter) -> Settings:
        """Read them from the command's parameters, and the photo from standard input where it is named."""
        tile = given["tile"]
        if tile is None and segmenter.spec.input.fit == "crop":
            tile = options.OVERLAP
            logger.info("%s saw parts of photos at their own scale: photos are covered with tiles", segmenter.spec.name)
        metadata = Metadata(
            engine=segmenter.backend.engine,
            contours=given["contours"],
            stamp=stamp(segmenter.spec.to_json(), **{name: given[name] for name in _STAMPED} | {"tile": tile}),
        )
        # Here, not in a worker: a read from a terminal must end with Ctrl-C.
        stdin = sys.stdin.buffer.read() if STDIN in given["photos"] else b""
        return cls(
            given["kinds"] or options.DEFAULT_RESULTS,
            given["output"],
            given["kinds"] or ("overlay",),
            given["max_pixels"] or None,
            tile,
            given["refine"],
            given["min_score"],
            given["min_share"],
            metadata,
            _places(given, files),
            segmenter,
            stdin,
        )

    def paths(self, file: PhotoFile) -> list[Path]:
        """List the files that one photo or video results in."""
        if self.output is not None:
            return [self.output]
        if file.is_video:
            return [file.output_dir / f"{file.stem}.{kind}.mp4" for kind in self.video_kinds]
        return [result_path(kind, file.output_dir, file.stem) for kind in self.kinds]

    def is_done(self, file: PhotoFile) -> bool:
        """Whether ``--resume`` may leave it out."""
        return is_current(file.path, self.paths(file), self.metadata.stamp)


def _places(given: dict[str, Any], files: Sequence[PhotoFile]) -> Places:
    """What the run reads stays; but who insists on one named file may mean the photo itself."""
    read = [] if given["model"] is None else [given["model"]]
    if given["output"] is None or not given["overwrite"]:
        read += [_STDIN_FILE if file.path == STDIN else file.path for file in files if not file.problem]
    return Places(read, overwrite=given["overwrite"])


def _run(files: list[PhotoFile], left_out: list[LeftOut], given: dict[str, Any]) -> int:
    """Segment the photos, several at a time where there are several, and then the videos, one by one."""
    shares = plan(sum(not file.is_video for file in files), given["threads"])
    segmenter = _load(given, shares.threads)
    settings = Settings.of(given, files, segmenter)
    data_set = _data_set(files, given, settings, segmenter)
    settings = settings._replace(data_set=data_set)
    if settings.output is not None and not _is_piped(settings.output):
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
        engines = _engines(segmenter, shares, given)
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


def _is_piped(path: Path) -> bool:
    """Whether a result goes to standard output, or into a device or a pipe."""
    return path == options.STDOUT or is_stream(path)


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


def _engines(segmenter: Segmenter, shares: Plan, given: dict[str, Any]) -> Pool[Segmenter]:
    """A segmenter for each run at a time; several of them may be the same one."""
    count = models_to_load(segmenter.backend, shares.runs)
    loaded = [segmenter, *(_load(given, shares.threads) for _ in range(count - 1))]
    return Pool(loaded * (shares.runs // count))


def segment(
    file: PhotoFile,
    checkpoint: Checkpoint,
    *,
    settings: Settings,
    engines: Pool[Segmenter],
    budget: PixelBudget | None,
    done: Container[PhotoFile] = (),
) -> Done:
    """Segment one photo and write its results; of one in ``done``, take what a data set needs from its results.

    Raises:
        SourceError, ImageError, OutputError: this photo's problem.
        BackendError: the engine failed.
        StoppedError: the run has ended.
    """
    if file.problem:
        raise SourceError(file.problem)
    try:
        with _reserved(file, budget):
            if file in done and settings.data_set is not None:
                known = settings.data_set.known_entry(settings.paths(file))
                if known is not None:
                    return Done(settings.paths(file), entry=known, was_done=True)
            result = _segmented(file, settings, engines, checkpoint)
            found = result.found(settings.min_score, settings.min_share)
            result = result.only(found)
            if settings.refine and isinstance(result, Segmentation):  # tiles have the photo's own size
                result = result.refined()
            return _save_results(result, found, file, settings, checkpoint)
    except MemoryError as error:
        raise ImageError(f"{file.path}: too large for this machine's memory") from error


def _segmented(
    file: PhotoFile, settings: Settings, engines: Pool[Segmenter], checkpoint: Checkpoint
) -> Segmentation | TiledSegmentation:
    """Read one photo and run the model, which no other photo waits for longer than that."""
    photo = stored_photo(io.BytesIO(settings.stdin) if file.path == STDIN else file.path, settings.max_pixels)
    if settings.tile is not None:
        photo = whole_photo(photo)
        checkpoint()
        with engines.borrow() as segmenter:
            result: Segmentation | TiledSegmentation = segmenter.tiled(photo, settings.tile)
    else:
        prepared = settings.segmenter.prepare(photo)
        checkpoint()
        with engines.borrow() as segmenter:
            probabilities = segmenter.infer(prepared.images)[0]
        result = settings.segmenter.finish(prepared, probabilities)
    checkpoint()
    return result


def _reserved(file: PhotoFile, budget: PixelBudget | None) -> AbstractContextManager[None]:
    """Wait until a photo of this size may be decoded; a single photo need not wait."""
    if budget is None or not file.path.is_file():
        return nullcontext()
    size = photo_size(file.path)
    return nullcontext() if size is None else budget.reserve(size[0] * size[1])


def _save_results(
    result: Result, found: Sequence[str], file: PhotoFile, settings: Settings, checkpoint: Checkpoint
) -> Done:
    written: list[Path] = []
    piped = b""
    metadata = settings.metadata._replace(photo=file.path.name)
    if settings.output is None:
        written = save(result, settings.kinds, file.output_dir, file.stem, metadata, checkpoint, settings.places)
    else:
        content = encode(result, settings.kinds[0], metadata, settings.output.suffix)
        if _is_piped(settings.output):
            piped = content
        else:
            settings.places.check(settings.output)
            with replacing(settings.output, "see --output", durable=False) as target:
                target.write(content)
        written = [] if settings.output == options.STDOUT else [settings.output]
    areas = areas_by_name(result)
    is_empty = not found and bool(result.spec.role_names("foreground"))
    width, height = result.size
    described = {"width": width, "height": height, "found": not is_empty, "classes": areas}
    entry = None if settings.data_set is None else settings.data_set.entry(result.mask)
    return Done(written, described, _summary(result.spec, areas, found), piped, entry, is_empty=is_empty)


def _summary(spec: ModelSpec, areas: Mapping[str, Mapping[str, float]], found: Sequence[str]) -> str:
    """``pet 35% (score 0.95), border 8%``, or ``no pet found (score 0.41)``: what a photo's line says of it."""
    foreground = spec.role_names("foreground")
    if foreground and not found:
        best = max(areas[name]["score"] for name in foreground)
        return f"no {', '.join(foreground)} found" + (f" (score {best:.2f})" if best else "")
    parts = []
    for entry in spec.classes:
        if entry.role == "foreground":
            parts.append(f"{entry.name} {areas[entry.name]['share']:.0%} (score {areas[entry.name]['score']:.2f})")
        elif entry.role == "neutral":
            parts.append(f"{entry.name} {areas[entry.name]['share']:.0%}")
    return ", ".join(parts)


def _video(file: PhotoFile, segmenter: Segmenter, settings: Settings, report: Report) -> None:
    from unet_runtime.cli.live import run_video  # photos need nothing of it

    try:
        paths = settings.paths(file)
        for path in paths:
            settings.places.check(path)
        targets = dict(zip(settings.video_kinds, paths, strict=True))
        run_video(segmenter, file.path, targets, settings.metadata.stamp, refine=settings.refine)
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
        return Segmenter(given["model"], backend=given["backend"], device=given["device"], threads=threads)


def main() -> None:
    if not sys.warnoptions:  # Pillow warns of odd metadata in photos that it reads all the same
        warnings.simplefilter("ignore")
    exits.stop_once()
    exits.run(command, quick=True)

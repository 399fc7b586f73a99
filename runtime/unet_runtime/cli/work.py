"""What unet-run does with a photo: the user's choices, the model's result, and the files that are made of it."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from unet_runtime.cli import options
from unet_runtime.cli.report import Done
from unet_runtime.core.errors import ImageError, SourceError
from unet_runtime.core.files import is_stream, replacing
from unet_runtime.core.photo import photo_size, stored_photo, whole_photo
from unet_runtime.core.segmentation import Result, Segmentation
from unet_runtime.core.spec import ModelSpec
from unet_runtime.io.coco import areas_by_name
from unet_runtime.io.jobs import PixelBudget, Plan, Pool, models_to_load
from unet_runtime.io.kind import Checkpoint, Metadata
from unet_runtime.io.places import Places
from unet_runtime.io.sinks import encode, result_path, save
from unet_runtime.io.sources import STDIN, PhotoFile
from unet_runtime.io.stamps import is_current, stamp
from unet_runtime.segmenter import Segmenter

if TYPE_CHECKING:
    from unet_runtime.core.tiling import TiledSegmentation
    from unet_runtime.io.coco_set import DataSet

logger = logging.getLogger(__name__)

_STAMPED = ("tile", "contours", "refine", "min_score", "min_share")
"""Options that decide what is in the results."""

_STDIN_FILE = Path("/dev/stdin")  # where a shell has redirected a file to it, that file


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
    smooth: float
    """Share of the last frames in each frame of a video."""
    video_stamp: str
    """What videos record of model and options."""
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
        stamped = {name: given[name] for name in _STAMPED} | {"tile": tile}
        metadata = Metadata(
            engine=segmenter.backend.engine,
            contours=given["contours"],
            stamp=stamp(segmenter.spec.to_json(), **stamped),
        )
        smooth = given["smooth"] or 0.0
        if smooth:  # of no concern to photos, whose stamp stays
            stamped["smooth"] = smooth
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
            smooth,
            stamp(segmenter.spec.to_json(), **stamped),
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
        return is_current(file.path, self.paths(file), self.video_stamp if file.is_video else self.metadata.stamp)


def _places(given: dict[str, Any], files: Sequence[PhotoFile]) -> Places:
    """What the run reads stays; but who insists on one named file may mean the photo itself."""
    read = [] if given["model"] is None else [given["model"]]
    if given["output"] is None or not given["overwrite"]:
        read += [_STDIN_FILE if file.path == STDIN else file.path for file in files if not file.problem]
    return Places(read, overwrite=given["overwrite"])


def is_piped(path: Path) -> bool:
    """Whether a result goes to standard output, or into a device or a pipe."""
    return path == options.STDOUT or is_stream(path)


def engine_pool(segmenter: Segmenter, shares: Plan, load: Callable[[], Segmenter]) -> Pool[Segmenter]:
    """A segmenter for each run at a time; several of them may be the same one."""
    count = models_to_load(segmenter.backend, shares.runs)
    loaded = [segmenter, *(load() for _ in range(count - 1))]
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
    with in_memory(file, file.path, budget):
        if file in done and settings.data_set is not None:
            known = settings.data_set.known_entry(settings.paths(file))
            if known is not None:
                return Done(settings.paths(file), entry=known, was_done=True)
        source = io.BytesIO(settings.stdin) if file.path == STDIN else file.path
        result, found = examine(source, checkpoint, settings=settings, engines=engines)
        return _save_results(result, found, file, settings, checkpoint)


@contextmanager
def in_memory(file: PhotoFile, source: Path | IO[bytes], budget: PixelBudget | None) -> Iterator[None]:
    """Wait until a photo of this size may be decoded; a single photo need not wait.

    Raises:
        SourceError: there is nothing to read.
        ImageError: the photo is too large for this machine.
    """
    if file.problem:
        raise SourceError(file.problem)
    try:
        has_size = budget is not None and (not isinstance(source, Path) or source.is_file())
        size = photo_size(source) if has_size else None
        if size is None or budget is None:
            yield
        else:
            with budget.reserve(size[0] * size[1]):
                yield
    except MemoryError as error:
        raise ImageError(f"{file.path}: too large for this machine's memory") from error


def examine(
    source: Path | IO[bytes], checkpoint: Checkpoint, *, settings: Settings, engines: Pool[Segmenter]
) -> tuple[Segmentation | TiledSegmentation, tuple[str, ...]]:
    """The result of one photo, with the foreground classes that count as found.

    Raises:
        ImageError: no readable photo.
        BackendError: the engine failed.
        StoppedError: the run has ended.
    """
    result = _segmented(source, settings, engines, checkpoint)
    found = result.found(settings.min_score, settings.min_share)
    result = result.only(found)
    if settings.refine and isinstance(result, Segmentation):  # tiles have the photo's own size
        result = result.refined()
    return result, found


def _segmented(
    source: Path | IO[bytes], settings: Settings, engines: Pool[Segmenter], checkpoint: Checkpoint
) -> Segmentation | TiledSegmentation:
    """Read one photo and run the model, which no other photo waits for longer than that."""
    photo = stored_photo(source, settings.max_pixels)
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
        if is_piped(settings.output):
            piped = content
        else:
            settings.places.check(settings.output)
            with replacing(settings.output, "see --output", durable=False) as target:
                target.write(content)
        written = [] if settings.output == options.STDOUT else [settings.output]
    facts, summary = described(result, found)
    entry = None if settings.data_set is None else settings.data_set.entry(result.mask)
    return Done(written, facts, summary, piped, entry, is_empty=not facts["found"])


def described(result: Result, found: Sequence[str]) -> tuple[dict[str, Any], str]:
    """What is said of a photo: for programs, as ``Done.content``, and for people."""
    areas = areas_by_name(result)
    is_empty = not found and bool(result.spec.role_names("foreground"))
    width, height = result.size
    facts = {"width": width, "height": height, "found": not is_empty, "classes": areas}
    return facts, _summary(result.spec, areas, found)


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

"""What unet-run does with a photo: the user's choices, the model's result, and the files that are made of it."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unet_runtime.cli import options
from unet_runtime.cli.report import Done
from unet_runtime.core.errors import SourceError
from unet_runtime.core.files import is_stream, replacing
from unet_runtime.core.segmentation import Result
from unet_runtime.io.examine import Choices, described, examine, in_memory
from unet_runtime.io.jobs import PixelBudget, Pool
from unet_runtime.io.kind import Checkpoint, Metadata
from unet_runtime.io.places import Places
from unet_runtime.io.sinks import encode, result_path, save
from unet_runtime.io.sources import STDIN, PhotoFile
from unet_runtime.io.stamps import is_current, stamp
from unet_runtime.segmenter import Segmenter

if TYPE_CHECKING:
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
    choices: Choices
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
            Choices(given["max_pixels"] or None, tile, given["refine"], given["min_score"], given["min_share"]),
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
    from_stdin = file.path == STDIN
    with in_memory(
        file.path, io.BytesIO(settings.stdin) if from_stdin else file.path, settings.choices, budget
    ) as source:
        if file in done and settings.data_set is not None:
            known = settings.data_set.known_entry(settings.paths(file))
            if known is not None:
                return Done(settings.paths(file), entry=known, was_done=True)
        result, found = examine(
            source, checkpoint, choices=settings.choices, segmenter=settings.segmenter, engines=engines
        )
        return _save_results(result, found, file, settings, checkpoint)


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

"""The photos of a table's rows: each becomes an entry, in this process or in a worker on another machine."""

from __future__ import annotations

import io
import posixpath
from pathlib import Path
from typing import IO, NamedTuple

from unet_runtime.core.errors import SourceError
from unet_runtime.io.examine import Choices, described, examine, in_memory
from unet_runtime.io.jobs import PixelBudget, Pool
from unet_runtime.io.kind import Checkpoint, Metadata
from unet_runtime.io.manifest import result_name
from unet_runtime.io.places import Places
from unet_runtime.io.sinks import KINDS, encode
from unet_runtime.io.sources import named_photo, short_stem
from unet_runtime.io.storage import is_address, read_bytes, storage
from unet_runtime.io.tables import Entry
from unet_runtime.segmenter import Segmenter


class PhotoRow(NamedTuple):
    """A photo to do."""

    number: int
    """Number of its row, from 1."""
    photo: str
    """As the table names it."""
    source: str | bytes
    """Path, address, or the photo's file itself."""


class RowSettings(NamedTuple):
    """What becomes of each photo; can be sent to another process."""

    kinds: tuple[str, ...]
    """Results, some of ``sinks.KINDS``."""
    choices: Choices
    metadata: Metadata
    output: str = ""
    """Folder, or its address, where results are files of their own; empty: they are in the entry."""
    places: Places = Places()
    """Which files in it may be replaced."""


class Answer(NamedTuple):
    """What came of a row."""

    entry: Entry
    summary: str
    """For people."""


class RowWork:
    """Segments the photos of rows; may be called from several threads.

    Args:
        settings: what becomes of a photo.
        segmenter: prepares photos.
        engines: run the model.
        budget: for all photos in work together.
    """

    def __init__(
        self, settings: RowSettings, segmenter: Segmenter, engines: Pool[Segmenter], budget: PixelBudget | None = None
    ) -> None:
        self._settings = settings
        self._segmenter = segmenter
        self._engines = engines
        self._budget = budget
        self._output = storage(settings.output) if settings.output else None

    def __call__(self, row: PhotoRow, checkpoint: Checkpoint) -> Answer:
        """Segment the photo of a row.

        Raises:
            ImageError, SourceError, OutputError: this row's problem.
            BackendError: the engine failed.
            StoppedError: the run has ended.
        """
        settings = self._settings
        with in_memory(row.photo, _opened(row.source), settings.choices, self._budget) as source:
            result, found = examine(
                source, checkpoint, choices=settings.choices, segmenter=self._segmenter, engines=self._engines
            )
            metadata = settings.metadata._replace(photo=row.photo)
            contents = {}
            for kind in settings.kinds:
                checkpoint()
                contents[kind] = encode(result, kind, metadata)
            facts, summary = described(result, found)
        if self._output is None:
            return Answer(Entry(row.number, row.photo, facts=facts, contents=contents), summary)
        return Answer(Entry(row.number, row.photo, facts=facts, results=self._write(row, contents)), summary)

    def _write(self, row: PhotoRow, contents: dict[str, bytes]) -> tuple[str, ...]:
        assert self._output is not None
        folder, name = posixpath.split(result_name(row.photo))
        names = {kind: posixpath.join(folder, short_stem(name) + KINDS[kind].suffix) for kind in contents}
        if not is_address(self._output.name):
            for path in names.values():
                self._settings.places.check(Path(self._output.name, path))
        for kind, content in contents.items():
            with self._output.writing(names[kind], durable=False) as file:
                file.write(content)
        return tuple(names.values())


def _opened(source: str | bytes) -> Path | IO[bytes]:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if is_address(source):
        return io.BytesIO(read_bytes(source, "a photo"))
    file = named_photo(Path(source), Path())
    if file.problem:
        raise SourceError(file.problem)
    return file.path

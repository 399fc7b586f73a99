"""Tables of results: a row for each photo of a manifest, whether it was segmented or why not.

    files         a line of JSON for each row; the results are files of their own
    parquet       a row with a column of bytes for each kind of result
    webdataset    a tar archive: ``000000012.json`` and ``000000012.mask.png`` of row 12

The same rows give the same bytes: no table holds times, and rows keep their order. A new form of table is one entry of
``TABLES``.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import IO, Any, NamedTuple

from unet_runtime.core.errors import SourceError
from unet_runtime.core.install import missing
from unet_runtime.core.text import one_line
from unet_runtime.io.coco import to_json
from unet_runtime.io.sinks import KINDS

_ROWS_AT_A_TIME = 64
_DIGITS = 9


class Entry(NamedTuple):
    """What a table says of one photo."""

    row: int
    """In the manifest, from 1."""
    photo: str
    """As the manifest names it."""
    error: str = ""
    """Why it has no result."""
    facts: dict[str, Any] | None = None
    """``width``, ``height`` (pixels), ``found`` and ``classes`` (areas and scores by name), as ``unet-run --json``."""
    results: tuple[str, ...] = ()
    """Files of its results, relative to the folder of all results."""
    contents: dict[str, bytes] = {}  # noqa: RUF012 - of a NamedTuple; nobody changes it
    """Results by kind, where they are in the table."""

    def document(self) -> dict[str, Any]:
        """What is said of the photo in words."""
        content: dict[str, Any] = {"row": self.row, "photo": self.photo}
        if self.error:
            return content | {"error": self.error}
        return content | (self.facts or {}) | ({"results": list(self.results)} if self.results else {})

    def values(self) -> dict[str, Any]:
        """The columns of what was found, and of the results."""
        if not self.facts:
            return dict(self.contents)
        areas = [{"name": name, **area} for name, area in self.facts["classes"].items()]
        return self.facts | {"classes": areas} | self.contents


class Table(NamedTuple):
    """A form of table."""

    suffix: str
    writing: Callable[[IO[bytes], tuple[str, ...], str], AbstractContextManager[Callable[[Entry], None]]]
    """(file, kinds of results, stamp) -> a context with a function that adds a row."""
    reading: Callable[[IO[bytes]], Iterator[Entry]]
    """The rows of a file."""
    holds_results: bool = True
    """Whether the results are in the table, not in files of their own."""


def require(form: str) -> None:
    """Fail before the first photo, not at it.

    Raises:
        MissingDependencyError: ``parquet`` without pyarrow.
    """
    if form == "parquet":
        _arrow()


def read(table: Table, file: IO[bytes], name: str) -> Iterator[Entry]:
    """The rows of a file.

    Raises:
        SourceError: it is damaged.
        MissingDependencyError: pyarrow is not installed.
    """
    try:
        yield from table.reading(file)
    except (ImportError, GeneratorExit):
        raise
    except Exception as error:  # what a damaged file makes a library stumble over
        if type(error).__module__.startswith("unet_runtime"):
            raise
        raise SourceError(f"{name}: damaged ({one_line(error)}): do its shard again, with --resume") from error


def _entry(document: dict[str, Any], contents: dict[str, bytes]) -> Entry:
    row, photo = document.pop("row"), document.pop("photo")
    error, results = document.pop("error", None) or "", tuple(document.pop("results", None) or ())
    return Entry(row, photo, error, None if error else document, results, contents)


@contextmanager
def _write_lines(file: IO[bytes], kinds: tuple[str, ...], stamp: str) -> Iterator[Callable[[Entry], None]]:
    def add(entry: Entry) -> None:
        file.write(to_json(entry.document()) + b"\n")

    yield add


def _read_lines(file: IO[bytes]) -> Iterator[Entry]:
    for line in file:
        yield _entry(json.loads(line), {})


@contextmanager
def _write_tar(file: IO[bytes], kinds: tuple[str, ...], stamp: str) -> Iterator[Callable[[Entry], None]]:
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:

        def add(entry: Entry) -> None:
            key = f"{entry.row:0{_DIGITS}d}"  # a reader takes all up to the first dot for it
            _add_member(archive, f"{key}.json", to_json(entry.document()))
            for kind, content in entry.contents.items():
                suffix = KINDS[kind].suffix
                _add_member(archive, f"{key}{'.coco.json' if suffix == '.json' else suffix}", content)

        yield add


def _add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # its time is 0
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def _read_tar(file: IO[bytes]) -> Iterator[Entry]:
    document: dict[str, Any] = {}
    contents: dict[str, bytes] = {}
    kinds = {kind.suffix: name for name, kind in KINDS.items()} | {".coco.json": "json"}
    with tarfile.open(fileobj=file, mode="r|") as archive:
        for member in archive:
            opened = archive.extractfile(member)
            content = opened.read() if opened else b""
            suffix = member.name[member.name.index(".") :]
            if suffix != ".json":
                contents[kinds[suffix]] = content
                continue
            if document:
                yield _entry(document, contents)
            document, contents = json.loads(content), {}
    if document:
        yield _entry(document, contents)


def _arrow() -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise missing("--results parquet", "pyarrow", "parquet") from error
    return pyarrow


@contextmanager
def _write_parquet(file: IO[bytes], kinds: tuple[str, ...], stamp: str) -> Iterator[Callable[[Entry], None]]:
    arrow = _arrow()
    from pyarrow import parquet

    area = arrow.struct(
        [("name", arrow.string()), ("pixels", arrow.int64()), ("share", arrow.float64()), ("score", arrow.float64())]
    )
    fields = [
        ("row", arrow.int64()),
        ("photo", arrow.string()),
        ("error", arrow.string()),
        ("width", arrow.int32()),
        ("height", arrow.int32()),
        ("found", arrow.bool_()),
        ("classes", arrow.list_(area)),
    ]
    fields += [(kind, arrow.binary()) for kind in kinds]
    schema = arrow.schema(fields, metadata={"unet-edge": stamp})
    with parquet.ParquetWriter(file, schema) as writer:
        waiting: list[dict[str, Any]] = []

        def flush() -> None:
            if waiting:
                writer.write_table(arrow.Table.from_pylist(waiting, schema))
                waiting.clear()

        def add(entry: Entry) -> None:
            waiting.append(_parquet_row(entry))
            if len(waiting) == _ROWS_AT_A_TIME:
                flush()

        yield add
        flush()


def _parquet_row(entry: Entry) -> dict[str, Any]:
    error = _unicode(entry.error) or None
    return {"row": entry.row, "photo": _unicode(entry.photo), "error": error} | entry.values()


def _unicode(name: str) -> str:
    r"""A name that is not UTF-8 with ``\udcXX`` for its other bytes, as in ``--json``."""
    return name.encode("utf-8", "backslashreplace").decode()


def _read_parquet(file: IO[bytes]) -> Iterator[Entry]:
    _arrow()
    from pyarrow import parquet

    for batch in parquet.ParquetFile(file).iter_batches(batch_size=_ROWS_AT_A_TIME):
        for row in batch.to_pylist():
            contents = {}
            for kind in KINDS:
                content = row.pop(kind, None)
                if content is not None:
                    contents[kind] = content
            row["classes"] = {area.pop("name"): area for area in row["classes"] or ()}
            yield _entry(row, contents)


TABLES = {
    "files": Table(".jsonl", _write_lines, _read_lines, holds_results=False),
    "parquet": Table(".parquet", _write_parquet, _read_parquet),
    "webdataset": Table(".tar", _write_tar, _read_tar),
}

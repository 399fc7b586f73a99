"""A manifest: a list of photos of any length, read row by row, and the share of it that one process does.

    photos.txt        a path or address on each line
    photos.csv        the same in the first of the columns ``COLUMNS`` that the heading has
    photos.parquet    the same, read with pyarrow

Paths are relative to the manifest's folder. Which shard a photo belongs to depends on its name alone, so equal names
meet in one shard: the first such row is done, the others are errors. No process remembers more of its rows than eight
bytes each.
"""

from __future__ import annotations

import csv
import hashlib
import os
import posixpath
import re
from array import array
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

import numpy as np

from unet_runtime.core.errors import SourceError
from unet_runtime.core.install import missing
from unet_runtime.core.text import one_line
from unet_runtime.io.storage import is_address, read_stream

COLUMNS = ("photo", "path", "file", "file_name", "filename", "image", "url")

_BATCH_ROWS = 1024
_SUFFIXES = ".txt, .csv, .parquet"
_LONGEST_FIELD = 1 << 16
_UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")


class Shard(NamedTuple):
    """One of ``total`` shares of a manifest."""

    number: int = 1
    """1 to ``total``."""
    total: int = 1

    def holds(self, key: int) -> bool:
        """Whether the photo whose name has this digest belongs to it."""
        return key % self.total == self.number - 1


class Row(NamedTuple):
    """One photo of a manifest."""

    number: int
    """Number of the row in the manifest, from 1."""
    photo: str
    """As the manifest names it."""
    problem: str = ""
    """Why it is not segmented."""


class Manifest:
    """The rows of one shard of a manifest.

    The whole manifest is read once to count them, and once more by each ``rows``.

    Args:
        path: of the manifest, or its address.
        shard: share that is meant.

    Raises:
        SourceError: the manifest is missing, damaged, or has no column of photos.
        MissingDependencyError: pyarrow or fsspec is needed, and not installed.
    """

    def __init__(self, path: str, shard: Shard) -> None:
        self.path = path
        self.shard = shard
        keys = array("Q")
        for _, _, key in self._own():
            keys.append(key)
        self.count = len(keys)
        """Rows of the shard."""
        found, counts = np.unique(np.frombuffer(keys, np.uint64), return_counts=True)
        self._repeated = frozenset(found[counts > 1].tolist())

    def rows(self) -> Iterator[Row]:
        """The shard's rows, in their order.

        Raises:
            SourceError: the manifest has become unreadable meanwhile.
        """
        first: dict[str, int] = {}
        for number, name, key in self._own():
            yield Row(number, name, self._problem(number, name, key, first))

    def source(self, row: Row) -> str:
        """Path or address of a row's photo."""
        return row.photo if is_address(row.photo) else _beside(self.path, row.photo)

    def _own(self) -> Iterator[tuple[int, str, int]]:
        """(number, name, digest of the name) of the shard's rows."""
        for number, name in enumerate(_names(self.path), 1):
            key = _digest(result_name(name))
            if self.shard.holds(key):
                yield number, name, key

    def _problem(self, number: int, name: str, key: int, first: dict[str, int]) -> str:
        if not name.strip():
            return f"row {number}: names no photo, expected a path"
        if key not in self._repeated:
            return ""
        other = first.setdefault(result_name(name), number)
        return "" if other == number else f"{name}: row {number} repeats row {other}: name each photo once"


def result_name(photo: str) -> str:
    """Name of a photo's results: its path without what depends on a machine, so a relative one without ``..``.

    Example:
        >>> result_name("/data/./a.jpg"), result_name("../b.jpg"), result_name("s3://bucket/c.jpg")
        ('data/a.jpg', '__/b.jpg', 'bucket/c.jpg')
    """
    if is_address(photo):
        photo = photo.partition("://")[2]
    parts = posixpath.normpath(photo).strip("/").split("/")
    return "/".join("__" if part == ".." else part for part in parts)


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big")


def _beside(manifest: str, name: str) -> str:
    if is_address(manifest):
        return posixpath.join(posixpath.dirname(manifest), name)
    return os.path.join(os.path.dirname(manifest), name)  # noqa: PTH118, PTH120 - a path may be any text


def _names(path: str) -> Iterator[str]:
    """What each row of a manifest names."""
    suffix = posixpath.splitext(path)[1].lower()
    if suffix not in _READERS:
        raise SourceError(f"{path}: expected a manifest, a file that ends as one of {_SUFFIXES}")
    with read_stream(path, "a manifest") as file:
        try:
            yield from _READERS[suffix](file, path)
        except (SourceError, GeneratorExit):
            raise
        except Exception as error:  # pyarrow raises whatever a damaged file makes it stumble over
            if isinstance(error, ImportError):
                raise
            raise SourceError(f"{path}: damaged, expected a manifest ({one_line(error)})") from error


def _lines(file: IO[bytes], path: str) -> Iterator[str]:
    for line in _in_utf8(file, path):
        name = os.fsdecode(line.rstrip(b"\r\n"))
        yield name.removeprefix("\ufeff")


def _text(file: IO[bytes], path: str) -> Iterator[str]:
    for line in _in_utf8(file, path):
        yield line.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def _in_utf8(file: IO[bytes], path: str) -> Iterator[bytes]:
    """Lines, unless they are in UTF-16, as spreadsheets on Windows save "Unicode text"."""
    for number, line in enumerate(file):
        halves = (line[:8:2], line[1:8:2])
        if number == 0 and (line.startswith(_UTF_16_MARKS) or (len(line) >= 8 and bytes(4) in halves)):
            raise SourceError(f"{path}: a text in UTF-16, expected UTF-8: save it as UTF-8 (Excel: CSV UTF-8)")
        yield line


def _csv_rows(file: IO[bytes], path: str) -> Iterator[str]:
    csv.field_size_limit(_LONGEST_FIELD)
    rows = csv.reader(_text(file, path))
    column = _column(next(rows, []), path)
    for row in rows:
        if row:
            yield row[column] if column < len(row) else ""


def _parquet_rows(file: IO[bytes], path: str) -> Iterator[str]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise missing(f"{path}", "pyarrow", "parquet") from error
    table = parquet.ParquetFile(file)
    names = table.schema_arrow.names
    chosen = names[_column(names, path)]
    for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=[chosen]):
        for value in batch.column(0).to_pylist():
            yield os.fsdecode(value) if isinstance(value, bytes) else str(value or "")


def _column(heading: list[str], path: str) -> int:
    names = [name.strip().lower() for name in heading]
    for wanted in COLUMNS:
        if wanted in names:
            return names.index(wanted)
    found = ", ".join(heading[:8]) or "none"
    advice = ": separate columns with commas" if len(heading) == 1 and re.search("[;\t]", heading[0]) else ""
    raise SourceError(
        f"{path}: columns {found}, expected one that is called {', '.join(COLUMNS[:-1])} or {COLUMNS[-1]}{advice}"
    )


_READERS: dict[str, Callable[[IO[bytes], str], Iterator[str]]] = {
    ".txt": _lines,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}

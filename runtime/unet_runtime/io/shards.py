"""The results of a manifest, in parts that are there whole or not at all: a process that dies loses at most one.

    OUT/shard-00003-of-00064/_shard.json              what the shard is made of
    OUT/shard-00003-of-00064/part-000000.parquet      the rows of a part, see tables.py
    OUT/shard-00003-of-00064/_part-000000.json        written after it: the part is done

A part holds the shard's next ``PART_ROWS`` rows. Which rows these are, and the options, are in its digest: ``--resume``
keeps the parts whose digest is as expected, and makes the others anew. Names that begin with an underscore are left
out by whoever reads such a folder as one table (Arrow, Spark, DuckDB).
"""

from __future__ import annotations

import hashlib
import heapq
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from unet_runtime.core.errors import OutputError, SourceError
from unet_runtime.core.files import is_temporary
from unet_runtime.io.coco import to_json
from unet_runtime.io.kind import STAMP_KEY
from unet_runtime.io.manifest import Row, Shard
from unet_runtime.io.storage import Storage
from unet_runtime.io.tables import TABLES, Entry, Table, read

PART_ROWS = 500
"""Photos that a process that dies has to do again, at most."""

_FOLDER = re.compile(r"shard-(\d{5,})-of-(\d{5,})")
_NOTE = "_shard.json"


class Part(NamedTuple):
    """The next rows of a shard."""

    number: int
    """From 0."""
    rows: tuple[Row, ...]
    digest: str
    """SHA-256 over model, options and rows: the same digest, the same results."""


class Progress(NamedTuple):
    """How far a shard, or all of them, has come."""

    rows: int = 0
    done: int = 0
    """Rows whose part is finished, the failed ones too."""
    failed: int = 0

    def plus(self, other: Progress) -> Progress:
        """The sum of both."""
        return Progress(self.rows + other.rows, self.done + other.done, self.failed + other.failed)


def parts(rows: Iterable[Row], stamp: str) -> Iterator[Part]:
    """The parts of a shard, one after the other."""
    waiting: list[Row] = []
    index = 0
    for row in rows:
        waiting.append(row)
        if len(waiting) == PART_ROWS:
            yield _part(index, waiting, stamp)
            waiting, index = [], index + 1
    if waiting:
        yield _part(index, waiting, stamp)


def _part(index: int, rows: list[Row], stamp: str) -> Part:
    digest = hashlib.sha256(f"{stamp}\n".encode())
    for row in rows:
        digest.update(f"{row.number}\t{row.photo}\t{row.problem}\n".encode("utf-8", "surrogateescape"))
    return Part(index, tuple(rows), digest.hexdigest())


class ShardFolder:
    """The results of one shard.

    Args:
        storage: the folder of all shards.
        shard: which one.
        form: one of ``TABLES``.
    """

    def __init__(self, storage: Storage, shard: Shard, form: str) -> None:
        self._storage = storage
        self._shard = shard
        self._form = form
        self._stamp = ""
        self._kinds: tuple[str, ...] = ()
        self._folder = f"shard-{shard.number:05d}-of-{shard.total:05d}"

    def begin(self, rows: int, stamp: str, kinds: tuple[str, ...]) -> None:
        """Note what the shard is made of, before its first part.

        Raises:
            OutputError: the folder has results of another number of shards or of another form, files of others, or
                cannot be written.
        """
        for other in shard_notes(self._storage):
            if (other["total"], other["results"]) != (self._shard.total, self._form):
                raise OutputError(
                    f"{self._storage.name}: holds {other['total']} shards of {other['results']}, this is one of "
                    f"{self._shard.total} of {self._form}: name another folder with --output"
                )
        # A process that was killed before the note has left the beginning of it.
        names = [name for name in self._storage.files(self._folder) if not is_temporary(name)]
        if names and _read_note(self._storage, f"{self._folder}/{_NOTE}") is None:
            raise OutputError(
                f"{self._storage.name}/{self._folder}: has files that unet-run did not make ({names[0]}): name another "
                "folder with --output"
            )
        self._storage.clean(self._folder)
        self._stamp, self._kinds = stamp, kinds
        note = {"shard": self._shard.number, "total": self._shard.total, "rows": rows, "results": self._form}
        self._note(_NOTE, note | {"parts": -(-rows // PART_ROWS), "stamp": stamp, "kinds": kinds})

    def places(self, part: Part, entry: Entry) -> list[str]:
        """Paths or addresses of a row's results: files of their own, or the part's table."""
        names = entry.results or (f"{self._folder}/{_name_of(part.number, TABLES[self._form])}",)
        return [posixpath.join(self._storage.name, name) for name in names]

    def failed(self, part: Part) -> int | None:
        """How many rows of a finished part have failed; None where it is missing, or made of other rows or options."""
        note = _read_note(self._storage, f"{self._folder}/{_note_of(part.number)}")
        if note is None or note["digest"] != part.digest:
            return None
        failed: int = note["failed"]
        return failed

    def entries(self, part: Part) -> dict[int, Entry]:
        """The rows of a finished part that have results, by number; none where its file is damaged."""
        table = TABLES[self._form]
        path = f"{self._folder}/{_name_of(part.number, table)}"
        found = {}
        try:
            with self._storage.reading(path) as file:
                for entry in read(table, file, path):
                    if not entry.error:
                        found[entry.row] = entry
        except SourceError:
            return {}
        return found

    @contextmanager
    def writing(self, part: Part) -> Iterator[Callable[[Entry], None]]:
        """A context with a function that adds the next row; the part is there when the context ends without an error.

        Raises:
            OutputError: it cannot be written.
        """
        failed = 0
        table = TABLES[self._form]
        with (
            self._storage.writing(f"{self._folder}/{_name_of(part.number, table)}") as file,
            table.writing(file, self._kinds, self._stamp) as add_row,
        ):

            def add(entry: Entry) -> None:
                nonlocal failed
                failed += bool(entry.error)
                add_row(entry)

            yield add
        note = {"rows": len(part.rows), "failed": failed, "digest": part.digest, "stamp": self._stamp}
        self._note(_note_of(part.number), note)

    def _note(self, name: str, content: dict[str, Any]) -> None:
        with self._storage.writing(f"{self._folder}/{name}") as file:
            file.write(to_json({STAMP_KEY: "unet-run", **content}) + b"\n")


def shard_notes(storage: Storage) -> list[dict[str, Any]]:
    """What each shard that has begun is made of: ``shard``, ``total``, ``rows``, ``parts``, ``results``, ``folder``."""
    notes = []
    for folder in storage.folders():
        if _FOLDER.fullmatch(folder):
            note = _read_note(storage, f"{folder}/{_NOTE}")
            if note is not None:
                notes.append(note | {"folder": folder})
    return notes


def progress(storage: Storage, note: dict[str, Any]) -> Progress:
    """How far a shard has come."""
    total = Progress(note["rows"])
    for index in range(note["parts"]):
        part = _read_note(storage, f"{note['folder']}/{_note_of(index)}")
        if part is not None and part["stamp"] == note["stamp"]:
            total = total.plus(Progress(0, part["rows"], part["failed"]))
    return total


def merged(storage: Storage, notes: list[dict[str, Any]]) -> Iterator[Entry]:
    """The rows of all shards, in the order of the manifest: one file of each shard is open at a time.

    Raises:
        SourceError: a part is missing or damaged.
    """
    return heapq.merge(*(_rows(storage, note) for note in notes), key=lambda entry: entry.row)


def _rows(storage: Storage, note: dict[str, Any]) -> Iterator[Entry]:
    table = TABLES[note["results"]]
    for index in range(note["parts"]):
        path = f"{note['folder']}/{_name_of(index, table)}"
        with storage.reading(path) as file:
            yield from read(table, file, f"{storage.name}/{path}")


def _name_of(part: int, table: Table) -> str:
    return f"part-{part:06d}{table.suffix}"


def _note_of(part: int) -> str:
    return f"_part-{part:06d}.json"


def _read_note(storage: Storage, path: str) -> dict[str, Any] | None:
    try:
        with storage.reading(path) as file:
            note = json.load(file)
    except (SourceError, ValueError):  # missing, or not ours
        return None
    return note if isinstance(note, dict) and note.get(STAMP_KEY) == "unet-run" else None

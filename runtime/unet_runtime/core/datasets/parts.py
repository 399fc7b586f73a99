"""Parts of a dataset as folders and lists name them: training, validation, test."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from unet_runtime.core.errors import SourceError

_PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "trainval": "trainval",
}
"""Word for a part -> the part."""

_WORD = re.compile(r"[a-z]+")


def part_of(name: str) -> str:
    """The part that the name of a folder or file says, as ``train`` of ``instances_train2017``; empty: none."""
    for word in _WORD.findall(name.lower()):
        if word in _PARTS:
            return _PARTS[word]
    return ""


def by_part(names: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """(sample, part or empty) -> samples of each part that has any."""
    found: dict[str, list[str]] = {}
    for name, part in names:
        if part:
            found.setdefault(part, []).append(name)
    return {part: tuple(listed) for part, listed in found.items()}


def read_lists(folder: Path, samples: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Parts from ``train.txt``, ``val.txt``, ``trainval.txt`` and ``test.txt`` in a folder: the first word of a line is
    the name of a photo, with or without folders and suffix. Lines that name no sample are passed over.

    Raises:
        SourceError: a list that cannot be read, or none of whose lines names a sample.
    """
    known: dict[str, str] = {}
    for name in samples:
        known[name] = name
        known.setdefault(name.rpartition("/")[2], name)
    parts = {}
    for path in sorted(folder.glob("*.txt")):
        part = _PARTS.get(path.stem.lower(), "")
        if not part:
            continue
        lines = read_list(path)
        names = list(filter(None, (_sample(line, known) for line in lines)))
        if lines and not names:
            raise SourceError(f"{path}: names {len(lines)} photos as {lines[0]!r}, none of them is in this dataset")
        if names:
            parts[part] = tuple(dict.fromkeys(names))
    return parts


def read_list(path: Path) -> list[str]:
    """The first word of each line that is no comment.

    Raises:
        SourceError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}), expected a list of photos") from error
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def _sample(line: str, known: Mapping[str, str]) -> str:
    """The sample that a line of a list names; empty: none."""
    path = line.replace("\\", "/")
    stem, dot, suffix = path.rpartition(".")
    for candidate in (path, stem if dot and "/" not in suffix else path):
        if candidate in known:
            return known[candidate]
        if candidate.rpartition("/")[2] in known:
            return known[candidate.rpartition("/")[2]]
    return ""

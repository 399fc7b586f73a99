"""Folders walked and patterns expanded, whatever lies there: links that go in circles, names with brackets."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

MAGIC = frozenset("*?[")
"""Characters of a pattern."""

_ANY_FOLDERS = "**"

OnError = Callable[[OSError], object]


def walk(folder: str, on_error: OnError) -> Iterator[tuple[str, list[str]]]:
    """(folder, names of what is in it but folders), sorted, from the top down; links to folders are not followed.

    As ``os.walk``, which before Python 3.12 takes a level of the interpreter's stack for each level of folders.
    """
    waiting = [folder]
    while waiting:
        parent = waiting.pop()
        folders: list[str] = []
        names: list[str] = []
        try:
            with os.scandir(parent) as entries:
                for entry in entries:
                    (folders if _is_real_folder(entry) else names).append(entry.name)
        except OSError as error:
            on_error(error)
        yield parent, sorted(name for name in names if not os.path.isdir(os.path.join(parent, name)))  # noqa: PTH112, PTH118
        waiting += [os.path.join(parent, name) for name in sorted(folders, reverse=True)]  # noqa: PTH118


def _is_real_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def fixed_parts(pattern: Path) -> int:
    """How many of a pattern's first parts stand for themselves: without magic, or the name of what is there."""
    count = 0
    while count < len(pattern.parts) - 1 and _is_literal(Path(*pattern.parts[:count]), pattern.parts[count]):
        count += 1
    return count


def expand(pattern: Path) -> list[Path]:
    """What a pattern matches, sorted, as a shell would expand it; an existing folder wins over a pattern of its name.

    ``**`` stands for any folders, also none, and follows no links to folders, which may lead back into themselves. As
    in a shell, ``*``, ``?`` and ``**`` match no name that begins with a dot.
    """
    found = [Path()]
    for index, part in enumerate(pattern.parts):
        is_last = index == len(pattern.parts) - 1
        following: list[Path] = []
        for place in found:
            following += _matches(place, part, is_last=is_last)
        found = list(dict.fromkeys(following))
    return sorted(found)


def _is_literal(place: Path, part: str) -> bool:
    return not MAGIC & set(part) or (part != _ANY_FOLDERS and os.path.lexists(place / part))


def _matches(place: Path, part: str, *, is_last: bool) -> Iterator[Path]:
    if not MAGIC & set(part) or (not is_last and _is_literal(place, part)):
        if os.path.lexists(place / part):
            yield place / part
    elif part == _ANY_FOLDERS:
        for folder, names in walk(str(place), _ignore):
            inner = Path(folder)
            if any(name.startswith(".") for name in inner.relative_to(place).parts):
                continue
            yield inner
            if is_last:
                yield from (inner / name for name in names if not name.startswith("."))
    else:
        import fnmatch  # most inputs are no patterns
        import re

        matches = re.compile(fnmatch.translate(os.path.normcase(part))).match
        for name in _names(place):
            if matches(os.path.normcase(name)) and (part.startswith(".") or not name.startswith(".")):
                yield place / name


def _names(place: Path) -> list[str]:
    try:
        return sorted(os.listdir(place))  # noqa: PTH208
    except OSError:  # no folder, or one that cannot be read
        return []


def _ignore(error: OSError) -> None:
    """A pattern matches what can be seen."""

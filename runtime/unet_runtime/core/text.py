"""Text for a terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any


def table(rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """Rows of equally many cells, the first of them the heading, as aligned columns.

    A column is aligned to the right where its last cell begins with a digit or a sign, else to the left.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    numeric = [cell.lstrip("+-")[:1].isdigit() for cell in rows[-1]]
    lines = []
    for row in rows:
        line = indent
        for cell, width, is_number in zip(row, widths, numeric, strict=True):
            line += (cell.rjust(width) if is_number else cell.ljust(width)) + "  "
        lines.append(line.rstrip())
    return "\n".join(lines)


def ratio(value: float) -> str:
    """A ratio with the two digits that a measurement of times can give.

    Example:
        >>> [ratio(value) for value in (0.123, 1.04, 9.96, 195.6)]
        ['0.12', '1', '10', '200']
    """
    return f"{float(f'{value:.2g}'):g}"


def one_line(message: object, limit: int = 300) -> str:
    """The first ``limit`` characters of a message of a library, its line breaks and indents made single spaces."""
    return " ".join(str(message).split())[:limit]


def shortened(text: str, limit: int = 10_000) -> str:
    """Text that lacks the middle of each line of more than ``limit`` characters: a name in it may have any length.

    Example:
        >>> shortened("photo.jpg\\n0123456789", 9)
        'photo.jpg\\n0123...6789'
    """
    if len(text) <= limit:
        return text
    lines = []
    for line in text.split("\n"):
        half = limit // 2
        lines.append(line if len(line) <= limit else f"{line[:half]}...{line[-half:]}")
    return "\n".join(lines)


def printable(text: str, *, lines: bool = False) -> str:
    r"""Text with what a terminal would obey, and what no encoding has, written as escapes.

    Control characters, terminal escapes, marks that turn the direction of reading, and bytes of a file name that is not
    UTF-8, which Python keeps as lone surrogates.

    Args:
        text: any text.
        lines: whether line breaks and tabs stay.

    Example:
        >>> printable("caf\udce9\x1b[31m.jpg\n")
        'caf\\xe9\\x1b[31m.jpg\\n'
    """
    if text.isprintable():  # most texts: no search
        return text
    return _controls(lines=lines).sub(_escape, text)


def to_json(value: object, *, indent: int | None = None, default: Callable[[Any], object] | None = None) -> str:
    r"""JSON that every terminal and encoding takes: what ``printable`` escapes is ``\uXXXX`` in it.

    A program that reads it gets the names back, also those that are not UTF-8 (in Python: with ``os.fsencode``).

    Raises:
        ValueError: NaN or infinity, which JSON has not.

    Example:
        >>> print(to_json({"photo": "caf\udce9.jpg"}))
        {"photo": "caf\udce9.jpg"}
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent, default=default)
    return text if text.isprintable() else _controls(lines=True).sub(_json_escape, text)


# C0 and C1 controls, line and paragraph separators, bidirectional overrides and isolates, surrogates.
_CONTROLS = "\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _controls(*, lines: bool) -> re.Pattern[str]:
    """What is escaped; ``re`` keeps it compiled, and a run of plain names never compiles it."""
    return re.compile(f"[\x00-\x08\x0b-\x1f{_CONTROLS}]" if lines else f"[\x00-\x1f{_CONTROLS}]")


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name, as os.fsdecode keeps it
        code -= 0xDC00
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")


def _json_escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04x}"

"""Text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


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


def one_line(message: object, limit: int = 300) -> str:
    """The first ``limit`` characters of a message of a library, its line breaks and indents made single spaces."""
    return " ".join(str(message).split())[:limit]

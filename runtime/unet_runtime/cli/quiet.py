"""Keep what C++ libraries log out of a command's error output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

_STDERR = 2
_visible: list[TextIO] = []


def visible_stderr() -> TextIO | None:
    """Standard error as the user sees it, within ``engines_quiet`` too."""
    return _visible[-1] if _visible else sys.stderr


@contextmanager
def engines_quiet(quiet: bool = True) -> Iterator[None]:
    """Close descriptor 2 to notes for the length of the block; ``quiet=False`` leaves all as it is.

    Engines write there past Python, whatever their own log levels say: TensorFlow a dozen lines about
    the processor while it is loaded, LiteRT one about its delegate. Errors come as exceptions and are
    shown afterwards; what the three packages log is shown at once. For commands only: the descriptor belongs
    to the whole process.
    """
    if not quiet or sys.stderr is None:  # None: the caller closed it already
        yield
        return
    sys.stderr.flush()
    kept = os.dup(_STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    with os.fdopen(kept, "w", buffering=1, encoding="utf-8", errors="backslashreplace") as stream:
        with suppress(OSError, ValueError):  # a stream without a descriptor, as in a test, is not closed by this
            if sys.stderr.fileno() == _STDERR:
                _visible.append(stream)
        try:
            yield
        finally:
            _visible.clear()
            sys.stderr.flush()
            os.dup2(kept, _STDERR)
            os.close(nowhere)

"""Keep what C++ libraries log out of a command's error output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_STDERR = 2


@contextmanager
def engines_quiet(quiet: bool = True) -> Iterator[None]:
    """Close descriptor 2 to notes for the length of the block; ``quiet=False`` leaves all as it is.

    Engines write there past Python, whatever their own log levels say: TensorFlow a dozen lines about
    the processor while it is loaded, LiteRT one about its delegate. Errors come as exceptions and are
    shown afterwards. For commands only: the descriptor belongs to the whole process.
    """
    if not quiet or sys.stderr is None:  # None: the caller closed it already
        yield
        return
    sys.stderr.flush()
    kept, nowhere = os.dup(_STDERR), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, _STDERR)
        os.close(kept)
        os.close(nowhere)

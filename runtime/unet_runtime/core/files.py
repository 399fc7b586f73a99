"""Atomic writing: a file is there whole, or not at all."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from unet_runtime.core.errors import OutputError

_numbers = itertools.count()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new binary file that takes ``path``'s place when the block ends; if it fails, nothing has changed.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    # Short and of one kind, whatever the result's name: that may have all the 255 bytes it can.
    temporary = path.with_name(f".unet-run.{os.getpid()}.{next(_numbers)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                yield file
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}): see --output-dir") from error

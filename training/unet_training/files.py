"""The system's errors of writing, as errors of this project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unet_runtime.core.errors import OutputError

COMMAND = "unet-train"
"""Stamp of what training writes."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around code that writes ``path`` by other means than ``unet_runtime.core.files``.

    Raises:
        OutputError: in place of the system's error (no permission, full disk, a file where a folder should be).
    """
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror or error}): choose another folder, or make room"
        ) from error

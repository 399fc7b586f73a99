"""The system's errors of writing, as errors of this project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unet_runtime.core.errors import OutputError
from unet_runtime.core.files import publish, temporary_sibling


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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside ``path`` to write to (same suffix); it takes the place of ``path`` once the block is done.

    Raises:
        OutputError: as ``writing``; ``path`` is as it was.
    """
    temporary = temporary_sibling(path, path.suffix)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)

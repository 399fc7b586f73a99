"""Write files so that they appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unet_runtime.core.errors import OutputError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around any code that writes ``path``.

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
    The folder is made if missing.

    Raises:
        OutputError: as ``writing``; ``path`` is as it was.
    """
    temporary = path.with_name("new." + path.name)
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            temporary.replace(path)
    finally:
        with suppress(OSError):  # moved already, or never there
            temporary.unlink()

"""Atomic writing: a file is there whole or not at all, where it is synced also after a power failure.

Every file is written under a random temporary name beside its target, synced, and moved into place. The random name and
``O_EXCL`` keep two processes in one folder apart, whatever their process ids: two containers both have process 1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from unet_runtime.core.errors import OutputError

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_MODE = 0o666
"""As ``open`` creates files: the umask takes from it."""


@contextmanager
def replacing(path: Path, hint: str = "", *, durable: bool = True) -> Iterator[BinaryIO]:
    """A new binary file that takes ``path``'s place when the block ends; if the block fails, nothing has changed.

    Args:
        path: the target; its folder is made if need be.
        hint: what the user can do where it cannot be written: ``see --output-dir``.
        durable: sync file and folder to the disk, for results that took long. Without it a power failure may leave an
            empty file, and a folder of photos is written faster.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_sibling(path)
        try:
            with os.fdopen(os.open(temporary, _FLAGS, _MODE), "wb") as file:
                yield file
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            os.replace(temporary, path)
            if durable:
                sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _output_error(path, error, hint) from error


def write_bytes(path: Path, content: bytes, hint: str = "") -> None:
    """Write a whole file.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    with replacing(path, hint) as file:
        file.write(content)


def write_text(path: Path, text: str, hint: str = "") -> None:
    """Write a whole text file in UTF-8.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    write_bytes(path, text.encode(), hint)


def temporary_sibling(path: Path, suffix: str = ".part") -> Path:
    """A name beside ``path`` that no other process uses, for a library that insists on writing a file by name.

    Short and independent of the target's name, which may have all the 255 bytes that a name can have. ``publish`` moves
    the file into place.
    """
    return path.with_name(f".unet-edge.{os.urandom(8).hex()}{suffix}")


def publish(temporary: Path, path: Path, hint: str = "") -> None:
    """Sync a finished file and move it into place; on failure it is removed.

    Raises:
        OutputError: it cannot be synced or moved.
    """
    try:
        try:
            descriptor = os.open(temporary, os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _output_error(path, error, hint) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable; on systems that cannot sync a folder, nothing happens."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _output_error(path: Path, error: OSError, hint: str) -> OutputError:
    reason = f"{path}: cannot be written ({error.strerror or error})"
    return OutputError(f"{reason}: {hint}" if hint else reason)

"""Atomic writing: a file is there whole or not at all, where it is synced also after a power failure.

Every file is written under a random temporary name beside its target, synced, and moved into place. The random name and
``O_EXCL`` keep two processes in one folder apart, whatever their process ids: two containers both have process 1.
A device, a pipe and a name of an open file (``/dev/null``, ``/dev/stdout``) are written into, never replaced.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from unet_runtime.core.errors import OutputError

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_STREAM_FLAGS = os.O_WRONLY | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_MODE = 0o666
"""As ``open`` creates files: the umask takes from it."""

_DAY = 24 * 60 * 60.0
_RANDOM_DIGITS = 16  # of a temporary name
_TEMPORARY = ".unet-edge."
_MAX_LINKS = 40  # as Linux allows


@contextmanager
def replacing(path: Path, hint: str = "", *, durable: bool = True) -> Iterator[BinaryIO]:
    """A new binary file that takes ``path``'s place when the block ends; if the block fails, nothing has changed.

    Args:
        path: the target; its folder is made if need be. What ``is_stream`` is written into.
        hint: what the user can do where it cannot be written: ``see --output-dir``.
        durable: sync file and folder to the disk, for results that took long. Without it a power failure may leave an
            empty file, and a folder of photos is written faster.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    try:
        if is_stream(path):
            with os.fdopen(os.open(path, _STREAM_FLAGS), "wb") as file:
                yield file
            return
        temporary = temporary_sibling(path)
        try:
            with os.fdopen(_created(temporary), "wb") as file:
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


def _created(path: Path) -> int:
    try:
        return os.open(path, _FLAGS, _MODE)
    except FileNotFoundError:  # the first file of a folder that is not there: all others need not ask
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, _FLAGS, _MODE)


def read_regular(path: Path, limit: int) -> bytes:
    """Read a whole file, no pipe and no device: reading those may wait for ever, or never end.

    Raises:
        OSError: it cannot be read, is no regular file, or has ``limit`` bytes or more.
        ValueError: no file can have this name.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "a pipe or a device, expected a file", str(path))
        content = file.read(status.st_size + 1) if status.st_size < limit else b""
        if status.st_size >= limit or len(content) >= limit:
            raise OSError(errno.EFBIG, f"{status.st_size:,} bytes, expected fewer than {limit:,}", str(path))
        return content


def is_stream(path: Path) -> bool:
    """Whether a path is a device, a pipe, a socket, or the name of an open file, such as ``/dev/stdout``."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116  # half the time of Path.stat, for each file
    except (OSError, ValueError):
        return False
    if not stat.S_ISREG(mode):
        return not stat.S_ISDIR(mode)
    for _ in range(_MAX_LINKS):
        if not path.is_symlink():
            return False
        folder = os.path.realpath(path.parent)
        if folder.startswith("/proc/"):  # where /dev/stdout and /dev/fd/3 lead
            return True
        path = Path(folder, os.readlink(path))  # noqa: PTH115  # a Path would lose what is no file name
    return False


def write_bytes(path: Path, content: bytes, hint: str = "") -> None:
    """Write a whole file.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    with replacing(path, hint) as file:
        file.write(content)


def write_text(path: Path, text: str, hint: str = "") -> None:
    """Write a whole text file in UTF-8; a byte of a name that is not UTF-8 becomes an escape.

    Raises:
        OutputError: the folder or the file cannot be written.
    """
    write_bytes(path, text.encode(errors="backslashreplace"), hint)


def temporary_sibling(path: Path, suffix: str = ".part") -> Path:
    """A name beside ``path`` that no other process uses, for a library that insists on writing a file by name.

    Short and independent of the target's name, which may have all the 255 bytes that a name can have. ``publish`` moves
    the file into place.
    """
    return path.with_name(f"{_TEMPORARY}{os.urandom(_RANDOM_DIGITS // 2).hex()}{suffix}")


def is_temporary(name: str) -> bool:
    """Whether a file's name is one of ``temporary_sibling``: a process writes it, or was killed while it did."""
    return name.startswith(_TEMPORARY)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left of unfinished files: temporary names that nobody has written to for a day.

    A file in work is written to all the time; whether its process still lives cannot be asked, on another machine
    that shares the folder or in another container.
    """
    with suppress(OSError):
        for path in folder.glob(f"{_TEMPORARY}{'[0-9a-f]' * _RANDOM_DIGITS}.part*"):
            with suppress(OSError):  # removed by another process meanwhile, or a folder
                if time.time() - path.lstat().st_mtime > _DAY:
                    path.unlink()


def publish(temporary: Path, path: Path, hint: str = "") -> None:
    """Sync a finished file and move it into place; on failure it is removed.

    Raises:
        OutputError: it cannot be synced or moved; ``path`` is a device or a pipe.
    """
    try:
        try:
            if is_stream(path):
                raise OutputError(f"{path}: is a device, a pipe or an open file, expected the name of a file")
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


def sync_tree(place: Path) -> None:
    """Make a file, or a folder with all that is in it, durable before it is moved to its name.

    Raises:
        OSError: a file cannot be synced.
    """
    for path in (place, *place.rglob("*")) if place.is_dir() else (place,):
        if path.is_dir():
            sync_folder(path)
        elif path.is_file():
            descriptor = os.open(path, os.O_RDWR)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _output_error(path: Path, error: OSError, hint: str) -> OutputError:
    reason = f"{path}: cannot be written ({error.strerror or error})"
    return OutputError(f"{reason}: {hint}" if hint else reason)

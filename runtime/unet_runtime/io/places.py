"""Which places results may take: not those of what is read, nor of files that others made."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from unet_runtime.core.errors import OutputError
from unet_runtime.core.files import is_stream
from unet_runtime.io.stamps import RESULTS, is_ours

_Identity = tuple[int, int]
"""Device and inode: the same for every name of a file."""


class Places:
    """Says whether a result may be written at a path.

    Args:
        read: paths of what the run reads, such as its photos and its model: they are never replaced.
        overwrite: whether files without our stamp may be.
        command: that made what may go.
        folders: whether the command replaces folders, too; writing a file in the place of one is an error anyway.
    """

    def __init__(
        self,
        read: Iterable[Path] = (),
        *,
        overwrite: bool = False,
        command: str = RESULTS,
        folders: bool = False,
    ) -> None:
        self._read = tuple(read)
        self._overwrite = overwrite
        self._command = command
        self._folders = folders
        self._identities: frozenset[_Identity] | None = None

    def check(self, path: Path) -> None:
        """Refuse a path where something is that must stay.

        Raises:
            OutputError: it is what the run reads, a device or a pipe, or a file that others made.
        """
        try:
            there = os.lstat(path)
        except (OSError, ValueError):  # nothing there; or writing will say why not
            return
        if stat.S_ISDIR(there.st_mode) and not self._folders:
            return
        if not stat.S_ISREG(there.st_mode) and is_stream(path):
            raise OutputError(f"{path}: is a device, a pipe or an open file: name it with --output, or another place")
        if self._is_read(path):
            raise OutputError(f"{path}: is read in this run, and would be replaced: name another place")
        if not self._overwrite and not may_go(path, self._command):
            raise OutputError(
                f"{path}: exists, and was not made by {self._command}: move it away, name another place, or insist "
                "with --overwrite"
            )

    def check_files(self, folder: Path, names: Iterable[str]) -> None:
        """Refuse a folder in which one of these names must stay; the error is that of ``check``."""
        for name in names:
            self.check(folder / name)

    def _is_read(self, path: Path) -> bool:
        if self._identities is None:  # only where something is there: each one asks the file system
            found = set()
            for known in self._read:
                identity = _identity(known)
                if identity is not None:
                    found.add(identity)
            self._identities = frozenset(found)
        return _identity(path) in self._identities


def _identity(path: Path) -> _Identity | None:
    try:
        found = os.stat(path)  # noqa: PTH116  # half the time of Path.stat, for each photo of a folder
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def may_go(path: Path, command: str) -> bool:
    """Whether a file or folder that is there was made by a command; what cannot be read was not."""
    try:
        return is_ours(path, command)
    except OSError:  # unreadable, or a link that leads nowhere
        return False

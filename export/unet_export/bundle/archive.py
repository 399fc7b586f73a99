"""Reproducible archives: the same files give the same bytes on any machine at any time."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zipfile
from pathlib import Path

from unet_export.staging import COMMAND
from unet_runtime.io.kind import STAMP_KEY
from unet_runtime.io.stamps import mark

SUFFIXES = (".tar.gz", ".zip")
"""Kinds of archives. A bare Linux unpacks the first, a bare Windows both, and Python alone either."""

_TAR_TIME = 315532800
"""1980-01-01, zip's earliest, in seconds of Unix time: what is older than any clock offends no tool."""
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_EXECUTABLE, _PLAIN = 0o755, 0o644
_COMPRESSION = 1
"""zlib's level: wheels are compressed already."""


def write_archive(folder: Path, path: Path) -> None:
    """Write every file below ``folder``, under the folder's own name, to ``path``.

    Order, times, owners and modes depend on names alone: ``*.sh`` is executable, nothing else. ``path`` ends in one of
    ``SUFFIXES``. Raises OSError.
    """
    entries = {file.relative_to(folder.parent).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    (_write_zip if path.suffix == ".zip" else _write_tar)(dict(sorted(entries.items())), path)


def _mode(file: Path) -> int:
    return _EXECUTABLE if file.suffix == ".sh" else _PLAIN


def _write_tar(entries: dict[str, Path], path: Path) -> None:
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename=STAMP_KEY, mode="wb", compresslevel=_COMPRESSION, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, file in entries.items():
            entry = tarfile.TarInfo(name)  # owner and group are 0 and nameless
            entry.size, entry.mtime, entry.mode = file.stat().st_size, _TAR_TIME, _mode(file)
            with file.open("rb") as content:
                archive.addfile(entry, content)


def _write_zip(entries: dict[str, Path], path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=_COMPRESSION) as archive:
        archive.comment = mark(COMMAND)
        for name, file in entries.items():
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.create_system, entry.external_attr = 3, _mode(file) << 16  # 3: Unix, whatever this machine is
            entry.compress_type, entry.file_size = zipfile.ZIP_DEFLATED, file.stat().st_size
            with file.open("rb") as content, archive.open(entry, "w") as packed:
                shutil.copyfileobj(content, packed, 1 << 20)

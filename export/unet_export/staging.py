"""Where an export grows, and how it takes its place: all of it or nothing."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from unet_runtime.errors import OutputError

REPORT_NAME = "parity.json"
_REJECTED_NAME = "rejected"


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """A folder beside ``output``, so on the same disk; gone afterwards, however the block ends.

    Beside and not inside: who looks through ``output`` must not find what is not proven.

    Raises:
        OutputError: an ``OSError`` of the block, such as a full disk.
    """
    try:
        place = output.absolute()
        place.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".new-{place.name}-", dir=place.parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error}): free space or choose another --output") from error


def accept(folder: Path, output: Path, names: Sequence[str]) -> None:
    """Move ``names`` from ``folder`` into ``output``; if one cannot be moved, put everything back.

    Raises:
        OSError: of the move that failed.
    """
    output.mkdir(parents=True, exist_ok=True)
    previous = folder / "previous"
    previous.mkdir()
    try:
        for name in names:
            if (output / name).exists():  # a folder cannot be replaced, only moved away
                os.replace(output / name, previous / name)
            os.replace(folder / name, output / name)
    except BaseException:
        _put_back(folder, output, names)
        raise
    _remove_rejection(output)


def _put_back(folder: Path, output: Path, names: Sequence[str]) -> None:
    for name in names:
        if not (folder / name).exists():  # it was moved
            os.replace(output / name, folder / name)
        if (folder / "previous" / name).exists():
            os.replace(folder / "previous" / name, output / name)


def reject(folder: Path, output: Path, report: str) -> Path:
    """Write the report of a failed export, and nothing else of it, to ``output/rejected``.

    Returns:
        The report's path.
    """
    written = folder / REPORT_NAME
    written.write_text(report, encoding="utf-8")
    target = output / _REJECTED_NAME / REPORT_NAME
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(written, target)
    return target


def _remove_rejection(output: Path) -> None:
    """A report of an earlier failure would contradict the export that has just been accepted."""
    rejected = output / _REJECTED_NAME
    (rejected / REPORT_NAME).unlink(missing_ok=True)
    with suppress(OSError):  # not there, or somebody keeps something else in it
        rejected.rmdir()

"""Staging: an export is made beside its folder and takes its place whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path

from unet_runtime.core.errors import OutputError

PARITY_NAME = "parity.json"
REPORT_NAME = "report.html"
REJECTED_NAME = "rejected"


@contextmanager
def staging_folder(output: Path) -> Iterator[Path]:
    """A temporary folder beside ``output``, so on the same disk; removed however the block ends.

    Beside and not inside: nobody who looks through ``output`` should find what is not proven.

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
    """Move ``names`` from ``folder`` into ``output``, in place of everything that its previous report lists.

    If one cannot be moved, everything is put back.

    Raises:
        OSError: of the move that failed.
    """
    output.mkdir(parents=True, exist_ok=True)
    previous = folder / "previous"
    previous.mkdir()
    try:
        # Artifacts of an earlier export that this one's report does not list go too.
        for name in dict.fromkeys([*names, *_listed(output)]):
            if (output / name).exists():  # a folder cannot be replaced, only moved away
                os.replace(output / name, previous / name)
            if name in names:
                os.replace(folder / name, output / name)
    except BaseException:
        _put_back(folder, output, names)
        raise
    _clear(output / REJECTED_NAME)  # it would contradict the export that has just been accepted


def _put_back(folder: Path, output: Path, names: Sequence[str]) -> None:
    for name in names:
        if not (folder / name).exists():  # it was moved
            os.replace(output / name, folder / name)
    for moved in (folder / "previous").iterdir():
        os.replace(moved, output / moved.name)


def reject(output: Path, paths: Sequence[Path]) -> Path:
    """Move an export that failed, and its report, to ``output/rejected``, in place of an earlier failure's.

    Returns:
        That folder.
    """
    place = output / REJECTED_NAME
    _clear(place)
    place.mkdir(parents=True, exist_ok=True)
    for path in paths:
        _remove(place / path.name)
        os.replace(path, place / path.name)
    return place


def _clear(place: Path) -> None:
    """Remove the files of an earlier failure, and nothing else that is kept there."""
    for name in (*_listed(place), PARITY_NAME, REPORT_NAME):
        _remove(place / name)
    with suppress(OSError):  # not there, or not empty
        place.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _listed(folder: Path) -> list[str]:
    """Names of the artifacts that a folder's ``parity.json`` lists."""
    try:
        found = json.loads((folder / PARITY_NAME).read_text(encoding="utf-8"))["artifacts"]
        names = list(map(str, map(itemgetter("file"), found)))
    except (OSError, ValueError, KeyError, TypeError):  # none, or not ours
        return []
    return [name for name in names if Path(name).name == name and name not in ("", ".", "..")]

"""Staging: an export is made beside its folder and takes its place whole or not at all."""

from __future__ import annotations

import glob
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import itemgetter
from pathlib import Path

from unet_runtime.core.errors import OutputError
from unet_runtime.core.files import read_regular, sync_folder, sync_tree
from unet_runtime.core.signature import BUNDLE_TYPE, FILE_SUFFIX, FOLDER_SIGNATURE
from unet_runtime.io.places import may_go

logger = logging.getLogger(__name__)

COMMAND = "unet-export"
"""Stamp of what this package writes."""

PARITY_NAME = "parity.json"
REPORT_NAME = "report.html"
CARD_NAME = "README.md"
"""Model card."""

_PAGES = (REPORT_NAME, CARD_NAME, PARITY_NAME)
"""The last one lists what is there."""

REJECTED_NAME = "rejected"

_PREVIOUS = "previous"
_NAME_CHARACTERS = 100  # of the output's name, in that of the staging folder


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
        prefix = f".new-{place.name[:_NAME_CHARACTERS]}-"
        _clear_abandoned(place, prefix)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place.parent))
        lock = _lock(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if lock is not None:
                os.close(lock)
    except OSError as error:
        raise OutputError(f"{output}: cannot be written ({error}): free space or choose another --output") from error


def _lock(folder: Path) -> int | None:
    """A descriptor that locks a folder for as long as this process lives, however it ends; None: it is locked."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):  # Windows, or a file system without locks: nothing is ever taken for abandoned
        os.close(descriptor)
        return None
    return descriptor


def _clear_abandoned(output: Path, prefix: str) -> None:
    """Remove the staging folders of exports that were killed; what one was about to accept is accepted."""
    for folder in output.parent.glob(f"{glob.escape(prefix)}*"):
        try:
            if folder.is_symlink() or not folder.is_dir() or (lock := _lock(folder)) is None:
                continue
            try:
                if (folder / _PREVIOUS).is_dir():  # every artifact had passed, and some were moved
                    _finish(folder, output)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
        except OSError:  # another user's, or another export was quicker
            continue


def accept(folder: Path, output: Path, names: Sequence[str], *, all_passed: bool = True) -> None:
    """Move ``names`` from ``folder`` into ``output``, in place of all of ours that its previous report lists.

    ``all_passed``: nothing of this export was rejected, so what an earlier one left in ``rejected`` goes. If one cannot
    be moved, everything is put back, and its OSError is raised. Signatures of what was there go, with a word.
    """
    output.mkdir(parents=True, exist_ok=True)
    for name in names:
        sync_tree(folder / name)  # before they have their names: after a power failure they are whole
    previous = folder / _PREVIOUS
    previous.mkdir()
    try:
        # What an earlier export's report lists and this one's does not goes as long as that report is there to list it.
        in_order = sorted(names, key=PARITY_NAME.__eq__)  # last: it lists what is there
        gone = dict.fromkeys([*_without(_own(output), names), *in_order])
        signatures = _signatures(output, gone)
        for name in (*signatures, *gone):  # a file without a signature says less than one with a wrong one
            if (output / name).exists():  # a folder cannot be replaced, only moved away
                os.replace(output / name, previous / name)
            if name in names:
                os.replace(folder / name, output / name)
    except BaseException:
        _put_back(folder, output, names)
        raise
    sync_folder(output)
    for name in signatures:
        logger.warning("%s: was the signature of what is replaced, and is gone: sign again", output / name)
    if all_passed:
        _clear(output / REJECTED_NAME)  # it would contradict the export that has just been accepted


def _finish(folder: Path, output: Path) -> None:
    """Accept what an export that was killed had begun to move."""
    names = [*_without([*_listed(folder), *_PAGES], [PARITY_NAME]), PARITY_NAME]
    old = _without(_own(output), names) if (folder / PARITY_NAME).exists() else []
    for name in (*_signatures(output, [*names, *old]), *old):
        _remove(output / name)
    for name in names:
        if (folder / name).exists():
            _remove(output / name)
            os.replace(folder / name, output / name)


def _without(names: Iterable[str], left_out: Collection[str]) -> list[str]:
    return [name for name in names if name not in left_out]


def _signatures(output: Path, names: Iterable[str]) -> list[str]:
    """Signatures in a folder that do not fit any more once ``names`` are replaced: its own, and theirs."""
    found = [FOLDER_SIGNATURE, *(f"{name}{FILE_SUFFIX}" for name in names)]
    return [name for name in found if is_signature(output / name)]


def is_signature(path: Path) -> bool:
    """Whether a file is a signature, and so may be replaced."""
    try:
        return bool(json.loads(read_regular(path, 2**26))["mediaType"] == BUNDLE_TYPE)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _put_back(folder: Path, output: Path, names: Sequence[str]) -> None:
    for name in names:
        if not (folder / name).exists():  # it was moved
            os.replace(output / name, folder / name)
    for moved in (folder / _PREVIOUS).iterdir():
        os.replace(moved, output / moved.name)


def reject(output: Path, paths: Sequence[Path]) -> Path:
    """Move a failed export and its report to ``output/rejected``, in place of an earlier one; returns that folder."""
    place = output / REJECTED_NAME
    _clear(place)
    place.mkdir(parents=True, exist_ok=True)
    for path in paths:
        _remove(place / path.name)
        os.replace(path, place / path.name)
    return place


def _clear(place: Path) -> None:
    """Remove the files of an earlier failure, and nothing else that is kept there."""
    for name in _own(place):
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


def _own(folder: Path) -> list[str]:
    """The same, less what others have put in their place since, with the reports."""
    return [name for name in (*_listed(folder), *_PAGES) if may_go(folder / name, COMMAND)]

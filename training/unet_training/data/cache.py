"""Photos decoded and resized once, kept on disk for the next training.

    FOLDER/<key>/photos.npy          uint8 (n, h, w, 3)
    FOLDER/<key>/masks.npy           uint8 (n, h, w)
    FOLDER/<key>/index.json          names, problems, size of each array's file in bytes
    FOLDER/<key>/index.json.sha256   of index.json

The key is a digest of everything the arrays depend on, so an entry is never out of date, only unused: the folder
may be deleted at any time. An entry appears whole, in one rename, whichever process is first.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import PIL

import unet_runtime
from unet_runtime.core.datasets.oxford_pets import LabelledPhoto
from unet_runtime.core.spec import InputSpec
from unet_training.data.pairs import Labelled, decode

FORMAT = 1
"""Of the entries; a change of what they hold or of how photos are prepared counts it up."""

_BUILDING = re.compile(r"building-(?P<pid>\d+)-(?P<machine>[0-9a-f]{8})-[0-9a-f]{32}")
"""Names of unfinished entries, strictly: what is so named is deleted, and the folder may hold a user's files too."""

_DAY = 24 * 3600
"""Seconds: no build takes that long, and where the builder's process cannot be looked for its age tells."""


@dataclass(frozen=True)
class PhotoCache:
    """Prepared photos in ``folder``, which is made when the first ones are kept."""

    folder: Path
    say: Callable[[str], None]
    """Receives a warning when photos cannot be kept."""

    def load(self, photos: Sequence[LabelledPhoto], spec: InputSpec) -> Labelled:
        """As ``pairs.decode``, from the disk (mapped, not read) where an earlier call has left them there.

        A damaged entry is made anew. Where nothing can be written, as on a full disk, the photos stay in memory.

        Raises:
            DatasetError: as ``pairs.decode``.
        """
        entry = self.folder / key(photos, spec)
        found = _open(entry, spec)
        if found is not None:
            return found
        data = decode(photos, spec)
        try:
            self._keep(data, entry, spec)
        except OSError as error:
            self.say(
                f"warning: {self.folder}: prepared photos cannot be kept ({error.strerror or error}), this training "
                "goes on with them in memory: make room, name another folder with --cache, or use --no-cache"
            )
            return data
        self.say(f"{len(data)} prepared photos are kept in {self.folder}, which may be deleted at any time")
        # Not there when another process, or its owner, removed it meanwhile.
        return _open(entry, spec) or data

    def _keep(self, data: Labelled, entry: Path, spec: InputSpec) -> None:
        """Write ``entry``, or leave the good one that another process wrote meanwhile.

        Raises:
            OSError: it cannot be written; nothing is left behind.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(self.folder)
        building = self.folder / _building_name()
        try:
            building.mkdir()
            _write(data, building)
            # What has the name now is damaged, or was finished since it was looked for.
            if _open(entry, spec) is None:
                _move_away(entry)
                building.rename(entry)
        except OSError:
            # A rename onto an entry is refused: between the two steps above another process put its own there.
            if _open(entry, spec) is None:
                raise
        finally:
            shutil.rmtree(building, ignore_errors=True)  # where it was renamed, there is none


def key(photos: Sequence[LabelledPhoto], spec: InputSpec) -> str:
    """32 hexadecimal digits: a digest of the files, by name, size and time of change, and of the settings."""
    content = {
        "format": FORMAT,
        "runtime": unet_runtime.__version__,
        "pillow": PIL.__version__,
        "input": asdict(spec),
        "photos": [[item.name, *_state(item.photo), *_state(item.trimap)] for item in photos],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _state(path: Path) -> tuple[int, int] | tuple[None, None]:
    """Size in bytes and time of change in nanoseconds; Nones for a missing file, whose photo is left out."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a list's name that no file system can hold
        return None, None
    return status.st_size, status.st_mtime_ns


def _write(data: Labelled, folder: Path) -> None:
    arrays = {"photos": data.photos, "masks": data.masks}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    sizes = {name: (folder / f"{name}.npy").stat().st_size for name in arrays}
    text = json.dumps({"names": data.names, "problems": data.problems, "bytes": sizes}).encode()
    (folder / "index.json").write_bytes(text)
    (folder / "index.json.sha256").write_text(hashlib.sha256(text).hexdigest(), encoding="ascii")


def _open(entry: Path, spec: InputSpec) -> Labelled | None:
    """The entry, its arrays mapped read-only; None where there is none, or a damaged one."""
    try:
        text = (entry / "index.json").read_bytes()
        if (entry / "index.json.sha256").read_bytes() != hashlib.sha256(text).hexdigest().encode():
            return None
        index = json.loads(text)
        if any((entry / f"{name}.npy").stat().st_size != size for name, size in index["bytes"].items()):
            return None
        photos, masks = (np.load(entry / f"{name}.npy", mmap_mode="r") for name in ("photos", "masks"))
    except (OSError, ValueError):  # ValueError: np.load's for a damaged header
        return None
    shape = (len(index["names"]), spec.height, spec.width)
    if (photos.shape, masks.shape) != ((*shape, 3), shape) or {photos.dtype, masks.dtype} != {np.dtype(np.uint8)}:
        return None
    return Labelled(index["names"], photos, masks, index["problems"], spec.margin)


def _building_name() -> str:
    return f"building-{os.getpid()}-{_machine()}-{uuid.uuid4().hex}"


def _machine() -> str:
    """Process ids mean nothing on another machine that shares the folder."""
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _move_away(entry: Path) -> None:
    """Remove an entry in one step as others see it: whoever has mapped it keeps its bytes."""
    grave = entry.with_name(_building_name())
    with suppress(FileNotFoundError):
        entry.rename(grave)
    shutil.rmtree(grave, ignore_errors=True)


def _remove_leftovers(folder: Path) -> None:
    """What killed processes were building: their process is gone, or a day has passed."""
    for path in folder.iterdir():
        if (name := _BUILDING.fullmatch(path.name)) is None:
            continue
        with suppress(OSError):  # removed by another process meanwhile
            orphaned = name["machine"] == _machine() and _gone(int(name["pid"]))
            if orphaned or time.time() - path.stat().st_mtime > _DAY:
                shutil.rmtree(path, ignore_errors=True)


def _gone(pid: int) -> bool:
    if os.name != "posix":  # elsewhere os.kill with signal 0 does not ask, it ends the process
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's: alive
        return False
    return False

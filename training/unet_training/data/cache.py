"""Photos decoded and resized once, kept on disk for the next training.

    FOLDER/<key>.photos   SHA-256 of the next line, newline
                          JSON: names, problems, newline
                          uint8 (n, h, w, 3) photos, uint8 (n, h, w) masks

The key is a digest of everything the arrays depend on, so an entry is never out of date, only unused: the folder may be
deleted at any time. An entry appears whole, in one rename, whichever process is first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import PIL

import unet_runtime
from unet_runtime.core.datasets import Sample
from unet_runtime.core.errors import OutputError
from unet_runtime.core.files import remove_leftovers, replacing
from unet_runtime.core.spec import InputSpec
from unet_training.data.crops import Crops
from unet_training.data.pairs import Labelled, decode

logger = logging.getLogger(__name__)

FORMAT = 3
"""Version of the entries; a change of what they hold or of how photos are prepared counts it up."""

"""Seconds: no entry takes that long to write, so an older unfinished one is a killed process's."""


@dataclass(frozen=True)
class PhotoCache:
    """Prepared photos in ``folder``, which is made when the first ones are kept."""

    folder: Path

    def load(self, photos: Sequence[Sample], spec: InputSpec, crops: Crops | None = None) -> Labelled:
        """Decode as ``pairs.decode`` does, or map from the disk what an earlier call has kept there, undamaged.

        Where nothing can be written, as on a full disk, the photos stay in memory.

        Raises:
            DatasetError: as ``pairs.decode``.
        """
        entry = self.folder / f"{key(photos, spec, crops)}.photos"
        found = _read(entry, spec)
        if found is not None:
            return found
        data = decode(photos, spec, crops)
        try:
            remove_leftovers(self.folder)
            _save(data, entry)
        except OutputError as error:
            logger.warning(
                f"{self.folder}: prepared photos cannot be kept, this training goes on with them in memory: make room, "
                f"name another folder with --cache, or use --no-cache ({error})"
            )
            return data
        logger.info(f"{len(data)} prepared photos are kept in {self.folder}, which may be deleted at any time")
        return _read(entry, spec) or data  # the owner may have removed it meanwhile


def key(photos: Sequence[Sample], spec: InputSpec, crops: Crops | None = None) -> str:
    """32 hexadecimal digits: a digest of the files, by name, size and time of change, and of the settings."""
    content = {
        "format": FORMAT,
        "runtime": unet_runtime.__version__,
        "pillow": PIL.__version__,
        "input": asdict(spec),
        "crops": None if crops is None else asdict(crops),
        "photos": [_state(item) for item in photos],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _state(item: Sample) -> list[object]:
    """Everything that a photo and its labels depend on."""
    return [item.name, *_file_state(item.photo), *_file_state(item.labels.path), item.labels.coding]


def _file_state(path: Path) -> tuple[int, int] | tuple[None, None]:
    """Size in bytes and time of change in nanoseconds; Nones for a missing file, whose photo is left out."""
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a list's name that no file system can hold
        return None, None
    return status.st_size, status.st_mtime_ns


def _save(data: Labelled, entry: Path) -> None:
    header = json.dumps({"names": data.names, "problems": data.problems}).encode()
    with replacing(entry) as file:
        file.write(hashlib.sha256(header).hexdigest().encode() + b"\n" + header + b"\n")
        file.write(np.ascontiguousarray(data.photos).data)
        file.write(np.ascontiguousarray(data.masks).data)


def _read(entry: Path, spec: InputSpec) -> Labelled | None:
    """The entry, its arrays mapped read-only; None where there is none, or a damaged one."""
    try:
        with entry.open("rb") as file:
            digest, header = file.readline().rstrip(), file.readline().rstrip(b"\n")
            start = file.tell()
        if hashlib.sha256(header).hexdigest().encode() != digest:
            return None
        index = json.loads(header)
        shape = (len(index["names"]), spec.height, spec.width)
        pixels = math.prod(shape)
        if entry.stat().st_size != start + 4 * pixels:
            return None
        photos = np.memmap(entry, np.uint8, "r", start, (*shape, 3))
        masks = np.memmap(entry, np.uint8, "r", start + 3 * pixels, shape)
    except OSError:
        return None
    return Labelled(index["names"], photos, masks, index["problems"], spec.margin)

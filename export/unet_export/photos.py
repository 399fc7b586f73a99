"""Which photos an export is calibrated and proven on: from a dataset's split, or from the user's own folders.

No photo may be in both, whatever it is called: a gate that runs on what was calibrated on proves little.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from unet_export.calibration import DEFAULT_COUNT
from unet_export.calibration import MIN_COUNT as MIN_CALIBRATION
from unet_export.errors import ExportError
from unet_runtime.core.datasets.oxford_pets import Part, evenly, paired_photos, read_split
from unet_runtime.core.errors import SourceError
from unet_runtime.core.geometry import model_input
from unet_runtime.core.photo import open_photo
from unet_runtime.core.spec import InputSpec
from unet_runtime.io.sources import find_photos

MIN_PARITY = 64
"""Fewer do not tell half a point of IoU from chance."""

Say = Callable[[str], object]


class Photo(NamedTuple):
    name: str
    path: Path
    trimap: Path | None
    """Its truth; None in a folder of bare photos."""


@dataclass(frozen=True)
class PhotoSets:
    """What an export sees."""

    calibration: Sequence[Photo]
    reserve: Sequence[Photo]
    """More of the kind, for a repair that wants them; empty where none was asked for."""
    parity: Sequence[Photo]
    split: str
    """Of the data, empty for the user's own folders."""


@dataclass(frozen=True)
class PhotoSource:
    """What the user named."""

    data: Path | None = None
    """Dataset in Oxford-IIIT Pet's layout: trainval calibrates, test proves."""
    split: str = ""
    """Of ``data``; empty: the model's own."""
    calibration: Path | None = None
    """A folder in place of ``data``'s trainval part."""
    parity: Path | None = None
    """A folder in place of ``data``'s test part; its trimaps are used where it has the same layout."""
    calibration_count: int = DEFAULT_COUNT
    reserve: int = 0
    """Further calibration photos, where there are any."""
    parity_count: int = 128


def choose_photos(source: PhotoSource, split: str, spec: InputSpec, say: Say) -> PhotoSets:
    """The photos of both sets, evenly chosen, none in both.

    Args:
        source: what the user named.
        split: of the model's own training, or empty.
        spec: how the model sees photos: two are the same photo when it sees the same pixels.
        say: receives a line where something is not as asked for.

    Raises:
        SourceError: a folder, list or part that is missing or has no photo.
        ImageError: a photo that cannot be read.
        ExportError: nothing says which photos to take; folders that share photos; calibration photos without content.
        ValueError: a count below its minimum.
    """
    split = source.split or split
    pool = _part(source, source.calibration, split, "trainval", "calibration")
    parity = _part(source, source.parity, split, "test", "parity")
    parity = _some(parity, source.parity_count, MIN_PARITY, "proving", say)
    calibration = _some(pool, source.calibration_count, MIN_CALIBRATION, "calibrating", say)
    chosen = {*calibration}
    reserve = evenly([photo for photo in pool if photo not in chosen], source.reserve)
    seen = {_pixels(photo, spec) for photo in parity}
    shared = {photo for photo in (*calibration, *reserve) if _pixels(photo, spec) in seen}
    if shared:
        names = ", ".join(sorted(photo.name for photo in shared)[:5]) + (", ..." if len(shared) > 5 else "")
        if source.calibration or source.parity:
            raise ExportError(
                f"{len(shared)} calibration photos are among those of the proof ({names}): name folders that share no "
                "photo, under whatever name"
            )
        # A dataset's own duplicates are not the user's fault.
        say(f"{len(shared)} calibration photos are left out, the test part has the same pixels: {names}")
    calibration, reserve = ([photo for photo in part if photo not in shared] for part in (calibration, reserve))
    return PhotoSets(calibration, reserve, parity, "" if source.calibration and source.parity else split)


def _part(source: PhotoSource, folder: Path | None, split: str, part: Part, purpose: str) -> list[Photo]:
    if folder is not None:
        return _folder_photos(folder)
    if source.data is None:
        raise ExportError(f"no photos for {purpose}: name a dataset with --data, or a folder with --{purpose}")
    if not split:
        raise ExportError(
            f"the model does not say which photos of {source.data} it was trained on: name the --split, or train it "
            "with unet-train, which records it"
        )
    return [Photo(*entry) for entry in read_split(source.data, split, part)]


def _folder_photos(folder: Path) -> list[Photo]:
    """All photos of a folder; with their truth where it has a dataset's layout."""
    if (folder / "annotations" / "trimaps").is_dir():
        photos = [Photo(*entry) for entry in paired_photos(folder)]
        if not photos:
            raise SourceError(f"{folder}: no photo in images/ has a trimap in annotations/trimaps/")
        return photos
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder, expected one with photos")
    return [Photo(entry.path.relative_to(folder).as_posix(), entry.path, None) for entry in find_photos([folder], None)]


def _some(photos: list[Photo], count: int, minimum: int, purpose: str, say: Say) -> list[Photo]:
    """``count`` photos spread over the part, or all of a smaller part."""
    if count < minimum:
        raise ValueError(f"{count} photos for {purpose}, expected at least {minimum}")
    if len(photos) < count:
        say(f"{purpose} on all {len(photos)} photos of the part: {count} were asked for")
    return evenly(photos, count)


def _pixels(photo: Photo, spec: InputSpec) -> bytes:
    """Digest of what the model sees."""
    return hashlib.sha256(model_input(open_photo(photo.path), spec).tobytes()).digest()


def inputs(photos: Sequence[Photo], spec: InputSpec) -> npt.NDArray[np.uint8]:
    """uint8 (n, h, w, 3), RGB in 0..255, NHWC.

    Raises:
        ImageError: a photo that cannot be read.
    """
    return np.concatenate([model_input(open_photo(photo.path), spec) for photo in photos])

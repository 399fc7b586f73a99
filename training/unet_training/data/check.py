"""``unet-train check``: every oddity of a dataset by name, and what training does about it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from unet_runtime.core.cores import usable_cores
from unet_runtime.core.datasets import PARTS, Dataset, Sample, open_dataset, read_split
from unet_runtime.core.errors import SourceError
from unet_training.data.pairs import open_pair
from unet_training.errors import DatasetError, Fault, UnusableError

ODDITIES = {
    "missing_lists": ("lists missing or empty", "the official split is refused"),
    "leaked": ("names in trainval.txt and in test.txt", "the official split is refused"),
    "incomplete": ("listed photos without photo or trimap", "left out"),
    "without_trimap": ("photos without a trimap", "left out"),
    "without_photo": ("trimaps without a photo", "left out"),
    "unlisted": ("pairs in neither list", "ignored by the official split, used by the others"),
    "unreadable": ("unreadable photos or trimaps", "left out"),
    "sizes": ("photos and trimaps of unequal sizes", "left out"),
    "values": ("trimaps with values outside 1..3", "left out"),
    "without_pet": ("trimaps without a pet pixel", "used"),
    "not_jpeg": ("photos that are no JPEG inside", "used, read as what they are"),
    "duplicates": ("test photos that are byte for byte one of trainval", "used: the test is that much easier"),
    "litter": ("._* files of another system", "ignored"),
    "other_files": ("other files among photos and trimaps", "ignored"),
}
"""What it is, and what training does about it."""

_PET = 0  # class id


@dataclass(frozen=True)
class Report:
    """What a dataset holds."""

    pairs: int
    """Photos that have a trimap or that a list names."""
    usable: Mapping[str, int]
    """Photos that training reads, of each part of each split, as ``official trainval``."""
    formats: Mapping[str, int]
    """Usable photos of each file format, as Pillow names it."""
    names: Mapping[str, list[str]]
    """Names of photos, trimaps or lists by key of ``ODDITIES``, sorted; a name may have several oddities."""

    def errors(self) -> list[str]:
        """Why training cannot use the dataset as it is; empty when it can."""
        leaked = self.names["leaked"]
        found = []
        for name in self.names["missing_lists"]:
            found.append(f"annotations/{name} is missing or empty, expected the official list")
        if leaked:
            found.append(f"{len(leaked)} photos are both trained on and tested on: {', '.join(leaked[:5])}")
        for part, count in self.usable.items():
            if not count:
                found.append(f"no usable photo in the {part} part")
        return found

    def as_json(self) -> dict[str, Any]:
        """Counts and names, for ``--json``."""
        return {"pairs": self.pairs, "usable": self.usable, "formats": self.formats, **self.names}


class _Pair(NamedTuple):
    """A photo with its trimap after reading it; without a fault it has a format and a digest."""

    fault: Fault | None
    format: str = ""
    pet: bool = True
    sha256: str = ""


def check_dataset(root: Path) -> Report:
    """Read every photo and trimap as training does.

    Args:
        root: folder in Oxford-IIIT Pet's layout.

    Raises:
        DatasetError: ``root`` does not have the layout.
    """
    found: dict[str, set[str]] = defaultdict(set)
    have_photo = _names_in(root / "images", ".jpg", found)
    have_trimap = _names_in(root / "annotations" / "trimaps", ".png", found)
    parts = _read_parts(open_dataset(root, layout="oxford"), found)
    photos: dict[str, Sample] = {}
    for part in parts.values():
        photos |= part
    with ThreadPoolExecutor(usable_cores()) as pool:
        pairs = dict(zip(photos, pool.map(_inspect, photos.values()), strict=True))
    formats: Counter[str] = Counter()
    good = set()
    for name, pair in pairs.items():
        if pair.fault is not None:
            found[pair.fault.value].add(name)
            continue
        good.add(name)
        formats[pair.format] += 1
        if not pair.pet:
            found["without_pet"].add(name)
        if pair.format != "JPEG":
            found["not_jpeg"].add(f"{name} ({pair.format})")
    trainval, test = set(parts["official trainval"]), set(parts["official test"])
    found["leaked"] = trainval & test
    found["without_trimap"] = have_photo - have_trimap
    found["without_photo"] = have_trimap - have_photo
    found["unlisted"] = (have_photo & have_trimap) - trainval - test
    trained = {pairs[name].sha256: name for name in sorted(trainval & good)}
    for name in (test - trainval) & good:  # a name in both lists is a leak, not a duplicate
        if pairs[name].sha256 in trained:
            found["duplicates"].add(f"{name} = {trained[pairs[name].sha256]}")
    return Report(
        pairs=len(photos),
        usable={label: len(good & set(part)) for label, part in parts.items()},
        formats=dict(formats),
        names={key: sorted(found[key]) for key in ODDITIES},
    )


def _names_in(folder: Path, suffix: str, found: dict[str, set[str]]) -> set[str]:
    """Names of the files with ``suffix``, without it; the other files are added to ``found``."""
    try:
        paths = list(folder.iterdir())
    except OSError as error:
        raise DatasetError(
            f"{folder}: cannot be listed ({error.strerror}), expected images/ and annotations/trimaps/ as Oxford-IIIT "
            "Pet unpacks: name the dataset's folder, or get it with unet-train download"
        ) from error
    names = set()
    for path in paths:
        if path.name.startswith("._"):
            found["litter"].add(path.name)
        elif path.name.endswith(suffix):
            names.add(path.name.removesuffix(suffix))
        else:
            found["other_files"].add(path.name)
    return names


def _read_parts(dataset: Dataset, found: dict[str, set[str]]) -> dict[str, dict[str, Sample]]:
    """The photos of each part of each split, by name; official lists that name none are added to ``found``."""
    parts = {}
    for split in ("official", "article"):
        for part in PARTS:
            photos: list[Sample] = []
            try:
                photos = read_split(dataset, split, part)
            except SourceError:
                if split == "official":
                    found["missing_lists"].add(f"{part}.txt")
            parts[f"{split} {part}"] = {photo.name: photo for photo in photos}
    return parts


def _inspect(item: Sample) -> _Pair:
    try:
        _, labels = open_pair(item)
    except UnusableError as error:
        return _Pair(error.fault)
    with Image.open(item.photo) as image:  # its header only
        real = str(image.format)
    return _Pair(None, real, bool((labels == _PET).any()), hashlib.sha256(item.photo.read_bytes()).hexdigest())

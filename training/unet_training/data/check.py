"""``unet-train check``: every oddity of a dataset by name, and what training does about it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from unet_runtime.core.datasets.oxford_pets import PARTS, SPLITS, LabelledPhoto, read_split
from unet_runtime.core.errors import SourceError
from unet_training.data.pairs import open_pair
from unet_training.errors import DatasetError, Fault, UnusableError

_PET = 0  # class id


class Oddity(NamedTuple):
    what: str
    done: str
    """What training does about it."""
    names: tuple[str, ...]


def _oddity(what: str, done: str) -> Any:
    return field(metadata={"what": what, "done": done})


@dataclass(frozen=True)
class Report:
    """What a dataset holds. Tuples hold names, sorted; a name may have several oddities."""

    pairs: int
    """Photos that have a trimap or that a list names."""
    usable: Mapping[str, int]
    """Photos that training reads, of each part of each split, as ``official trainval``."""
    formats: Mapping[str, int]
    """Usable photos of each file format, as Pillow names it."""
    missing_lists: tuple[str, ...] = _oddity("lists missing or empty", "the official split is refused")
    leaked: tuple[str, ...] = _oddity("names in trainval.txt and in test.txt", "the official split is refused")
    incomplete: tuple[str, ...] = _oddity("listed photos without photo or trimap", "left out")
    without_trimap: tuple[str, ...] = _oddity("photos without a trimap", "left out")
    without_photo: tuple[str, ...] = _oddity("trimaps without a photo", "left out")
    unlisted: tuple[str, ...] = _oddity("pairs in neither list", "ignored by the official split, used by the others")
    unreadable: tuple[str, ...] = _oddity("unreadable photos or trimaps", "left out")
    sizes: tuple[str, ...] = _oddity("photos and trimaps of unequal sizes", "left out")
    values: tuple[str, ...] = _oddity("trimaps with values outside 1..3", "left out")
    without_pet: tuple[str, ...] = _oddity("trimaps without a pet pixel", "used")
    not_jpeg: tuple[str, ...] = _oddity("photos that are no JPEG inside", "used, read as what they are")
    duplicates: tuple[str, ...] = _oddity(
        "test photos that are byte for byte one of trainval", "used: the test is that much easier"
    )
    litter: tuple[str, ...] = _oddity("._* files of another system", "ignored")
    other_files: tuple[str, ...] = _oddity("other files among photos and trimaps", "ignored")

    def oddities(self) -> Iterator[Oddity]:
        """Those that were found."""
        for entry in fields(self):
            if entry.metadata and (names := getattr(self, entry.name)):
                yield Oddity(entry.metadata["what"], entry.metadata["done"], names)

    def errors(self) -> list[str]:
        """Why training cannot use the dataset as it is; empty when it can."""
        found = [f"annotations/{name} is missing or empty, expected the official list" for name in self.missing_lists]
        if self.leaked:
            found.append(f"{len(self.leaked)} photos are both trained on and tested on: {', '.join(self.leaked[:5])}")
        return found + [f"no usable photo in the {part} part" for part, count in self.usable.items() if not count]


class _Seen(NamedTuple):
    """A pair after reading it; without a fault it has a format and a digest."""

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
    images, trimaps = _files(root / "images"), _files(root / "annotations" / "trimaps")
    parts, missing_lists = _parts(root)
    photos = {photo.name: photo for part in parts.values() for photo in part}
    with ThreadPoolExecutor(cpu_count()) as pool:
        seen = dict(zip(photos, pool.map(_look_at, photos.values()), strict=True))
    trainval, test = ({photo.name for photo in parts[f"official {part}"]} for part in PARTS)
    have_photo, have_trimap = _stems(images, ".jpg"), _stems(trimaps, ".png")
    everything = [*images, *trimaps]

    def faulty(fault: Fault) -> tuple[str, ...]:
        return _sorted(name for name, pair in seen.items() if pair.fault is fault)

    good = {name: pair for name, pair in seen.items() if pair.fault is None}
    return Report(
        pairs=len(photos),
        usable={label: sum(photo.name in good for photo in part) for label, part in parts.items()},
        formats=dict(Counter(pair.format for pair in good.values())),
        missing_lists=missing_lists,
        leaked=_sorted(trainval & test),
        incomplete=faulty(Fault.MISSING),
        without_trimap=_sorted(have_photo - have_trimap),
        without_photo=_sorted(have_trimap - have_photo),
        unlisted=_sorted((have_photo & have_trimap) - trainval - test),
        unreadable=faulty(Fault.UNREADABLE),
        sizes=faulty(Fault.SIZES),
        values=faulty(Fault.VALUES),
        without_pet=_sorted(name for name, pair in good.items() if not pair.pet),
        not_jpeg=_sorted(f"{name} ({pair.format})" for name, pair in good.items() if pair.format != "JPEG"),
        duplicates=_duplicates(good, trainval, test),
        litter=_sorted(name for name in everything if _is_litter(name)),
        other_files=_sorted(
            name
            for names, suffix in ((images, ".jpg"), (trimaps, ".png"))
            for name in names
            if not name.endswith(suffix) and not _is_litter(name)
        ),
    )


def _files(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except OSError as error:
        raise DatasetError(
            f"{folder}: cannot be listed ({error.strerror}), expected images/ and annotations/trimaps/ as Oxford-IIIT "
            "Pet unpacks: name the dataset's folder, or get it with unet-train download"
        ) from error


def _parts(root: Path) -> tuple[dict[str, list[LabelledPhoto]], tuple[str, ...]]:
    """The photos of each part of each split, and which official lists name none."""
    parts: dict[str, list[LabelledPhoto]] = {}
    missing = []
    for split in SPLITS:
        for part in PARTS:
            try:
                parts[f"{split} {part}"] = read_split(root, split, part)
            except SourceError:
                parts[f"{split} {part}"] = []
                if split == "official":
                    missing.append(f"{part}.txt")
    return parts, tuple(missing)


def _look_at(item: LabelledPhoto) -> _Seen:
    try:
        _, labels = open_pair(item)
    except UnusableError as error:
        return _Seen(error.fault)
    with Image.open(item.photo) as image:  # its header only
        real = str(image.format)
    return _Seen(None, real, bool((labels == _PET).any()), hashlib.sha256(item.photo.read_bytes()).hexdigest())


def _duplicates(good: Mapping[str, _Seen], trainval: set[str], test: set[str]) -> tuple[str, ...]:
    """``test photo = trainval photo``; a name in both lists is a leak, not a duplicate."""
    known = {good[name].sha256: name for name in sorted(trainval & set(good))}
    return tuple(
        f"{name} = {known[good[name].sha256]}"
        for name in sorted((test - trainval) & set(good))
        if good[name].sha256 in known
    )


def _stems(names: Sequence[str], suffix: str) -> set[str]:
    return {name.removesuffix(suffix) for name in names if name.endswith(suffix) and not _is_litter(name)}


def _is_litter(name: str) -> bool:
    return name.startswith("._")


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))

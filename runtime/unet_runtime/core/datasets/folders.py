"""Two folders: photos, and label masks of the same names; or one folder of both.

    ROOT/images/NAME.*      also image, imgs, photos, img, in capitals or not
    ROOT/masks/NAME.*       also labels, annotations, ...; or NAME_mask.*

    ROOT/NAME.*             photos,
    ROOT/NAME_mask.*        beside their masks

All may have subfolders; ROOT/train/images, ROOT/val/masks, ... and ROOT/images/train, ... name the parts, and so do
lists in ROOT (train.txt, val.txt, test.txt). Masks are class ids, palette images, black and white, or RGB colours.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from unet_runtime.core.datasets.base import Dataset, Layout, Options, Problem
from unet_runtime.core.datasets.masks import SUFFIXES
from unet_runtime.core.datasets.pairing import (
    Files,
    beside,
    coded_by_masks,
    files_below,
    pair,
    photos_below,
    samples_of,
)
from unet_runtime.core.datasets.parts import by_part, part_of, read_lists
from unet_runtime.core.errors import SourceError

PHOTOS = ("images", "image", "imgs", "img", "photos")
MASKS = (
    "masks",
    "mask",
    "labels",
    "label",
    "annotations/trimaps",
    "annotations",
    "segmentations",
    "segmentation",
    "ground_truth",
    "gt",
)
"""Names of the folders, in the order in which they are looked for."""

_LISTS = ("", "splits", "annotations")


class _Folders(NamedTuple):
    photos: Path
    masks: Path
    """The same folder where they lie side by side."""
    prefix: str = ""
    """Before the names of its samples."""

    def files(self) -> tuple[Files, Files]:
        if self.photos == self.masks:
            return beside(self.photos, SUFFIXES)
        return photos_below(self.photos), files_below(self.masks, SUFFIXES)


def _detect(root: Path) -> str:
    found = _folders(root)
    if not found:
        return ""
    first = found[0]
    if first.photos == first.masks:
        mask = next(iter(first.files()[1].by_name.values()))
        return f"{mask.relative_to(root).as_posix()} beside a photo"
    named = f"{first.photos.relative_to(root).as_posix()}/ and {first.masks.relative_to(root).as_posix()}/"
    return named if len(found) == 1 else f"{named}, and as many in {len(found) - 1} more folders"


def _folders(root: Path) -> list[_Folders]:
    """Folders of photos with their folders of masks: in the root, in the folders of its parts, or one: the root."""
    here = _pair_of_folders(root)
    if here is not None:
        return [_Folders(*here)]
    found = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and part_of(path.name)):
        inside = _pair_of_folders(folder)
        if inside is not None:
            found.append(_Folders(*inside, f"{folder.name}/"))
    if not found and pair(*beside(root, SUFFIXES)).found:
        found.append(_Folders(root, root))
    return found


def _pair_of_folders(root: Path) -> tuple[Path, Path] | None:
    photos = _first_folder(root, PHOTOS)
    masks = _first_folder(root, MASKS)
    if photos is None or masks is None or not files_below(masks, SUFFIXES).by_name:
        return None
    return photos, masks


def _first_folder(root: Path, names: tuple[str, ...]) -> Path | None:
    for name in names:
        folder: Path | None = root
        for part in name.split("/"):
            folder = folder and _folder_called(folder, part)
        if folder is not None:
            return folder
    return None


def _folder_called(folder: Path, name: str) -> Path | None:
    """The folder of this name in another; in capitals or not, of one word or two."""
    if (folder / name).is_dir():
        return folder / name
    alike = sorted(path for path in folder.iterdir() if _plain(path.name) == _plain(name) and path.is_dir())
    return alike[0] if alike else None


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.casefold())


def _read(root: Path, options: Options, why: str) -> Dataset:
    found: list[tuple[str, Path, Path]] = []
    problems: list[Problem] = []
    for folders in _folders(root):
        pairs = pair(*folders.files(), folders.prefix)
        found += pairs.found
        problems += pairs.problems
    if not found:
        listed = "; ".join(f"{problem.kind}, as {problem.name}" for problem in _first_of_each(problems))
        raise SourceError(
            f"{root}: no photo has a label mask ({listed}), expected masks that are named as their photos"
        )
    coded = coded_by_masks([mask for _, _, mask in found], options, root)
    samples = samples_of(found, coded.coding)
    names = [sample.name for sample in samples]
    parts = by_part((name, part_of(name.partition("/")[0]) if "/" in name else "") for name in names)
    for place in _LISTS:
        if not parts:
            parts = read_lists(root / place, names)
    return Dataset(root, LAYOUT.name, why, coded.classes, samples, parts, tuple(problems), coded.named, coded.values)


def _first_of_each(problems: list[Problem]) -> list[Problem]:
    first = {problem.kind: problem for problem in reversed(problems)}
    return list(first.values())


LAYOUT = Layout(
    name="folders",
    title="folders of photos and label masks",
    expected="images/NAME.jpg and masks/NAME.png, perhaps in train/ and test/; or NAME.jpg beside NAME_mask.png",
    detect=_detect,
    read=_read,
)

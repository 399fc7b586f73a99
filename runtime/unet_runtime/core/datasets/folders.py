"""Two folders: photos, and label masks of the same names.

    ROOT/images/NAME.*      also image, imgs, photos, img
    ROOT/masks/NAME.*       also labels, annotations, ...; or NAME_mask.*

Both may have subfolders; ROOT/train/images, ROOT/val/masks, ... and ROOT/images/train, ... name the parts, and so do
lists in ROOT (train.txt, val.txt, test.txt). Masks are class ids, palette images, black and white, or RGB colours.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from unet_runtime.core.datasets.base import Dataset, Layout, Options, Problem
from unet_runtime.core.datasets.masks import SUFFIXES
from unet_runtime.core.datasets.pairing import coded_by_masks, files_below, pair, photos_below, samples_of
from unet_runtime.core.datasets.parts import by_part, part_of, read_lists

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
    "groundtruth",
    "gt",
)
"""Names of the folders, in the order in which they are looked for."""

_LISTS = ("", "splits", "annotations")


class _Folders(NamedTuple):
    photos: Path
    masks: Path
    prefix: str
    """Before the names of its samples."""


def _detect(root: Path) -> str:
    found = list(_folders(root))
    if not found:
        return ""
    first = found[0]
    named = f"{first.photos.relative_to(root).as_posix()}/ and {first.masks.relative_to(root).as_posix()}/"
    return named if len(found) == 1 else f"{named}, and as many in {len(found) - 1} more folders"


def _folders(root: Path) -> Iterator[_Folders]:
    """Folders of photos with their folders of masks: in the root, or else in the folders of its parts."""
    here = _pair_of_folders(root)
    if here is not None:
        yield _Folders(*here, "")
        return
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and part_of(path.name)):
        inside = _pair_of_folders(folder)
        if inside is not None:
            yield _Folders(*inside, f"{folder.name}/")


def _pair_of_folders(root: Path) -> tuple[Path, Path] | None:
    photos = _first_folder(root, PHOTOS)
    masks = _first_folder(root, MASKS)
    if photos is None or masks is None or not files_below(masks, SUFFIXES).by_name:
        return None
    return photos, masks


def _first_folder(root: Path, names: tuple[str, ...]) -> Path | None:
    for name in names:
        if (root / name).is_dir():
            return root / name
    return None


def _read(root: Path, options: Options, why: str) -> Dataset:
    found: list[tuple[str, Path, Path]] = []
    problems: list[Problem] = []
    for photos, masks, prefix in _folders(root):
        pairs = pair(photos_below(photos), files_below(masks, SUFFIXES), prefix)
        found += pairs.found
        problems += pairs.problems
    coded = coded_by_masks([mask for _, _, mask in found], options, root)
    samples = samples_of(found, coded.coding)
    names = [sample.name for sample in samples]
    parts = by_part((name, part_of(name.partition("/")[0]) if "/" in name else "") for name in names)
    for place in _LISTS:
        if not parts:
            parts = read_lists(root / place, names)
    return Dataset(root, LAYOUT.name, why, coded.classes, samples, parts, tuple(problems), coded.named, coded.values)


LAYOUT = Layout(
    name="folders",
    title="folders of photos and label masks",
    expected="images/NAME.jpg and masks/NAME.png, perhaps inside train/, val/ and test/",
    detect=_detect,
    read=_read,
)

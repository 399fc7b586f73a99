"""Cityscapes' names.

    ROOT/leftImg8bit/PART/CITY/NAME_leftImg8bit.png
    ROOT/gtFine/PART/CITY/NAME_gtFine_labelIds.png

The classes are the 19 of Cityscapes' evaluation; all other ids say nothing. A class file with values takes others.
"""

from __future__ import annotations

from pathlib import Path

from unet_runtime.core.datasets.base import IGNORED, Dataset, Layout, Options, Value
from unet_runtime.core.datasets.masks import Coding
from unet_runtime.core.datasets.pairing import Files, coding_of, files_below, pair, photos_below, samples_of
from unet_runtime.core.datasets.parts import by_part, part_of
from unet_runtime.core.spec import ClassSpec

PHOTO_ENDING, MASK_ENDING = "_leftImg8bit", "_gtFine_labelIds"

CITYSCAPES: dict[int, tuple[str, tuple[int, int, int]]] = {
    7: ("road", (128, 64, 128)),
    8: ("sidewalk", (244, 35, 232)),
    11: ("building", (70, 70, 70)),
    12: ("wall", (102, 102, 156)),
    13: ("fence", (190, 153, 153)),
    17: ("pole", (153, 153, 153)),
    19: ("traffic light", (250, 170, 30)),
    20: ("traffic sign", (220, 220, 0)),
    21: ("vegetation", (107, 142, 35)),
    22: ("terrain", (152, 251, 152)),
    23: ("sky", (70, 130, 180)),
    24: ("person", (220, 20, 60)),
    25: ("rider", (255, 0, 0)),
    26: ("car", (0, 0, 142)),
    27: ("truck", (0, 0, 70)),
    28: ("bus", (0, 60, 100)),
    31: ("train", (0, 80, 100)),
    32: ("motorcycle", (0, 0, 230)),
    33: ("bicycle", (119, 11, 32)),
}
"""Label id -> class and its colour."""

_FIRST_THING = 24
"""Label ids from here on are people and vehicles, the foreground; those before are the scene."""

_MAX_ID = 255


def _detect(root: Path) -> str:
    return "leftImg8bit/ and gtFine/" if (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir() else ""


def _read(root: Path, options: Options, why: str) -> Dataset:
    photos = _ending(photos_below(root / "leftImg8bit"), PHOTO_ENDING)
    masks = _ending(files_below(root / "gtFine", (".png",)), MASK_ENDING)
    pairs = pair(photos, masks)
    if options.classes and options.values:
        classes, coding = options.classes, coding_of(options.values, options.ignore)
    else:
        classes, coding = _own_classes(), _own_coding(options)
    samples = samples_of(pairs.found, coding)
    parts = by_part((sample.name, part_of(sample.name.partition("/")[0])) for sample in samples)
    return Dataset(root, LAYOUT.name, why, classes, samples, parts, tuple(pairs.problems))


def _own_classes() -> tuple[ClassSpec, ...]:
    found = []
    for number, (name, colour) in CITYSCAPES.items():
        found.append(ClassSpec(name, colour, "foreground" if number >= _FIRST_THING else "background"))
    return tuple(found)


def _own_coding(options: Options) -> Coding:
    ids: dict[Value, int] = dict.fromkeys(range(_MAX_ID + 1), IGNORED)
    for index, number in enumerate(CITYSCAPES):
        if number not in options.ignore:
            ids[number] = index
    return Coding(ids)


def _ending(files: Files, ending: str) -> Files:
    """The files whose names end so, by the rest of their names."""
    named = {}
    for name, path in files.by_name.items():
        if name.endswith(ending):
            named[name.removesuffix(ending)] = path
    return Files(named, [])


LAYOUT = Layout(
    name="cityscapes",
    title="Cityscapes' folders",
    expected="leftImg8bit/PART/CITY/NAME_leftImg8bit.png and gtFine/PART/CITY/NAME_gtFine_labelIds.png",
    detect=_detect,
    read=_read,
)

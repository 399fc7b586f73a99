"""Pascal VOC, and what CVAT exports as "Segmentation mask".

ROOT/JPEGImages/NAME.jpg
ROOT/SegmentationClass/NAME.png           palette images, or RGB colours
ROOT/ImageSets/Segmentation/train.txt     also val.txt, test.txt, trainval.txt, default.txt
ROOT/labelmap.txt                         lines "name:red,green,blue:parts:actions"; without it, VOC's own classes
"""

from __future__ import annotations

from pathlib import Path

from unet_runtime.core.datasets import classes as class_lists
from unet_runtime.core.datasets.base import IGNORED, Dataset, Layout, Options, Value
from unet_runtime.core.datasets.masks import SUFFIXES, Coding
from unet_runtime.core.datasets.pairing import files_below, pair, photos_below, samples_of
from unet_runtime.core.datasets.parts import read_lists
from unet_runtime.core.errors import SourceError

VOC_NAMES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)

BORDER = (224, 224, 192)
"""Colour of index 255: the border of an object, which says nothing."""

_LISTS = Path("ImageSets") / "Segmentation"


def voc_colour(index: int) -> tuple[int, int, int]:
    """Colour of class ``index`` in VOC's palette: its bits are dealt to red, green and blue in turn, high bits first.

    Example:
        >>> voc_colour(1), voc_colour(15)
        ((128, 0, 0), (192, 128, 128))
    """
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return channels[0], channels[1], channels[2]


def _detect(root: Path) -> str:
    if not (root / "SegmentationClass").is_dir():
        return ""
    return "SegmentationClass/" + (" and labelmap.txt" if (root / "labelmap.txt").is_file() else "")


def _read(root: Path, options: Options, why: str) -> Dataset:
    photos = root / "JPEGImages"
    if not photos.is_dir():
        raise SourceError(f"{photos}: no such folder, expected the photos: export the dataset with its images")
    colours = _label_map(root / "labelmap.txt")
    classes = class_lists.named_classes(list(colours), colours)
    coding = _coding(colours, options)
    pairs = pair(photos_below(photos), files_below(root / "SegmentationClass", SUFFIXES))
    samples = samples_of(pairs.found, coding)
    parts = read_lists(root / _LISTS, [sample.name for sample in samples])
    return Dataset(root, LAYOUT.name, why, classes, samples, parts, tuple(pairs.problems))


def _coding(colours: dict[str, tuple[int, int, int]], options: Options) -> Coding:
    ids: dict[Value, int] = {IGNORED: IGNORED, BORDER: IGNORED}
    for index, colour in enumerate(colours.values()):
        ids |= {index: index, colour: index}
    for value in options.ignore:
        ids[value] = IGNORED
    return Coding(ids)


def _label_map(path: Path) -> dict[str, tuple[int, int, int]]:
    """Name -> colour of each class, by id; VOC's own where there is no file.

    Raises:
        SourceError: unreadable, or a line that is none of a label map.
    """
    if not path.is_file():
        return {name: voc_colour(index) for index, name in enumerate(VOC_NAMES)}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read ({error}), expected lines as cat:128,0,0::") from error
    found: dict[str, tuple[int, int, int]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        channels = rest.partition(":")[0].split(",")
        if len(channels) != 3 or not all(word.strip().isdecimal() and int(word) < 256 for word in channels):
            raise SourceError(f"{path}, line {number}: {line!r}, expected a name and a colour, as cat:128,0,0::")
        red, green, blue = map(int, channels)
        if name in found or (red, green, blue) in found.values():
            raise SourceError(f"{path}, line {number}: {line!r} repeats a name or a colour, expected each once")
        found[name] = (red, green, blue)
    return found


LAYOUT = Layout(
    name="voc",
    title="Pascal VOC, or CVAT's segmentation mask",
    expected="JPEGImages/NAME.jpg, SegmentationClass/NAME.png, labelmap.txt, ImageSets/Segmentation/*.txt",
    detect=_detect,
    read=_read,
)

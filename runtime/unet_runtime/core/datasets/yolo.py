"""YOLO segmentation, as Ultralytics, Roboflow, CVAT and Label Studio write it: a text file of outlines for each photo.

    ROOT/data.yaml                        names of the classes
    ROOT/train/images/NAME.jpg            also ROOT/images/train/NAME.jpg
    ROOT/train/labels/NAME.txt            lines "class x y x y ...", in parts of the photo's width and height

Small outlines lie above large ones. A photo without a text file shows nothing but background. Of a box nobody knows
which pixels are the object: it is ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unet_runtime.core.datasets.base import IGNORED, Dataset, Layout, Options, Problem, Sample
from unet_runtime.core.datasets.classes import parse_file
from unet_runtime.core.datasets.pairing import WITHOUT_PHOTO, files_below, photos_below
from unet_runtime.core.datasets.parts import by_part, part_of
from unet_runtime.core.datasets.shapes import Polygons, Shape, ShapeLabels, checked_ring, classes_with_ground
from unet_runtime.core.errors import SourceError
from unet_runtime.core.photo import photo_size

CLASS_FILES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")

BROKEN = "labels that cannot be read, whose photo is left out"
BOXES = "boxes without an outline, inside which nothing is learned"

_BOX = 4  # numbers of a box: centre, width, height
_PHOTOS, _LABELS = "images", "labels"


class _File(NamedTuple):
    """A photo with the lines of its text file."""

    name: str
    photo: Path
    labels: Path
    size: tuple[int, int]
    shapes: list[tuple[int, Shape]]
    """Index in the list of names, or ``IGNORED``, and outline."""


def _detect(root: Path) -> str:
    path = _class_file(root)
    if path is None or not any(_text_files(root)):
        return ""
    return f"{path.name} and text files of outlines"


def _class_file(root: Path) -> Path | None:
    return next((root / name for name in CLASS_FILES if (root / name).is_file()), None)


def _text_files(root: Path) -> dict[str, Path]:
    """Text files by the name of the photo that they would be of."""
    files = files_below(root, (".txt",)).by_name
    return {_photo_name(name): path for name, path in files.items() if _LABELS in name.split("/")[:-1]}


def _photo_name(name: str) -> str:
    folders = name.split("/")
    last = len(folders) - 1 - folders[::-1].index(_LABELS)
    return "/".join([*folders[:last], _PHOTOS, *folders[last + 1 :]])


def _read(root: Path, options: Options, why: str) -> Dataset:
    path = _class_file(root)
    if path is None:
        raise SourceError(f"{root}: no {CLASS_FILES[0]}, expected one with the names of the classes")
    names = _names(path)
    texts = _text_files(root)
    photos = {name: photo for name, photo in photos_below(root).by_name.items() if _PHOTOS in name.split("/")[:-1]}
    problems = [Problem(WITHOUT_PHOTO, str(texts[name].relative_to(root))) for name in texts.keys() - photos.keys()]
    files = []
    for name, photo in photos.items():
        labels = texts.get(name)
        try:
            files.append(_read_file(_sample_name(name), photo, labels, len(names), problems))
        except (OSError, ValueError) as error:
            problems.append(Problem(BROKEN, f"{(labels or photo).relative_to(root)}: {error}"))
    classes, ground = classes_with_ground(names, options, root)
    shift = len(classes) - len(names)  # of a background that has no name in the file
    samples = tuple(sorted((_sample(file, shift, ground) for file in files), key=lambda sample: sample.name))
    parts = by_part((sample.name, part_of(sample.name.partition("/")[0])) for sample in samples if "/" in sample.name)
    return Dataset(root, LAYOUT.name, why, classes, samples, parts, tuple(sorted(problems)))


def _names(path: Path) -> list[str]:
    """Names of the classes, by id.

    Raises:
        SourceError: unreadable, or without a list of names.
    """
    content = parse_file(path)
    names: Any = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        names = [names.get(index) for index in range(len(names))]
    if not isinstance(names, list) or not all(isinstance(name, (str, int)) for name in names):
        raise SourceError(f"{path}: no list of names, expected names: [cat, dog], or names by number from 0")
    return list(map(str, names))


def _sample_name(name: str) -> str:
    return "/".join(folder for folder in name.split("/") if folder != _PHOTOS)


def _sample(file: _File, shift: int, ground: int) -> Sample:
    shapes = tuple((index if index == IGNORED else index + shift, shape) for index, shape in file.shapes)
    return Sample(file.name, file.photo, ShapeLabels(file.labels, file.size, ground, shapes, smallest_on_top=True))


def _read_file(name: str, photo: Path, labels: Path | None, classes: int, problems: list[Problem]) -> _File:
    """Read the outlines of one photo; what is wrong with them raises ValueError."""
    size = photo_size(photo, upright=True)
    if size is None:
        raise ValueError(f"{photo.name} is no readable photo")
    width, height = size
    shapes: list[tuple[int, Shape]] = []
    lines = [] if labels is None else labels.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            index, values = _numbers(line.split(), classes)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if len(values) == _BOX:
            problems.append(Problem(BOXES, f"{name}, line {number}"))
            index, values = IGNORED, _corners(values)
        scaled = [value * (height if place % 2 else width) for place, value in enumerate(values)]
        shapes.append((index, Polygons((checked_ring(scaled),))))
    return _File(name, photo, labels or photo, (height, width), shapes)


def _numbers(words: Sequence[str], classes: int) -> tuple[int, list[float]]:
    """Class and coordinates of a line."""
    index, *values = map(float, words)
    if index not in range(classes):
        raise ValueError(f"class {words[0]}, expected one of the {classes} classes from 0 to {classes - 1}")
    if len(values) != _BOX:
        checked_ring(values)
    if not all(-1 <= value <= 2 for value in values):
        raise ValueError("coordinates in pixels, expected parts of the photo's width and height from 0 to 1")
    return int(index), values


def _corners(box: Sequence[float]) -> list[float]:
    x, y, width, height = box
    left, top, right, bottom = x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return [left, top, right, top, right, bottom, left, bottom]


LAYOUT = Layout(
    name="yolo",
    title="YOLO segmentation",
    expected="data.yaml with names, train/images/NAME.jpg, train/labels/NAME.txt",
    detect=_detect,
    read=_read,
)

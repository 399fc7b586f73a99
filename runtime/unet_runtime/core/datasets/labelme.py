"""LabelMe: a JSON file beside each photo.

    ROOT/NAME.jpg, NAME.json      also in folders, as ROOT/train/, or the JSON files in a folder of their own
    ROOT/labels.txt               names in order, where there is such a list

Shapes are drawn in their order, the last on top, as LabelMe does. ``_background_`` is the background, ``__ignore__``
says nothing.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from unet_runtime.core.datasets.base import IGNORED, Dataset, Layout, Options, Problem, Sample
from unet_runtime.core.datasets.pairing import WITHOUT_MASK, files_below, photos_below
from unet_runtime.core.datasets.parts import by_part, part_of, read_list, read_lists
from unet_runtime.core.datasets.shapes import (
    Bitmap,
    Polygons,
    Shape,
    ShapeLabels,
    checked_ring,
    checked_size,
    classes_with_ground,
)
from unet_runtime.core.photo import photo_size

IGNORED_LABEL = "__ignore__"

MISSING = "labels whose photo is missing"
BROKEN = "labels that cannot be read, whose photo is left out"
SKIPPED = "shapes without an inside, which are passed over"

_HEAD = 65_536  # bytes
_CORNERS = 64  # of a circle
_LISTS = "labels.txt"


class _File(NamedTuple):
    """A JSON file, read."""

    name: str
    path: Path
    photo: Path
    size: tuple[int, int]
    shapes: list[tuple[str, Shape]]
    """Label and shape."""


def _detect(root: Path) -> str:
    files = _json_files(root)
    for path in list(files.values())[:3]:
        if _is_labelme(path):
            return f"{path.relative_to(root).as_posix()} has LabelMe's shapes"
    return ""


def _json_files(root: Path) -> dict[str, Path]:
    return files_below(root, (".json",)).by_name


def _is_labelme(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(max(0, path.stat().st_size - _HEAD))
            return b'"shapes"' in head and b'"imagePath"' in head + file.read(_HEAD)
    except OSError:
        return False


def _read(root: Path, options: Options, why: str) -> Dataset:
    files = []
    problems: list[Problem] = []
    for name, path in _json_files(root).items():
        if not _is_labelme(path):
            continue
        try:
            files.append(_read_file(name, path, root, problems))
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            problems.append(Problem(BROKEN, f"{path.relative_to(root)}: {_reason(error)}"))
    files = [file for file in files if _has_photo(file, root, problems)]
    used: set[str] = set()
    for file in files:
        used.update(label for label, _ in file.shapes)
    used.discard(IGNORED_LABEL)
    classes, ground = classes_with_ground(_ordered(used, root), options, root)
    ids = {entry.name: index for index, entry in enumerate(classes)} | {IGNORED_LABEL: IGNORED}
    samples = tuple(sorted((_sample(file, ids, ground) for file in files), key=lambda sample: sample.name))
    taken = {sample.photo.resolve() for sample in samples}
    for name, path in photos_below(root).by_name.items():
        if path.resolve() not in taken:
            problems.append(Problem(WITHOUT_MASK, name))
    names = [sample.name for sample in samples]
    parts = by_part((name, part_of(name.partition("/")[0]) if "/" in name else "") for name in names)
    parts = parts or read_lists(root, names)
    return Dataset(root, LAYOUT.name, why, classes, samples, parts, tuple(sorted(problems)))


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"has no {text}" if isinstance(error, KeyError) else text


def _ordered(used: set[str], root: Path) -> list[str]:
    """Labels in the order of labels.txt, then by the alphabet; the background first."""
    listed = read_list(root / _LISTS) if (root / _LISTS).is_file() else []
    first = [name for name in dict.fromkeys(listed) if name != IGNORED_LABEL]
    return first + sorted(used - set(first), key=lambda name: (name != "_background_", name))


def _has_photo(file: _File, root: Path, problems: list[Problem]) -> bool:
    if file.photo.is_file():
        return True
    problems.append(Problem(MISSING, f"{file.path.relative_to(root)}: {file.photo.name}"))
    return False


def _sample(file: _File, ids: Mapping[str, int], ground: int) -> Sample:
    shapes = tuple((ids[label], shape) for label, shape in file.shapes)
    return Sample(file.name, file.photo, ShapeLabels(file.path, file.size, ground, shapes))


def _read_file(name: str, path: Path, root: Path, problems: list[Problem]) -> _File:
    """Read one JSON file; what it lacks raises KeyError, what it has wrong ValueError or TypeError."""
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(content, dict) or not isinstance(content["shapes"], list):
        raise ValueError("expected an object with shapes")
    photo = _photo(path, str(content["imagePath"]), root)
    size = _size(content, photo)
    shapes = []
    for number, entry in enumerate(content["shapes"]):
        label = str(entry["label"])
        try:
            shape = _shape(entry)
        except ValueError as error:
            raise ValueError(f"shape {number} ({label}): {error}") from error
        if shape is None:
            problems.append(Problem(SKIPPED, f"{path.relative_to(root)}: {label}, {entry.get('shape_type')}"))
        else:
            shapes.append((label, shape))
    return _File(name, path, photo, size, shapes)


def _photo(path: Path, written: str, root: Path) -> Path:
    """The photo that a JSON file is of: where it says, or beside it, or in a folder of photos, by its last name."""
    last = written.replace("\\", "/").rpartition("/")[2]
    for place in (path.parent / written.replace("\\", "/"), path.parent / last, root / "images" / last, root / last):
        if place.is_file():
            return place
    return path.parent / last


def _size(content: Mapping[str, Any], photo: Path) -> tuple[int, int]:
    height, width = content.get("imageHeight"), content.get("imageWidth")
    if height is None or width is None:
        found = photo_size(photo)
        if found is None:
            raise ValueError("no imageHeight and imageWidth, and no readable photo")
        width, height = found
    return checked_size(height, width, photo)


def _shape(entry: Mapping[str, Any]) -> Shape | None:
    """A shape; None for one that has no inside."""
    kind = entry.get("shape_type") or "polygon"
    points = entry["points"]
    if not isinstance(points, list) or not all(isinstance(point, list) and len(point) == 2 for point in points):
        raise ValueError("its points are no list of x and y")
    flat = list(itertools.chain.from_iterable(points))
    if kind == "polygon":
        return Polygons((checked_ring(flat),))
    if kind not in ("rectangle", "circle", "mask"):
        return None
    if len(points) != 2 or not all(isinstance(value, (int, float)) and math.isfinite(value) for value in flat):
        raise ValueError(f"a {kind} of {len(points)} points, expected 2")
    left, top, right, bottom = flat
    if kind == "mask":
        return _bitmap(str(entry["mask"]), round(min(left, right)), round(min(top, bottom)))
    if kind == "rectangle":
        return Polygons(((left, top, right, top, right, bottom, left, bottom),))
    radius = math.hypot(right - left, bottom - top)
    corners: list[float] = []
    for step in range(_CORNERS):
        angle = 2 * math.pi * step / _CORNERS
        corners += [left + radius * math.cos(angle), top + radius * math.sin(angle)]
    return Polygons((tuple(corners),))


def _bitmap(text: str, left: int, top: int) -> Bitmap:
    """LabelMe's shape "mask": an image in base64 whose pixels that are not black belong to it."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text)), formats=("PNG",)) as image:
            inside = np.asarray(image.convert("L")) > 0
    except Exception as error:  # decoders raise anything
        raise ValueError(f"its mask is no PNG ({error})") from error
    return Bitmap(left, top, np.packbits(inside).tobytes(), (inside.shape[0], inside.shape[1]))


LAYOUT = Layout(
    name="labelme",
    title="LabelMe",
    expected="NAME.json with LabelMe's shapes beside each photo",
    detect=_detect,
    read=_read,
)

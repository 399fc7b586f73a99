"""COCO: JSON files that name photos and hold what was drawn on them.

    ROOT/annotations/instances_train2017.json, ROOT/train2017/NAME.jpg     as COCO's own files lie
    ROOT/train/_annotations.coco.json, ROOT/train/NAME.jpg                 as Roboflow exports them
    ROOT/annotations/instances_default.json, ROOT/images/NAME.jpg          as CVAT, ROOT/result.json as Label Studio
    ROOT/annotations/panoptic_val2017.json, .../panoptic_val2017/NAME.png  panoptic: ids in PNG files

Instances and "stuff": where several annotations cover a pixel, the smallest is on top. ``iscrowd`` changes nothing: it
marks run lengths (CVAT sets it for whatever a brush drew), and a crowd's pixels are of its class.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unet_runtime.core.datasets.base import IGNORED, ClassIds, Dataset, Layout, Options, Problem, Sample
from unet_runtime.core.datasets.classes import check as check_classes
from unet_runtime.core.datasets.classes import named_classes
from unet_runtime.core.datasets.masks import UnknownClassError, open_mask, pixel_values
from unet_runtime.core.datasets.pairing import WITHOUT_MASK, files_below
from unet_runtime.core.datasets.parts import by_part, part_of
from unet_runtime.core.datasets.shapes import (
    Polygons,
    RunLengths,
    Shape,
    ShapeLabels,
    checked_ring,
    checked_size,
    classes_with_ground,
)
from unet_runtime.core.decoders import PHOTO_SUFFIXES
from unet_runtime.core.errors import ImageError, SourceError

MISSING_PHOTO = "photos that the JSON names and that are missing"
MISSING_ID = "annotations of a photo that the JSON does not have"
BROKEN = "annotations that cannot be drawn, whose photos are left out"
WITHOUT_SHAPE = "annotations without a segmentation, which are passed over"

_PLACES = ("", "annotations")
_KINDS = ("instances", "stuff", "panoptic")
"""Beginnings of the names of COCO's own files: of several kinds the first is taken."""

_HEAD = 65_536  # bytes
_VOID = 0
"""Value of a panoptic PNG that is no segment: it says nothing."""


class _Document(NamedTuple):
    """One JSON file."""

    path: Path
    part: str
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    names: dict[int, str]
    """Category id -> name."""

    @property
    def panoptic(self) -> bool:
        return any("segments_info" in entry for entry in self.annotations[:1])


def _detect(root: Path) -> str:
    found = _json_files(root)
    if not found:
        return ""
    return ", ".join(path.relative_to(root).as_posix() for path in found[:3]) + ("" if len(found) <= 3 else ", ...")


def _json_files(root: Path) -> list[Path]:
    """The JSON files of COCO's kind, in the root, in annotations/ and in the parts' folders."""
    folders = [root / place for place in _PLACES]
    folders += sorted(path for path in root.iterdir() if path.is_dir() and part_of(path.name))
    found = []
    for folder in folders:
        if folder.is_dir():
            found += [path for path in sorted(folder.glob("*.json")) if _is_coco(path)]
    kinds = [kind for kind in _KINDS if any(path.name.startswith(kind) for path in found)]
    return [path for path in found if path.name.startswith(kinds[0])] if kinds else found


def _is_coco(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            file.seek(max(0, path.stat().st_size - _HEAD))
            ends = head + file.read(_HEAD)
    except OSError:
        return False
    if b'"shapes"' in head or path.name.startswith("captions"):
        return False
    return sum(key in ends for key in (b'"images"', b'"annotations"', b'"categories"')) >= 2


def _read(root: Path, options: Options, why: str) -> Dataset:
    documents = [_load(path, root) for path in _json_files(root)]
    names: dict[str, None] = {}
    for document in documents:
        names |= dict.fromkeys(name for _, name in sorted(document.names.items()))
    if any(document.panoptic for document in documents):
        classes, ground = named_classes(list(names)), IGNORED
        check_classes(classes, str(root))
    else:
        classes, ground = classes_with_ground(list(names), options, root)
    ids = {entry.name: index for index, entry in enumerate(classes)}
    index = _index(root)
    problems: list[Problem] = []
    samples: dict[str, Sample] = {}
    in_parts = []
    used = set()
    for document in documents:
        for sample in _samples(document, root, index, ids, ground, problems):
            name = sample.name
            if name in samples:
                name = f"{document.path.stem}/{name}"
            samples[name] = sample._replace(name=name)
            in_parts.append((name, document.part))
            used.add(sample.photo)
    if not any(document.panoptic for document in documents):
        problems += _unused(index, used, root)
    ordered = tuple(samples[name] for name in sorted(samples))
    return Dataset(root, LAYOUT.name, why, classes, ordered, by_part(in_parts), tuple(sorted(problems)))


def _load(path: Path, root: Path) -> _Document:
    """Read a JSON file.

    Raises:
        SourceError: it is not as COCO describes it.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{path}: no readable JSON ({' '.join(str(error).split())}): export it again") from error
    if not isinstance(content, dict):
        raise SourceError(f"{path}: a JSON {type(content).__name__}, expected an object as COCO's")
    lists = {}
    for key in ("images", "annotations", "categories"):
        value = content.get(key)
        if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
            raise SourceError(f"{path}: {key} is {type(value).__name__}, expected a list of objects as COCO's")
        lists[key] = value
    names: dict[int, str] = {}
    for entry in lists["categories"]:
        number, name = entry.get("id"), entry.get("name")
        if not isinstance(number, int) or not isinstance(name, str) or number in names or name in names.values():
            raise SourceError(f"{path}: category {entry}, expected an id and a name that no other has")
        names[number] = name
    part = part_of(path.stem) or ("" if path.parent == root else part_of(path.parent.name))
    return _Document(path, part, lists["images"], lists["annotations"], names)


def _index(root: Path) -> dict[str, list[Path]]:
    """Photos below the root by their last name."""
    found = defaultdict(list)
    files = files_below(root, PHOTO_SUFFIXES)
    for path in (*files.by_name.values(), *files.doubled):
        found[path.name].append(path)
    return found


def _find(written: str, document: _Document, index: Mapping[str, list[Path]]) -> Path | None:
    """The file that a JSON names: the one that ends as it says, in the folder that looks most like the JSON's own."""
    words = written.replace("\\", "/").split("/")
    candidates = index.get(words[-1], [])
    if len(candidates) < 2:
        return candidates[0] if candidates else None

    def likeness(path: Path) -> tuple[bool, bool, bool, int]:
        ends = path.as_posix().endswith("/" + "/".join(words))
        in_part = any(part_of(name) == document.part for name in path.parts[:-1])
        return ends, path.parent == document.path.parent, in_part, -len(path.parts)

    return max(candidates, key=likeness)


def _samples(
    document: _Document,
    root: Path,
    index: Mapping[str, list[Path]],
    ids: Mapping[str, int],
    ground: int,
    problems: list[Problem],
) -> list[Sample]:
    """The photos of one JSON file that can be used; what cannot is added to ``problems``."""
    class_of = {number: ids[name] for number, name in document.names.items()}
    by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for annotation in document.annotations:
        by_image[annotation.get("image_id")].append(annotation)
    where = document.path.relative_to(root)
    found = []
    for image in document.images:
        annotations = by_image.pop(image.get("id"), [])
        written = str(image.get("file_name"))
        photo = _find(written, document, index)
        if photo is None:
            problems.append(Problem(MISSING_PHOTO, f"{where}: {written}"))
            continue
        try:
            if document.panoptic:
                labels: Any = _panoptic(document, annotations, index, class_of)
            else:
                labels = _drawn(document, image, photo, annotations, class_of, ground, problems)
        except ValueError as error:
            problems.append(Problem(BROKEN, f"{where}: {written}: {error}"))
            continue
        found.append(Sample(photo.relative_to(root).with_suffix("").as_posix(), photo, labels))
    for number, annotations in by_image.items():
        problems.append(Problem(MISSING_ID, f"{where}: {len(annotations)} of image {number}"))
    return found


def _drawn(
    document: _Document,
    image: Mapping[str, Any],
    photo: Path,
    annotations: Sequence[Mapping[str, Any]],
    class_of: Mapping[int, int],
    ground: int,
    problems: list[Problem],
) -> ShapeLabels:
    """Labels of a photo from its annotations. Raises ValueError where one cannot be drawn."""
    size = checked_size(image.get("height"), image.get("width"), photo)
    shapes = []
    for annotation in annotations:
        number = annotation.get("id")
        category = annotation.get("category_id")
        if not isinstance(category, int) or category not in class_of:
            raise ValueError(f"annotation {number} has the category {category}, which the JSON does not have")
        segmentation = annotation.get("segmentation")
        if not segmentation:
            problems.append(Problem(WITHOUT_SHAPE, f"{document.path.name}: annotation {number}"))
            continue
        try:
            shapes.append((class_of[category], _shape(segmentation, size)))
        except ValueError as error:
            raise ValueError(f"annotation {number}: {error}") from error
    return ShapeLabels(document.path, size, ground, tuple(shapes), True, f"image {image.get('id')}")


def _shape(segmentation: Any, size: tuple[int, int]) -> Shape:
    if isinstance(segmentation, list):
        rings = segmentation if isinstance(segmentation[0], list) else [segmentation]
        return Polygons(tuple(map(checked_ring, rings)))
    if not isinstance(segmentation, dict) or not isinstance(segmentation.get("size"), list):
        raise ValueError(f"a segmentation that is {type(segmentation).__name__}, expected polygons or run lengths")
    counts = segmentation.get("counts")
    if tuple(segmentation["size"]) != size:
        raise ValueError(f"run lengths of size {segmentation['size']}, the photo has {list(size)} (height, width)")
    if isinstance(counts, str):
        return RunLengths(size, counts)
    whole = isinstance(counts, list) and all(isinstance(count, int) and count >= 0 for count in counts)
    if not isinstance(counts, list) or not whole or sum(counts) != size[0] * size[1]:
        raise ValueError(f"run lengths that do not sum to {size[0] * size[1]} pixels")
    return RunLengths(size, tuple(counts))


@dataclass(frozen=True)
class PanopticLabels:
    """Labels of one photo in a PNG file: red + 256 green + 65536 blue is the id of a segment."""

    path: Path
    segments: Mapping[int, int] = field(compare=False, repr=False)
    """Segment id -> class id."""

    @property
    def coding(self) -> str:
        return " ".join(f"{segment}={index}" for segment, index in sorted(self.segments.items()))

    def read(self) -> ClassIds:
        """Class ids, uint8 (H, W).

        Raises:
            ImageError: unreadable, or a segment that the JSON does not have.
        """
        pixels = pixel_values(open_mask(self.path)).astype(np.int32)
        if pixels.ndim != 3:
            raise ImageError(f"{self.path}: an image without colours, expected a panoptic PNG")
        numbers = pixels @ np.array([1, 1 << 8, 1 << 16], np.int32)
        present, inverse = np.unique(numbers, return_inverse=True)
        known = {_VOID: IGNORED, **self.segments}
        unknown = [number for number in present.tolist() if number not in known]
        if unknown:
            counts = {number: int(np.count_nonzero(numbers == number)) for number in unknown}
            raise UnknownClassError(self.path, counts, ": segments that the JSON does not have")
        table = np.array([known[number] for number in present.tolist()], np.uint8)
        return table[inverse.reshape(numbers.shape)]


def _panoptic(
    document: _Document,
    annotations: Sequence[Mapping[str, Any]],
    index: Mapping[str, list[Path]],
    class_of: Mapping[int, int],
) -> PanopticLabels:
    """Labels of a photo from its panoptic annotation. Raises ValueError where something is missing."""
    if len(annotations) != 1:
        raise ValueError(f"{len(annotations)} panoptic annotations, expected one")
    written = str(annotations[0].get("file_name"))
    beside = document.path.with_suffix("") / written
    path = beside if beside.is_file() else _find(written, document, index)
    if path is None:
        raise ValueError(f"its labels {written} are missing")
    segments: dict[int, int] = {}
    for entry in annotations[0].get("segments_info", []):
        if entry.get("category_id") not in class_of or not isinstance(entry.get("id"), int):
            raise ValueError(f"segment {entry.get('id')} has the category {entry.get('category_id')}, which is unknown")
        segments[entry["id"]] = class_of[entry["category_id"]]
    return PanopticLabels(path, segments)


def _unused(index: Mapping[str, list[Path]], used: set[Path], root: Path) -> list[Problem]:
    """Photos that no JSON names."""
    problems = []
    for paths in index.values():
        for path in paths:
            if path not in used:
                problems.append(Problem(WITHOUT_MASK, path.relative_to(root).with_suffix("").as_posix()))
    return problems


LAYOUT = Layout(
    name="coco",
    title="COCO: instances, stuff or panoptic",
    expected="a JSON file with images, annotations and categories in the folder or in annotations/, and the photos",
    detect=_detect,
    read=_read,
)

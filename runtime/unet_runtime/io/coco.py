"""Segmentation -> what label tools read: a COCO data set of one photo; coco_set.py makes one of many.

info          who wrote it: model, precision, engine
images        the photo: file name, width, height
categories    the model's classes; a category's id is its pixel value in masks and 1: importers take 0 for "no class"
annotations   one for each class that is there, except the background: area (pixels), share of the photo,
              bbox [x, y, width, height] and segmentation: polygons, or run lengths compressed as pycocotools does
areas         pixels, share and score (mean probability in its region) of every class, the background too
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from unet_runtime.core.install import missing
from unet_runtime.core.runs import LARGE, areas_of
from unet_runtime.core.segmentation import Result
from unet_runtime.core.spec import ModelSpec
from unet_runtime.io.kind import STAMP_KEY, Checkpoint, Kind, Metadata

if TYPE_CHECKING:
    import numpy.typing as npt

CONTOURS = ("polygons", "rle", "none")
"""Forms of an annotation's ``segmentation``; see contours.py for how polygons show holes."""

PHOTO_ID = 1

FIRST_CATEGORY = 1
"""Id of the category of class 0."""

_BAND_PIXELS = 1 << 18


def class_areas(mask: npt.NDArray[np.uint8], count: int) -> list[int]:
    """Pixels of each of ``count`` classes in class ids, uint8 (H, W)."""
    band_rows = max(1, _BAND_PIXELS // mask.shape[1])
    areas = [0] * count
    for top in range(0, len(mask), band_rows):
        band = mask[top : top + band_rows]
        for index in range(1, count):
            areas[index] += int(np.count_nonzero(band == index))
    areas[0] = mask.size - sum(areas)
    return areas


def areas_by_name(result: Result) -> dict[str, dict[str, float]]:
    """``{"pet": {"pixels": 5432, "share": 0.4, "score": 0.93}}``, of every class."""
    count = len(result.spec.classes)
    is_large = result.size[0] * result.size[1] >= LARGE
    pixels = areas_of(result.mask_runs(), count) if is_large else class_areas(result.mask, count)
    areas = _areas(pixels, result.spec)
    for name, score in zip(result.spec.class_names, result.scores, strict=True):
        areas[name]["score"] = round(score, 4)
    return areas


def _areas(pixels: Sequence[int], spec: ModelSpec) -> dict[str, dict[str, float]]:
    total = sum(pixels)
    areas = {}
    for entry, area in zip(spec.classes, pixels, strict=True):
        areas[entry.name] = {"pixels": area, "share": round(area / total, 6)}
    return areas


def require_contours(contours: str) -> None:
    """Fail before the first photo, not at it.

    Raises:
        MissingDependencyError: ``rle`` without pycocotools.
    """
    if contours == "rle":
        _coco_mask()


def coco_document(result: Result, metadata: Metadata) -> dict[str, Any]:
    """The document described above, ready for ``json.dumps``.

    Raises:
        MissingDependencyError: ``rle`` without pycocotools.
    """
    width, height = result.size
    numbered = []
    for number, annotation in enumerate(annotate(result.mask, result.spec, metadata.contours), 1):
        numbered.append({"id": number, "image_id": PHOTO_ID, **annotation})  # COCO's tools take id 0 for none
    return {
        "info": info(result.spec, metadata),
        "images": [{"id": PHOTO_ID, "file_name": metadata.photo, "width": width, "height": height}],
        "categories": categories(result.spec),
        "annotations": numbered,
        "areas": areas_by_name(result),
    }


def info(spec: ModelSpec, metadata: Metadata) -> dict[str, str]:
    """Who made a data set."""
    return {
        "description": "made by unet-run",
        "model": spec.name,
        "precision": spec.precision,
        "engine": metadata.engine,
    }


def categories(spec: ModelSpec) -> list[dict[str, Any]]:
    """The classes of a model, the background too."""
    found = []
    for number, entry in enumerate(spec.classes, FIRST_CATEGORY):
        found.append({"id": number, "name": entry.name, "supercategory": entry.role})
    return found


def annotate(mask: npt.NDArray[np.uint8], spec: ModelSpec, contours: str) -> list[dict[str, Any]]:
    """One for each class that is in class ids (H, W), except the background; without ``id`` and ``image_id``.

    Raises:
        MissingDependencyError: ``rle`` without pycocotools.
    """
    areas = _areas(class_areas(mask, len(spec.classes)), spec)
    found = []
    for index, entry in enumerate(spec.classes):
        if entry.role != "background" and areas[entry.name]["pixels"]:
            found.append(_annotation(mask, index, areas[entry.name], contours))
    return found


def to_json(content: object) -> bytes:
    """UTF-8 on one line. What is no Unicode in a file's name becomes an escape, which ``os.fsencode`` turns back."""
    import json

    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")


def _write(result: Result, file: BinaryIO, metadata: Metadata, checkpoint: Checkpoint) -> None:
    document = {STAMP_KEY: metadata.stamp, **coco_document(result, metadata)}  # first, where ``is_ours`` looks
    file.write(to_json(document) + b"\n")


JSON = Kind(".json", _write)


def _annotation(mask: npt.NDArray[np.uint8], index: int, area: dict[str, float], contours: str) -> dict[str, Any]:
    inside = mask == index
    annotation = {
        "category_id": FIRST_CATEGORY + index,
        "iscrowd": 0,
        "area": area["pixels"],
        "share": area["share"],
        "bbox": _bounding_box(inside),
    }
    if contours == "polygons":
        from unet_runtime.io.contours import polygons  # nothing else needs it

        annotation["segmentation"] = polygons(mask, index)
    elif contours == "rle":
        annotation["segmentation"] = _run_lengths(inside)
    return annotation


def _bounding_box(inside: npt.NDArray[np.bool_]) -> list[int]:
    """[x, y, width, height] in pixels."""
    columns = np.flatnonzero(inside.any(axis=0)).tolist()
    rows = np.flatnonzero(inside.any(axis=1)).tolist()
    return [columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1]


def _run_lengths(inside: npt.NDArray[np.bool_]) -> dict[str, Any]:
    encoded = _coco_mask().encode(np.asfortranarray(inside.view(np.uint8)))
    return {"size": list(inside.shape), "counts": encoded["counts"].decode("ascii")}


def _coco_mask() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise missing("--contours rle", "pycocotools", "coco") from error
    return mask

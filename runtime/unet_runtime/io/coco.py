"""Segmentation -> what label tools read: a COCO data set of one photo.

info          who wrote it: model, precision, engine
images        the photo: file name, width, height
categories    the model's classes; a category's id is its pixel value in masks
annotations   one for each class that is there, except the background: area (pixels), share of the photo,
              bbox [x, y, width, height] and segmentation: polygons, or run lengths compressed as pycocotools does
areas         pixels and share of every class, the background too
"""

from __future__ import annotations

from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from unet_runtime.core.install import missing
from unet_runtime.core.segmentation import Result
from unet_runtime.io.kind import STAMP_KEY, Checkpoint, Kind, Metadata

CONTOURS = ("polygons", "rle", "none")
"""Forms of an annotation's ``segmentation``; see contours.py for how polygons show holes."""

PHOTO_ID = 1

_BAND_PIXELS = 1 << 18


def class_areas(mask: npt.NDArray[np.uint8], count: int) -> list[int]:
    """Pixels of each of ``count`` classes in class ids, uint8 (H, W)."""
    band_rows = max(1, _BAND_PIXELS // mask.shape[1])
    areas = [0] * count
    for top in range(0, len(mask), band_rows):
        band = mask[top : top + band_rows]
        for index in range(count):
            areas[index] += int(np.count_nonzero(band == index))
    return areas


def areas_by_name(result: Result) -> dict[str, dict[str, float]]:
    """``{"pet": {"pixels": 5432, "share": 0.4}}``, of every class."""
    pixels = class_areas(result.mask, len(result.spec.classes))
    areas = {}
    for entry, area in zip(result.spec.classes, pixels, strict=True):
        areas[entry.name] = {"pixels": area, "share": _share(area, result.mask)}
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
    spec = result.spec
    height, width = result.mask.shape
    areas = areas_by_name(result)
    categories = []
    annotations: list[dict[str, Any]] = []
    for index, entry in enumerate(spec.classes):
        categories.append({"id": index, "name": entry.name, "supercategory": entry.role})
        if entry.role != "background" and areas[entry.name]["pixels"]:
            number = len(annotations) + 1  # COCO's tools take id 0 for none
            annotations.append({"id": number, **_annotation(result.mask, index, areas[entry.name], metadata.contours)})
    return {
        "info": {
            "description": "made by unet-run",
            "model": spec.name,
            "precision": spec.precision,
            "engine": metadata.engine,
        },
        "images": [{"id": PHOTO_ID, "file_name": metadata.photo, "width": width, "height": height}],
        "categories": categories,
        "annotations": annotations,
        "areas": areas,
    }


def _write(result: Result, file: BinaryIO, metadata: Metadata, checkpoint: Checkpoint) -> None:
    import json

    document = {STAMP_KEY: metadata.stamp, **coco_document(result, metadata)}  # first, where ``is_current`` looks
    file.write(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


JSON = Kind(".json", _write, is_common_name=True)


def _annotation(mask: npt.NDArray[np.uint8], index: int, area: dict[str, float], contours: str) -> dict[str, Any]:
    inside = mask == index
    annotation = {
        "image_id": PHOTO_ID,
        "category_id": index,
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


def _share(area: int, mask: npt.NDArray[np.uint8]) -> float:
    return round(area / mask.size, 6)


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

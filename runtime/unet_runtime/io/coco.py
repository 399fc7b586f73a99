"""Segmentation -> what label tools read: a COCO data set of one photo.

info          who wrote it: model, precision, engine
images        the photo: file name, width, height
categories    the model's classes; a category's id is its pixel value in masks
annotations   one for each class that is there, but the background: area (pixels), share of the photo,
              bbox [x, y, width, height] and segmentation: polygons, or run lengths compressed as pycocotools does
areas         pixels and share of every class, the background too
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from unet_runtime.core.errors import BackendError

if TYPE_CHECKING:
    from unet_runtime.core.segmentation import Result

CONTOURS = ("polygons", "rle", "none")
"""Forms of an annotation's ``segmentation``; see contours.py for how polygons show holes."""

PHOTO_ID = 1

_BAND_PIXELS = 1 << 18
COCO_HINT = 'pip install "unet-edge-runtime[coco]"'


def class_areas(mask: npt.NDArray[np.uint8], count: int) -> list[int]:
    """Pixels of each of ``count`` classes in class ids, uint8 (H, W)."""
    rows = max(1, _BAND_PIXELS // mask.shape[1])
    areas = np.zeros(count, np.int64)
    for top in range(0, len(mask), rows):
        areas += [np.count_nonzero(mask[top : top + rows] == index) for index in range(count)]
    result: list[int] = areas.tolist()
    return result


def require_contours(contours: str) -> None:
    """Fail before the first photo, not at it.

    Raises:
        BackendError: ``rle`` without pycocotools.
    """
    if contours == "rle":
        _coco_mask()


def coco(result: Result, file_name: str, *, engine: str = "", contours: str = "polygons") -> dict[str, Any]:
    """The document described above, ready for ``json.dumps``.

    Args:
        result: of the photo.
        file_name: the photo's.
        engine: what ran the model, for people.
        contours: one of ``CONTOURS``.

    Raises:
        BackendError: ``rle`` without pycocotools.
    """
    mask, spec = result.mask, result.spec
    height, width = mask.shape
    areas = class_areas(mask, len(spec.classes))
    return {
        "info": {"description": "made by unet-run", "model": spec.name, "precision": spec.precision, "engine": engine},
        "images": [{"id": PHOTO_ID, "file_name": file_name, "width": width, "height": height}],
        "categories": [
            {"id": index, "name": entry.name, "supercategory": entry.role} for index, entry in enumerate(spec.classes)
        ],
        "annotations": [
            _annotation(number, mask, index, areas[index], contours)
            for number, index in enumerate(_annotated(result, areas), start=1)  # COCO's tools take id 0 for none
        ],
        "areas": areas_by_name(result, areas),
    }


def areas_by_name(result: Result, areas: list[int]) -> dict[str, dict[str, float]]:
    """``{"pet": {"pixels": 5432, "share": 0.4}}``, of every class."""
    return {
        entry.name: {"pixels": area, "share": _share(area, result.mask)}
        for entry, area in zip(result.spec.classes, areas, strict=True)
    }


def _annotated(result: Result, areas: list[int]) -> list[int]:
    return [index for index, entry in enumerate(result.spec.classes) if entry.role != "background" and areas[index]]


def _annotation(number: int, mask: npt.NDArray[np.uint8], index: int, area: int, contours: str) -> dict[str, Any]:
    inside = mask == index
    annotation = {
        "id": number,
        "image_id": PHOTO_ID,
        "category_id": index,
        "iscrowd": 0,
        "area": area,
        "share": _share(area, mask),
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
    columns, rows = np.flatnonzero(inside.any(axis=0)), np.flatnonzero(inside.any(axis=1))
    left, top = int(columns[0]), int(rows[0])
    return [left, top, int(columns[-1]) - left + 1, int(rows[-1]) - top + 1]


def _run_lengths(inside: npt.NDArray[np.bool_]) -> dict[str, Any]:
    encoded = _coco_mask().encode(np.asfortranarray(inside.view(np.uint8)))
    return {"size": [int(length) for length in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def _coco_mask() -> Any:
    try:
        from pycocotools import mask
    except ImportError as error:
        raise BackendError(f"run lengths need pycocotools, which is not installed: {COCO_HINT}") from error
    return mask

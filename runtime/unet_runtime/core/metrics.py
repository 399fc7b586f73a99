"""Segmentation metrics: confusion matrix, intersection over union of each class, and their mean."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

IGNORED = 255
"""In a label array: a pixel without truth (not labelled, or outside a letterboxed photo)."""


def confusion(
    truths: Iterable[npt.NDArray[np.uint8]], masks: Iterable[npt.NDArray[np.uint8]], classes: int
) -> npt.NDArray[np.int64]:
    """Pixel counts (classes, classes): row = truth, column = mask. ``IGNORED`` pixels do not count."""
    total = np.zeros(classes * classes, np.int64)
    for truth, mask in zip(truths, masks, strict=True):
        valid = truth != IGNORED
        pairs = truth[valid].astype(np.intp) * classes + mask[valid]
        total += np.bincount(pairs, minlength=classes * classes)
    return total.reshape(classes, classes)


def iou(matrix: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Intersection over union of each class, from ``confusion``; NaN for a class that neither has.

    Example:
        >>> truth, mask = np.array([0, 0, 1, 1], np.uint8), np.array([0, 1, 1, 1], np.uint8)
        >>> iou(confusion([truth], [mask], classes=2)).round(2).tolist()
        [0.5, 0.67]
    """
    intersection = np.diag(matrix).astype(np.float64)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - intersection
    with np.errstate(invalid="ignore"):
        result: npt.NDArray[np.float64] = intersection / union
    return result


def mean_iou(scores: npt.NDArray[np.float64]) -> float:
    """Mean of ``iou`` over the classes that truth or predictions have; NaN where there is none.

    A class in neither has no IoU and does not count; one that was predicted and is nowhere true has 0 and counts. Every
    command counts so.

    Example:
        >>> truth, mask = np.array([0, 0, 1, 1], np.uint8), np.array([0, 1, 1, 1], np.uint8)
        >>> round(mean_iou(iou(confusion([truth], [mask], classes=3))), 3)  # of two classes: the third is in neither
        0.583
    """
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if known.size else math.nan

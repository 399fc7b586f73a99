"""Keras metrics of a segmentation: pixel accuracy, mean IoU, cross-entropy. ``IGNORED`` pixels do not count."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from unet_runtime.core.metrics import IGNORED, iou, mean_iou
from unet_training.losses import Tensor, cross_entropy, labelled

_DIGITS = 5


class PixelAccuracy(keras.metrics.Mean):
    """Share of the labelled pixels that have their own class."""

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Any = None) -> None:
        """Add class ids (n, h, w) and probabilities (n, h, w, classes)."""
        right = ops.equal(ops.cast(y_true, "int32"), ops.cast(ops.argmax(y_pred, axis=-1), "int32"))
        super().update_state(ops.cast(right, "float32"), labelled(y_true))


class CrossEntropy(keras.metrics.Mean):
    """Plain cross-entropy of the labelled pixels, whatever a training minimises."""

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Any = None) -> None:
        """Add class ids (n, h, w) and probabilities (n, h, w, classes)."""
        super().update_state(cross_entropy(y_true, y_pred), labelled(y_true))


class MeanIoU(keras.metrics.MeanIoU):
    """``core.metrics.mean_iou``; its confusion matrix can be read."""

    def __init__(self, classes: int, name: str) -> None:
        super().__init__(classes, sparse_y_pred=False, ignore_class=IGNORED, name=name)

    @property
    def matrix(self) -> np.ndarray:
        """Pixel counts, int64 (classes, classes): row = truth, column = prediction."""
        counts: np.ndarray = np.rint(keras.ops.convert_to_numpy(self.total_cm)).astype(np.int64)
        return counts


def metrics(classes: int) -> list[keras.metrics.Metric]:
    """New metrics of class ids (n, h, w) against probabilities (n, h, w, classes)."""
    return [PixelAccuracy("pixel_accuracy"), MeanIoU(classes, "mean_iou"), CrossEntropy("cross_entropy")]


def as_recorded(loss: float, matrix: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Loss and confusion matrix -> loss, pixel_accuracy, mean_iou and ``iou`` by class name, rounded to 5 digits.

    A class that neither truth nor predictions have is not in ``iou`` but listed in ``absent``; a mean of nothing is
    left out.
    """
    scores = dict(zip(class_names, iou(matrix).tolist(), strict=True))
    pixels = int(matrix.sum())
    values = {"loss": loss, "pixel_accuracy": float(np.trace(matrix)) / max(1, pixels)}
    values["mean_iou"] = mean_iou(iou(matrix))
    recorded: dict[str, Any] = _rounded(values) | {"iou": _rounded(scores)}
    absent = [name for name, score in scores.items() if math.isnan(score)]
    return recorded | ({"absent": absent} if absent else {})


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), _DIGITS) for name, value in values.items() if not math.isnan(value)}

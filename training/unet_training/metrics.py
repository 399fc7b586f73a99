"""Keras metrics of a segmentation: pixel accuracy, IoU of each class, their mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras

from unet_training.losses import cross_entropy


def metrics(classes: int, *, per_class: bool) -> list[keras.metrics.Metric]:
    """New metrics of class ids (n, h, w) against probabilities (n, h, w, classes).

    Args:
        classes: number of classes.
        per_class: add the IoU of each class, for an evaluation; each training step would pay too much for it and has
            the plain cross-entropy instead, which compares with the validation loss whatever is minimised.
    """
    result = [
        keras.metrics.SparseCategoricalAccuracy(name="pixel_accuracy"),
        keras.metrics.MeanIoU(classes, sparse_y_pred=False, name="mean_iou"),
    ]
    if not per_class:
        return [*result, keras.metrics.MeanMetricWrapper(cross_entropy, name="cross_entropy")]
    for index in range(classes):
        result.append(keras.metrics.IoU(classes, [index], sparse_y_pred=False, name=f"iou_{index}"))
    return result


def as_recorded(values: Mapping[str, float], class_names: Sequence[str]) -> dict[str, object]:
    """Keras' flat results -> loss, pixel_accuracy, mean_iou and ``iou`` by class name, rounded to 5 digits."""
    recorded: dict[str, object] = {}
    for key in ("loss", "pixel_accuracy", "mean_iou"):
        recorded[key] = round(float(values[key]), 5)
    recorded["iou"] = {name: round(float(values[f"iou_{index}"]), 5) for index, name in enumerate(class_names)}
    return recorded

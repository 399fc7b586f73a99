"""Keras metrics of a segmentation: pixel accuracy, IoU of each class, their mean."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from unet_training.losses import cross_entropy


def metrics(classes: int, *, per_class: bool) -> list[keras.metrics.Metric]:
    """Fresh metrics of sparse class ids (n, h, w) against probabilities (n, h, w, classes).

    ``per_class`` adds the IoU of each class: for an evaluation, too dear for every training step, which has its plain
    cross-entropy instead.
    """
    each = [keras.metrics.IoU(classes, [index], sparse_y_pred=False, name=f"iou_{index}") for index in range(classes)]
    # The loss of a training may hold more terms: this compares with a validation's, which is the cross-entropy.
    plain = keras.metrics.MeanMetricWrapper(cross_entropy, name="cross_entropy")
    return [
        keras.metrics.SparseCategoricalAccuracy(name="pixel_accuracy"),
        keras.metrics.MeanIoU(classes, sparse_y_pred=False, name="mean_iou"),
        *(each if per_class else [plain]),
    ]


def named(values: dict[str, float], class_names: Sequence[str]) -> dict[str, object]:
    """Keras' flat results -> loss, pixel_accuracy, mean_iou and ``iou`` by class name, rounded to 5 digits."""
    return {
        **{key: round(float(values[key]), 5) for key in ("loss", "pixel_accuracy", "mean_iou")},
        "iou": {name: round(float(values[f"iou_{index}"]), 5) for index, name in enumerate(class_names)},
    }

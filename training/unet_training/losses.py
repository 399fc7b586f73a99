"""What a training minimises: cross-entropy, a region loss, the distance from a teacher.

All take class ids (n, h, w) and probabilities (n, h, w, classes), float32, and give one number, nats for the
cross-entropies. Sigmoid heads are brought to sum 1 first, as Keras does for its own cross-entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

Tensor = Any
"""Of whichever backend Keras runs on."""

_TINY = 1e-7
"""Keras' epsilon: below it a probability has no logarithm worth having."""


class Objective:
    """The loss of one training step.

    Args:
        class_weights: of a pixel of each class in the cross-entropy.
        region: ``dice``, ``lovasz`` or ``none``; region_weight: its share, the cross-entropy having 1.
        teacher: from photos (n, h, w, 3) to probabilities as large as the student's; None: no distillation.
        teacher_weight: its share.
    """

    def __init__(
        self,
        class_weights: Sequence[float],
        region: str = "none",
        region_weight: float = 1.0,
        teacher: keras.Model | None = None,
        teacher_weight: float = 1.0,
    ) -> None:
        self._class_weights = tuple(class_weights)
        self._region = None if region == "none" else REGION_LOSSES[region]
        self._region_weight = region_weight
        self._teacher, self._teacher_weight = teacher, teacher_weight

    def __call__(self, photos: Tensor, truth: Tensor, probabilities: Tensor, extra: Tensor | None = None) -> Tensor:
        """``extra`` (n, h, w) is added to the class weight of each pixel, where given."""
        probabilities = normalised(ops.cast(probabilities, "float32"))
        chosen = ops.one_hot(ops.cast(truth, "int32"), len(self._class_weights), dtype="float32")  # (n, h, w, classes)
        loss = weighted_cross_entropy(chosen, probabilities, self._class_weights, extra)
        if self._region is not None:
            loss += self._region_weight * self._region(chosen, probabilities)
        if self._teacher is not None:
            taught = normalised(ops.cast(self._teacher(photos, training=False), "float32"))
            loss += self._teacher_weight * distance(ops.stop_gradient(taught), probabilities)
        return loss


class Trainee(keras.Model):
    """A network that learns by an ``Objective``; evaluated, its loss is the compiled one, which recipes share."""

    objective: Objective

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        if training:
            return self.objective(x, y, y_pred, sample_weight)
        return super().compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=training)


def normalised(probabilities: Tensor) -> Tensor:
    """Sum 1 over the classes."""
    clipped = ops.clip(probabilities, _TINY, 1.0)
    return clipped / ops.sum(clipped, axis=-1, keepdims=True)


def cross_entropy(truth: Tensor, probabilities: Tensor) -> Tensor:
    """Of each pixel (n, h, w): what every recipe is validated by.

    Not Keras' own alone: behind a sigmoid it takes the logits it finds and computes a softmax's loss, on TensorFlow
    only, which is not the loss of the probabilities that the model gives."""
    return keras.losses.sparse_categorical_crossentropy(truth, normalised(probabilities))


def weighted_cross_entropy(
    chosen: Tensor, probabilities: Tensor, class_weights: Sequence[float], extra: Tensor | None = None
) -> Tensor:
    """Mean over pixels, each with its class's weight and what ``extra`` (n, h, w) adds to it; equal weights give the
    plain cross-entropy."""
    each = ops.convert_to_tensor(class_weights, dtype="float32")
    weights = chosen * (each if extra is None else each + ops.cast(extra, "float32")[..., None])
    return -ops.sum(weights * ops.log(probabilities)) / ops.sum(weights)


def dice(chosen: Tensor, probabilities: Tensor) -> Tensor:
    """1 - the mean over classes of the soft Dice coefficient (Milletari et al. 2016), counted over the whole batch:
    a photo without a class would make its coefficient a matter of epsilon."""
    both = ops.sum(chosen * probabilities, axis=(0, 1, 2))
    either = ops.sum(chosen, axis=(0, 1, 2)) + ops.sum(probabilities, axis=(0, 1, 2))
    return 1.0 - ops.mean((2.0 * both + 1.0) / (either + 1.0))


def lovasz(chosen: Tensor, probabilities: Tensor) -> Tensor:
    """Lovász-Softmax (Berman et al. 2018): the piecewise linear extension of 1 - IoU, mean over the classes, counted
    over the whole batch as ``dice``."""
    classes = chosen.shape[-1]
    chosen = ops.transpose(ops.reshape(chosen, (-1, classes)))  # (classes, pixels)
    errors = ops.abs(chosen - ops.transpose(ops.reshape(probabilities, (-1, classes))))
    order = ops.argsort(-errors, axis=-1)  # largest error first
    errors = ops.take_along_axis(errors, order, axis=-1)
    chosen = ops.take_along_axis(chosen, order, axis=-1)
    positives = ops.sum(chosen, axis=-1, keepdims=True)
    # 1 - IoU if the pixels up to here were wrong and the others right; its steps weigh the errors.
    missed = ops.cumsum(chosen, axis=-1)
    wrong = ops.cumsum(1.0 - chosen, axis=-1)
    jaccard = 1.0 - (positives - missed) / ops.maximum(positives + wrong, 1.0)
    steps = ops.concatenate([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], axis=-1)
    present = ops.cast(positives[:, 0] > 0, "float32")
    each = ops.sum(errors * ops.stop_gradient(steps), axis=-1)
    return ops.sum(each * present) / ops.maximum(ops.sum(present), 1.0)


def distance(taught: Tensor, probabilities: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the student from the teacher (Hinton et al. 2015, at temperature 1: with
    three classes and soft outlines there is little else to uncover), mean over pixels."""
    return ops.mean(ops.sum(taught * (ops.log(taught) - ops.log(probabilities)), axis=-1))


REGION_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"dice": dice, "lovasz": lovasz}

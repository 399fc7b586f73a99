"""What a training minimises: cross-entropy, a region loss, the divergence from a teacher.

All take class ids (n, h, w) or their one-hot form (n, h, w, classes), and float32 probabilities (n, h, w, classes); the
cross-entropies are in nats. Probabilities of sigmoid heads are normalized to sum 1, as Keras does. Pixels that are
``IGNORED`` count in none of them: their one-hot form is all 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras
from keras import ops

from unet_runtime.core.metrics import IGNORED
from unet_training.recipes import RegionLoss

Tensor = Any
"""Tensor of whichever backend Keras runs on."""

_EPSILON = 1e-7
"""Keras' own: the least probability that a logarithm is taken of."""


@dataclass(frozen=True)
class Objective:
    """The loss of one training step."""

    class_weights: Sequence[float]
    """Weight of a pixel of each class in the cross-entropy."""
    region: RegionLoss = "none"
    region_weight: float = 1.0
    """Weight of the region loss, the cross-entropy having 1."""
    teacher: Callable[[Tensor], Tensor] | None = None
    """From photos (n, h, w, 3) to probabilities as large as the student's; None: no distillation."""
    teacher_weight: float = 1.0
    """Weight of the divergence from the teacher."""
    hard_pixels: float = 1.0
    """Share of pixels, those of the largest loss, that the cross-entropy counts."""

    def __call__(self, photos: Tensor, truth: Tensor, probabilities: Tensor, extra: Tensor | None = None) -> Tensor:
        """Loss of a batch, one number; ``extra`` (n, h, w) is added to the class weight of each pixel."""
        probabilities = normalize(ops.cast(probabilities, "float32"))
        one_hot = chosen_classes(truth, len(self.class_weights))  # (n, h, w, classes)
        has_truth = labelled(truth)  # (n, h, w)
        loss = weighted_cross_entropy(one_hot, probabilities, self.class_weights, extra, self.hard_pixels)
        if self.region != "none":
            loss += self.region_weight * REGION_LOSSES[self.region](one_hot, probabilities * has_truth[..., None])
        if self.teacher is not None:
            target = normalize(ops.cast(self.teacher(photos), "float32"))
            loss += self.teacher_weight * divergence(ops.stop_gradient(target), probabilities, has_truth)
        return loss


class TrainingModel(keras.Model):
    """A network that learns by an ``Objective``; its evaluations report the compiled loss, which recipes share."""

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


def labelled(truth: Tensor) -> Tensor:
    """float32 (n, h, w): 1 where a pixel has a class, 0 where it is ``IGNORED``."""
    return ops.cast(ops.not_equal(ops.cast(truth, "int32"), IGNORED), "float32")


def _known_classes(truth: Tensor) -> Tensor:
    """int32 (n, h, w): 0 in place of ``IGNORED``, which is no class that a table has a row for."""
    truth = ops.cast(truth, "int32")
    return ops.where(ops.equal(truth, IGNORED), 0, truth)


def chosen_classes(truth: Tensor, classes: int) -> Tensor:
    """Class ids -> their one-hot form, float32; all 0 where a pixel is ``IGNORED``."""
    return ops.one_hot(_known_classes(truth), classes, dtype="float32") * labelled(truth)[..., None]


def normalize(probabilities: Tensor) -> Tensor:
    """Probabilities whose sum over the classes is 1."""
    clipped = ops.clip(probabilities, _EPSILON, 1.0)
    return clipped / ops.sum(clipped, axis=-1, keepdims=True)


def cross_entropy(truth: Tensor, probabilities: Tensor) -> Tensor:
    """Cross-entropy of each pixel (n, h, w), 0 where it is ``IGNORED``: the validation loss of every recipe.

    Not Keras' own alone: on TensorFlow it takes the logits that it finds behind a sigmoid and computes the loss of a
    softmax, not of the model's probabilities (``keras/src/backend/tensorflow/nn.py``, ``_get_logits``).
    """
    each = keras.losses.sparse_categorical_crossentropy(_known_classes(truth), normalize(probabilities))
    return each * labelled(truth)


def mean_cross_entropy(truth: Tensor, probabilities: Tensor) -> Tensor:
    """Mean of ``cross_entropy`` over the pixels that have a class; 0 where none has."""
    return ops.sum(cross_entropy(truth, probabilities)) / ops.maximum(ops.sum(labelled(truth)), 1.0)


def weighted_cross_entropy(
    one_hot: Tensor,
    probabilities: Tensor,
    class_weights: Sequence[float],
    extra: Tensor | None = None,
    hard_pixels: float = 1.0,
) -> Tensor:
    """Mean over pixels, each weighted by its class plus ``extra`` (n, h, w); equal weights give the plain
    cross-entropy. Of all pixels of the batch, the share ``hard_pixels`` with the largest loss counts: most pixels are
    learnt early, and their many small losses hide the few large ones (Shrivastava et al. 2016)."""
    each = ops.convert_to_tensor(class_weights, dtype="float32")
    if extra is not None:
        each = each + ops.cast(extra, "float32")[..., None]  # (n, h, w, classes)
    weights = one_hot * each
    losses = -ops.sum(weights * ops.log(probabilities), axis=-1)  # (n, h, w)
    weights = ops.sum(weights, axis=-1)
    if hard_pixels < 1.0:
        losses, weights = _hardest(losses, weights, hard_pixels)
    return ops.sum(losses) / ops.maximum(ops.sum(weights), _EPSILON)


def _hardest(losses: Tensor, weights: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Losses and weights (n, h, w) of the batch's hardest pixels, 0 in the place of the others."""
    flat = ops.reshape(ops.stop_gradient(losses), (-1,))
    order = ops.sort(flat)
    count = ops.cast(ops.shape(order)[0], "float32")
    first = ops.cast(ops.floor(count * (1.0 - share)), "int32")
    hard = ops.cast(losses >= ops.take(order, first), "float32")
    return losses * hard, weights * hard


def dice(one_hot: Tensor, probabilities: Tensor) -> Tensor:
    """1 - the mean over classes of the soft Dice coefficient (Milletari et al. 2016), counted over the whole batch:
    in a photo without a class the coefficient would depend on the smoothing term alone."""
    both = ops.sum(one_hot * probabilities, axis=(0, 1, 2))
    total = ops.sum(one_hot, axis=(0, 1, 2)) + ops.sum(probabilities, axis=(0, 1, 2))
    return 1.0 - ops.mean((2.0 * both + 1.0) / (total + 1.0))


def lovasz(one_hot: Tensor, probabilities: Tensor) -> Tensor:
    """Lovász-Softmax (Berman et al. 2018): the piecewise linear extension of 1 - IoU, mean over the classes present,
    counted over the whole batch as ``dice``."""
    classes = one_hot.shape[-1]
    truth = ops.transpose(ops.reshape(one_hot, (-1, classes)))  # (classes, pixels)
    errors = ops.abs(truth - ops.transpose(ops.reshape(probabilities, (-1, classes))))
    order = ops.argsort(-errors, axis=-1)  # largest error first
    errors = ops.take_along_axis(errors, order, axis=-1)
    truth = ops.take_along_axis(truth, order, axis=-1)
    positives = ops.sum(truth, axis=-1, keepdims=True)
    # 1 - IoU if the pixels up to here were wrong and the others right; its steps weight the errors.
    missed = ops.cumsum(truth, axis=-1)
    wrong = ops.cumsum(1.0 - truth, axis=-1)
    jaccard = 1.0 - (positives - missed) / ops.maximum(positives + wrong, 1.0)
    steps = ops.concatenate([jaccard[:, :1], jaccard[:, 1:] - jaccard[:, :-1]], axis=-1)
    present = ops.cast(positives[:, 0] > 0, "float32")
    each = ops.sum(errors * ops.stop_gradient(steps), axis=-1)
    return ops.sum(each * present) / ops.maximum(ops.sum(present), 1.0)


def divergence(target: Tensor, probabilities: Tensor, has_truth: Tensor | None = None) -> Tensor:
    """Kullback-Leibler divergence of the student from the teacher's ``target``, mean over pixels: all of them, or those
    where ``has_truth`` (n, h, w) is 1.

    Distillation as of Hinton et al. 2015, at temperature 1: with three classes a higher one has little to uncover.
    """
    each = keras.losses.kl_divergence(target, probabilities)
    if has_truth is None:
        return ops.mean(each)
    return ops.sum(each * has_truth) / ops.maximum(ops.sum(has_truth), 1.0)


REGION_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"dice": dice, "lovasz": lovasz}

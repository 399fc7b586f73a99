"""Quantisation-aware fine-tuning: a few steps that move the weights to where int8 rounding changes least.

B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR
2018: the forward pass rounds weights and activations as the int8 file will, the backward pass takes the rounding for
the identity (straight-through estimator, Y. Bengio et al., 2013). The float model's own probabilities are the labels
(distillation, G. Hinton et al., 2015), so calibration photos are enough and no label is learned or forgotten.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unet_export.source_model import import_keras
from unet_export.transforms.fake_quantized import FakeQuantized

HELD_OUT = 10
"""One photo in so many is for validation and trains nothing."""

MAX_VALIDATION = 24
"""More validation photos cost time and change the result little: each is thousands of pixels."""

CHECKS = 5
"""How often the weights are validated on the way, evenly; before the first step they always are."""

WARM_UP = 8
"""The learning rate grows during one step in so many: Adam's first steps, without averages, are the longest."""

_BATCH, _VALIDATED = 4, 8
"""Photos per step, and per step of validation."""

_TINY = 1e-7
"""Least probability whose logarithm is taken: float32's resolution at 1."""

logger = logging.getLogger(__name__)


class _Score(NamedTuple):
    """How far the quantised model is from the float one: less is better, the first counts first."""

    disagreement: float
    """Share of pixels with another class, which the gate limits."""
    divergence: float


def finetune(
    model: Any,
    images: npt.NDArray[np.uint8],
    steps: int,
    *,
    weight_bits: int = 8,
    learning_rate: float = 2e-5,
    seed: int = 0,
) -> Any:
    """Train a clone of ``model`` to predict in int8 what ``model`` predicts in float32.

    BatchNormalization keeps its statistics. The clone's weights are those that agreed best with ``model`` on photos
    held out, the weights as given included: by this measure it is never worse. Each validation is logged. Equal
    arguments give equal weights on the same machine.

    Args:
        model: a Keras functional model, uint8 (n, h, w, 3) -> probabilities (n, h', w', classes); left as it is.
        images: two or more calibration photos, uint8 (n, h, w, 3); ranges are measured on all, a tenth validates.
        steps: optimizer steps; 30 to 60 do most of what can be done.
        weight_bits: of the file's weights, 7 or 8.
        learning_rate: Adam's at its highest, from which it falls along half a cosine.
        seed: of the photos' order.
    """
    import tensorflow as tf

    if len(images) < 2:
        raise ValueError(f"{len(images)} photos, expected at least 2: one validates, the others train")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    count = min(MAX_VALIDATION, max(1, len(images) // HELD_OUT))
    validation, training = images[order[:count]], images[order[count:]]
    student = FakeQuantized(model, images, weight_bits)
    trainer = _Trainer(model, student, _optimizer(learning_rate, steps))
    best = trainer.score(validation, 0)
    weights = student.weights()
    checks = np.rint(np.linspace(0, steps, CHECKS + 1)[1:])
    batches = _batches(len(training), rng)
    for step in range(1, steps + 1):
        trainer.step(tf.constant(training[next(batches)]))
        if step in checks and (score := trainer.score(validation, step)) < best:  # no comparison with NaN holds
            best, weights = score, student.weights()
    clone = import_keras().models.clone_model(model)
    for name, values in weights.items():
        clone.get_layer(name).set_weights(values)
    return clone


def _optimizer(learning_rate: float, steps: int) -> Any:
    optimizers = import_keras().optimizers
    warm_up = max(1, steps // WARM_UP)
    rate = optimizers.schedules.CosineDecay(
        learning_rate / WARM_UP, max(1, steps - warm_up), warmup_target=learning_rate, warmup_steps=warm_up
    )
    return optimizers.Adam(rate)


def _batches(count: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.intp]]:
    """Indices of one batch after the other, without end; each photo once before any comes again."""
    waiting = np.empty(0, np.intp)
    while True:
        while len(waiting) < _BATCH:
            waiting = np.concatenate([waiting, rng.permutation(count)])
        yield waiting[:_BATCH]
        waiting = waiting[_BATCH:]


class _Trainer:
    """The float model (teacher), the quantised one that learns from it (student), and the optimizer."""

    def __init__(self, teacher: Any, student: FakeQuantized, optimizer: Any) -> None:
        import tensorflow as tf

        self._teacher, self._student, self._optimizer = teacher, student, optimizer
        optimizer.build(student.trainable)
        self.step: Callable[[Any], Any] = tf.function(self._step, reduce_retracing=True)
        self._measure = tf.function(self._compare, reduce_retracing=True)

    def score(self, images: npt.NDArray[np.uint8], step: int) -> _Score:
        """Mean over all pixels of ``images``, logged as of ``step``."""
        import tensorflow as tf

        scores, counts = [], []
        for start in range(0, len(images), _VALIDATED):
            part = images[start : start + _VALIDATED]
            disagreement, divergence = self._measure(tf.constant(part))
            scores.append((float(disagreement), float(divergence)))
            counts.append(len(part))
        score = _Score(*np.average(scores, axis=0, weights=counts).tolist())
        logger.info("step %d: %.3f%% of pixels disagree, divergence %.2e", step, 100 * score[0], score.divergence)
        return score

    def _step(self, images: Any) -> None:
        import tensorflow as tf

        target = self._teacher(images, training=False)
        with tf.GradientTape() as tape:
            loss = _divergence(target, self._student(images))
        self._optimizer.apply(tape.gradient(loss, list(map(attrgetter("value"), self._student.trainable))))

    def _compare(self, images: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        target = self._teacher(images, training=False)  # (n, h', w', classes)
        prediction = self._student(images)
        differ = tf.argmax(target, axis=-1) != tf.argmax(prediction, axis=-1)
        return tf.reduce_mean(tf.cast(differ, tf.float32)), _divergence(target, prediction)


def _divergence(target: Any, prediction: Any) -> Any:
    """Mean Kullback-Leibler divergence, of each class against not that class: for softmax and sigmoid alike."""
    import tensorflow as tf

    def term(p: Any, q: Any) -> Any:
        return p * (tf.math.log(tf.maximum(p, _TINY)) - tf.math.log(tf.maximum(q, _TINY)))

    return tf.reduce_mean(term(target, prediction) + term(1 - target, 1 - prediction))

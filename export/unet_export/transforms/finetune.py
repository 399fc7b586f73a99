"""Quantisation-aware fine-tuning: a few steps that move the weights to where int8 rounding does least harm.

B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference", CVPR
2018: the forward pass rounds weights and activations as the int8 file will, the backward pass takes the rounding for
the identity (straight-through estimator, Y. Bengio et al., 2013). The float model's own probabilities are the labels
(distillation, G. Hinton et al., 2015), so calibration photos are enough and no truth is learned or forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unet_export.keras_model import import_keras
from unet_export.transforms.twin import FakeQuantized

HELD_OUT = 10
"""One photo in so many judges the weights and teaches none."""

MAX_JUDGES = 24
"""More cost time and change the verdict little: each is thousands of pixels."""

CHECKS = 5
"""How often the weights are judged on the way, evenly; before the first step they always are."""

WARM_UP = 8
"""The rate grows during one step in so many: Adam's first steps, without averages, are as long as they can be."""

_TINY = 1e-7
"""Least probability whose logarithm is taken: float32's resolution at 1."""

Say = Callable[[str], None]


class _Score(NamedTuple):
    """How far the quantised model is from the float one: less is better, the first counts first."""

    disagreement: float
    """Share of pixels with another class: what the gate judges."""
    divergence: float


def finetune(
    model: Any,
    images: npt.NDArray[np.uint8],
    steps: int,
    *,
    weight_bits: int = 8,
    learning_rate: float = 2e-5,
    batch_size: int = 4,
    seed: int = 0,
    say: Say = lambda text: None,
) -> Any:
    """Teach a clone of ``model`` to answer through int8 as ``model`` answers in float32.

    BatchNormalization keeps its statistics. The clone's weights are those that agreed best with ``model`` on photos
    held out, the weights as given included: by this measure it is never worse. Equal arguments give equal weights on
    the same machine.

    Args:
        model: a Keras functional model, uint8 (n, h, w, 3) -> probabilities (n, h', w', classes); left as it is.
        images: calibration photos, uint8 (n, h, w, 3); ranges are measured on all, a tenth judges, the rest teach.
        steps: of the optimizer; 30 to 60 do most of what can be done.
        weight_bits: of the file's weights, 7 or 8.
        learning_rate: of Adam at its highest, from which it falls along half a cosine.
        batch_size: photos a step.
        seed: of the photos' order.
        say: called with a line at each judgement.

    Returns:
        A model of the same architecture, in float32, to be exported as any other.

    Raises:
        ValueError: fewer than two photos, or steps, batch size or learning rate not above 0.
    """
    import tensorflow as tf

    _check(images, steps, learning_rate, batch_size)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    count = min(MAX_JUDGES, max(1, len(images) // HELD_OUT))
    judges, pupils = images[order[:count]], images[order[count:]]
    twin = FakeQuantized(model, images, weight_bits)
    trainer = _Trainer(model, twin, _optimizer(learning_rate, steps))
    best, weights = _judge(trainer, judges, 0, say), twin.weights()
    checks = {round(steps * (index + 1) / CHECKS) for index in range(CHECKS)}
    for step, batch in zip(range(1, steps + 1), _batches(len(pupils), batch_size, rng), strict=False):
        trainer.step(tf.constant(pupils[batch]))
        if step in checks and (score := _judge(trainer, judges, step, say)) < best:  # NaN is less than nothing
            best, weights = score, twin.weights()
    return _with_weights(model, weights)


def _optimizer(learning_rate: float, steps: int) -> Any:
    optimizers = import_keras().optimizers
    warm_up = max(1, steps // WARM_UP)
    rate = optimizers.schedules.CosineDecay(
        learning_rate / WARM_UP, max(1, steps - warm_up), warmup_target=learning_rate, warmup_steps=warm_up
    )
    return optimizers.Adam(rate)


def _judge(trainer: _Trainer, judges: npt.NDArray[np.uint8], step: int, say: Say) -> _Score:
    score = trainer.score(judges)
    say(f"step {step}: {score.disagreement:.3%} of pixels disagree, divergence {score.divergence:.2e}")
    return score


def _with_weights(model: Any, weights: dict[str, list[npt.NDArray[np.float32]]]) -> Any:
    clone = import_keras().models.clone_model(model)
    for name, values in weights.items():
        clone.get_layer(name).set_weights(values)
    return clone


def _check(images: npt.NDArray[np.uint8], steps: int, learning_rate: float, batch_size: int) -> None:
    if len(images) < 2:
        raise ValueError(f"{len(images)} photos, expected at least 2: one judges, the others teach")
    for name, value in (("steps", steps), ("learning_rate", learning_rate), ("batch_size", batch_size)):
        if not value > 0:
            raise ValueError(f"{name} {value}, expected more than 0")


def _batches(count: int, size: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.intp]]:
    """Indices of a batch after the other, without end; each photo once before any comes again."""
    waiting = np.empty(0, np.intp)
    while True:
        while len(waiting) < size:
            waiting = np.concatenate([waiting, rng.permutation(count)])
        yield waiting[:size]
        waiting = waiting[size:]


class _Trainer:
    """The float model that teaches, the quantised one that learns, and the optimizer between them."""

    def __init__(self, teacher: Any, twin: FakeQuantized, optimizer: Any) -> None:
        import tensorflow as tf

        self._teacher, self._twin, self._optimizer = teacher, twin, optimizer
        optimizer.build(twin.trainable)
        self.step: Callable[[Any], Any] = tf.function(self._step, reduce_retracing=True)
        self._measure = tf.function(self._compare, reduce_retracing=True)

    def score(self, images: npt.NDArray[np.uint8], batch: int = 8) -> _Score:
        """Over all pixels of ``images``."""
        import tensorflow as tf

        parts = [images[start : start + batch] for start in range(0, len(images), batch)]
        scores = [[float(value) for value in self._measure(tf.constant(part))] for part in parts]
        return _Score(*np.average(scores, axis=0, weights=[len(part) for part in parts]).tolist())

    def _step(self, images: Any) -> None:
        import tensorflow as tf

        wanted = self._teacher(images, training=False)
        with tf.GradientTape() as tape:
            loss = _divergence(wanted, self._twin(images))
        self._optimizer.apply(tape.gradient(loss, [variable.value for variable in self._twin.trainable]))

    def _compare(self, images: Any) -> tuple[Any, Any]:
        import tensorflow as tf

        wanted, given = self._teacher(images, training=False), self._twin(images)  # (n, h', w', classes)
        differ = tf.argmax(wanted, axis=-1) != tf.argmax(given, axis=-1)
        return tf.reduce_mean(tf.cast(differ, tf.float32)), _divergence(wanted, given)


def _divergence(wanted: Any, given: Any) -> Any:
    """Kullback-Leibler, of each class against not that class: for softmax and sigmoid alike. Mean over all."""
    import tensorflow as tf

    def term(p: Any, q: Any) -> Any:
        return p * (tf.math.log(tf.maximum(p, _TINY)) - tf.math.log(tf.maximum(q, _TINY)))

    return tf.reduce_mean(term(wanted, given) + term(1 - wanted, 1 - given))

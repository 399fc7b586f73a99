"""The ranges of a Keras model's tensors on photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.source_model import import_keras

_BATCH = 8
"""Photos at a time: bounds memory whatever their number."""


Channels = npt.NDArray[np.float64]


def channel_ranges(
    model: Any, tensors: Sequence[Any], images: npt.NDArray[np.uint8]
) -> list[tuple[Channels, Channels]]:
    """Lowest and highest value, (channels,), of each of the model's symbolic ``tensors``, (n, ..., channels).

    On ``images``, uint8 (n, h, w, 3), at least one.
    """
    import tensorflow as tf

    if not tensors:
        return []
    probe = import_keras().Model(model.inputs[0], list(tensors))

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def limits(batch: Any) -> list[Any]:
        found = []
        for values in tf.nest.flatten(probe(batch, training=False)):
            channels = tf.reshape(values, (-1, values.shape[-1]))
            found.append(tf.stack([tf.reduce_min(channels, axis=0), tf.reduce_max(channels, axis=0)]))
        return found

    batches = []
    for start in range(0, len(images), _BATCH):
        batches.append(limits(tf.constant(images[start : start + _BATCH])))
    ranges = []
    for found in zip(*batches, strict=True):  # of one tensor: (2, channels) for each batch
        values = np.array(found, np.float64)
        ranges.append((values[:, 0].min(axis=0), values[:, 1].max(axis=0)))
    return ranges

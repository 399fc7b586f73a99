"""The ranges of a Keras model's tensors on photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unet_export.source_model import import_keras

_BATCH = 8
"""Photos at a time: bounds memory whatever their number."""


class Range(NamedTuple):
    """Lowest and highest value of a tensor in each channel, float64 (channels,)."""

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def channel_ranges(model: Any, tensors: Sequence[Any], images: npt.NDArray[np.uint8]) -> list[Range]:
    """Ranges of the model's symbolic ``tensors``, (n, ..., channels), over ``images``, uint8 (n, h, w, 3).

    Raises:
        ValueError: no photo.
    """
    import tensorflow as tf

    if len(images) == 0:
        raise ValueError("0 calibration photos, expected at least one: ranges are measured on them")
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

    ranges: list[Range] = []
    for start in range(0, len(images), _BATCH):
        for index, (low, high) in enumerate(limits(tf.constant(images[start : start + _BATCH]))):
            now = Range(low.numpy().astype(np.float64), high.numpy().astype(np.float64))
            if start == 0:
                ranges.append(now)
            else:
                before = ranges[index]
                ranges[index] = Range(np.minimum(before.low, now.low), np.maximum(before.high, now.high))
    return ranges

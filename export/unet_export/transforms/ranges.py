"""The ranges of a Keras model's tensors on photos."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unet_export.keras_model import import_keras

_BATCH = 8
"""Photos at a time: bounds memory whatever their number."""


class Range(NamedTuple):
    """Of one tensor: its lowest and highest value in each channel, float64 (channels,)."""

    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def channel_ranges(model: Any, tensors: Sequence[Any], images: npt.NDArray[np.uint8]) -> list[Range]:
    """Of each of the model's symbolic ``tensors``, (n, ..., channels), over ``images``, uint8 (n, h, w, 3).

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
    def ends(batch: Any) -> list[Any]:
        outputs = probe(batch, training=False)
        outputs = outputs if isinstance(outputs, list) else [outputs]  # of one tensor Keras makes no list
        flat = [tf.reshape(values, (-1, values.shape[-1])) for values in outputs]
        return [(tf.reduce_min(values, axis=0), tf.reduce_max(values, axis=0)) for values in flat]

    seen = [ends(tf.constant(images[start : start + _BATCH])) for start in range(0, len(images), _BATCH)]
    return [
        Range(
            np.min([low.numpy() for low, _ in batches], axis=0).astype(np.float64),
            np.max([high.numpy() for _, high in batches], axis=0).astype(np.float64),
        )
        for batches in zip(*seen, strict=True)
    ]

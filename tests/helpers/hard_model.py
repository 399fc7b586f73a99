"""Models that are hard to quantise on purpose: the same function, through channels of wildly different ranges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unet_export.transforms.rescale import clone, rescalable, rescale_channels

DECADES = 5.0
"""Powers of ten between the factors of one layer's channels: an int8 activation holds little more than two."""


def hard_model(model: Any, seed: int, layers: Sequence[str] = (), *, decades: float = DECADES) -> Any:
    """A clone of a U-Net whose float32 predictions are the same but for rounding, and whose plain int8 file fails.

    Args:
        model: a network of ``unet_training``.
        seed: seed of the factors, log-uniform over ``decades`` around 1.
        layers: whose output channels become wild; by default every BatchNormalization.
        decades: powers of ten between the smallest and the largest factor.
    """
    rng = np.random.default_rng(seed)
    copy = clone(model)
    sources = {source.layer.name: source for source in rescalable(copy)}
    names = layers or [layer.name for layer in model.layers if type(layer).__name__ == "BatchNormalization"]
    for name in names:
        channels = sources[name].layer.output.shape[-1]
        rescale_channels(sources[name], 10 ** rng.uniform(-decades / 2, decades / 2, channels))
    return copy

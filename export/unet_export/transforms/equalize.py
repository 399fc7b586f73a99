"""Cross-layer range equalisation: the same function in float32, with channels that int8 can hold side by side.

M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019. An int8 activation has one scale for the whole tensor, so a channel whose values are a
thousandth of the largest one's becomes 0: channels are rescaled, as far as their readers can undo it (``rescale.py``).

Two departures from the paper. Ranges of activations are measured on photos, not estimated from BatchNormalization.
And s is a power of two: it changes exponents and no mantissa, so the float32 result stays the same to the last bit;
what it costs is that ranges meet within a factor of sqrt(2) to either side, half a bit, not exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.transforms.ranges import channel_ranges
from unet_export.transforms.rescale import Source, clone, rescalable, rescale_channels

MAX_FACTOR = 2.0**12
"""Largest factor of a channel, and of its inverse: a channel that is quiet on the calibration photos may be loud on the
next one."""


def equalize(model: Any, images: npt.NDArray[np.uint8]) -> Any:
    """A clone of ``model`` that computes the same in float32, with channels of similar ranges in every tensor.

    A layer whose channels cannot be rescaled (because an addition reads them, for example) keeps its weights; a
    BatchNormalization without gamma gets one. ``images``: calibration photos, uint8 (n, h, w, 3), at least one.
    """
    copy = clone(model)
    sources = rescalable(copy)
    measured = channel_ranges(copy, list(map(attrgetter("tensor"), sources)), images)
    ranges = [np.maximum(-low, high) for low, high in measured]  # of |x|, as low <= high
    for source, channels, target in zip(sources, ranges, _targets(sources, ranges), strict=True):
        rescale_channels(source, _factors(channels, target))
    return copy


def _targets(sources: Sequence[Source], ranges: Sequence[npt.NDArray[np.float64]]) -> list[float]:
    """The range that a source's channels are brought to: the geometric mean of all channels that one layer may see.

    Tensors that are concatenated share a scale, so sources with a common reader share their target. The mean and not
    the largest: weights and activations stay near 1, where float16 and training are at ease.
    """
    group = np.arange(len(sources))
    by_reader: dict[str, int] = {}
    for index, source in enumerate(sources):
        for reader in source.readers:
            other = by_reader.setdefault(reader.layer.name, index)
            group[group == group[index]] = group[other]
    targets = [1.0] * len(sources)
    for member in set(group.tolist()):
        indices = np.flatnonzero(group == member).tolist()
        channels = np.concatenate([ranges[index] for index in indices])
        if channels.any():
            target = float(2.0 ** np.log2(channels[channels > 0]).mean())
            for index in indices:
                targets[index] = target
    return targets


def _factors(ranges: npt.NDArray[np.float64], target: float) -> npt.NDArray[np.float64]:
    """A power of two per channel; 1 for a channel that is always 0, whose weights say nothing of its range."""
    exponents = np.zeros_like(ranges)
    alive = ranges > 0
    exponents[alive] = np.rint(np.log2(target / ranges[alive]))
    limit = np.log2(MAX_FACTOR)
    factors: npt.NDArray[np.float64] = 2.0 ** exponents.clip(-limit, limit)
    return factors

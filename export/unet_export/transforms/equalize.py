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
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.transforms.ranges import channel_ranges
from unet_export.transforms.rescale import Source, clone, rescalable, rescale_channels

MAX_FACTOR = 2.0**12
"""A channel is multiplied or divided by no more: one that calibration hardly woke may be loud on the next photo."""


@dataclass(frozen=True)
class EqualizedLayer:
    """A layer whose output channels were rescaled."""

    layer: str
    spread_before: float
    """Largest channel's range over the smallest's, where range is the largest |x|; channels that are always 0 do not
    count."""
    spread_after: float
    largest_factor: float
    """Of any of its channels, or its inverse where that is larger; a power of two. 1: the layer is as it was."""


@dataclass(frozen=True)
class EqualizationReport:
    """What ``equalize`` did, layers in the network's order."""

    layers: tuple[EqualizedLayer, ...]
    skipped: tuple[tuple[str, str], ...]
    """Layers that make channels and were left alone, each with the reason."""


def equalize(model: Any, images: npt.NDArray[np.uint8]) -> tuple[Any, EqualizationReport]:
    """A clone of ``model`` that computes the same in float32, with channels of similar ranges in every tensor.

    Args:
        model: a Keras functional model of float32 layers, NHWC; it is left as it is. A layer whose channels
            cannot be rescaled (an addition reads them, say) keeps its weights.
        images: calibration photos as the model is fed, uint8 (n, h, w, 3), at least one.

    Returns:
        The clone, and what was done. A BatchNormalization without gamma has one in the clone.

    Raises:
        ValueError: no photo.
    """
    twin = clone(model)
    sources, skipped = rescalable(twin)
    measured = channel_ranges(twin, [source.tensor for source in sources], images)
    ranges = [np.maximum(-low, high) for low, high in measured]  # of |x|, as low <= high
    factors = [_factors(*pair) for pair in zip(ranges, _targets(sources, ranges), strict=True)]
    for source, scale in zip(sources, factors, strict=True):
        rescale_channels(source, scale)
    done = [_describe(*row) for row in zip([source.layer.name for source in sources], ranges, factors, strict=True)]
    return twin, EqualizationReport(tuple(done), tuple(skipped))


def _targets(sources: Sequence[Source], ranges: Sequence[npt.NDArray[np.float64]]) -> list[float]:
    """The range that a source's channels are brought to: the geometric mean of all channels that one layer may see.

    Tensors that are concatenated share a scale, so sources with a common reader share their target. The mean and not
    the largest: weights and activations stay near 1, where float16 and training are at ease.
    """
    group = list(range(len(sources)))
    by_reader: dict[str, int] = {}
    for index, source in enumerate(sources):
        for reader in source.readers:
            other = by_reader.setdefault(reader.layer.name, index)
            group = [group[other] if member == group[index] else member for member in group]
    logs: dict[int, list[float]] = {}
    for member, measured in zip(group, ranges, strict=True):
        logs.setdefault(member, []).extend(np.log2(measured[measured > 0]))
    return [float(2.0 ** np.mean(logs[member])) if logs[member] else 1.0 for member in group]


def _factors(ranges: npt.NDArray[np.float64], target: float) -> npt.NDArray[np.float64]:
    """Powers of two, one a channel; 1 for a channel that is always 0, whose weights say nothing of its range."""
    exponents = np.zeros_like(ranges)
    alive = ranges > 0
    exponents[alive] = np.rint(np.log2(target / ranges[alive]))
    limit = np.log2(MAX_FACTOR)
    factors: npt.NDArray[np.float64] = 2.0 ** exponents.clip(-limit, limit)
    return factors


def _describe(name: str, ranges: npt.NDArray[np.float64], factors: npt.NDArray[np.float64]) -> EqualizedLayer:
    alive = ranges > 0
    largest = float(2.0 ** np.abs(np.log2(factors)).max())
    return EqualizedLayer(name, _spread(ranges[alive]), _spread((ranges * factors)[alive]), largest)


def _spread(ranges: npt.NDArray[np.float64]) -> float:
    return float(ranges.max() / ranges.min()) if ranges.size else 1.0

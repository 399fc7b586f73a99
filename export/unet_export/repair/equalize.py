"""Cross-layer range equalisation: the same function in float32, with channels that int8 can hold side by side.

M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019. An int8 activation has one scale for the whole tensor, so a channel whose values are a
thousandth of the largest one's becomes 0. Where all layers in between are positively homogeneous, f(s x) = s f(x) for
s > 0, a channel may be multiplied by s in the layer that makes it and divided by s in every layer that reads it.

Two departures from the paper. Ranges of activations are measured on photos, not estimated from BatchNormalization.
And s is a power of two: it changes exponents and no mantissa, so the float32 result stays the same to the last bit;
what it costs is that ranges meet within a factor of sqrt(2) to either side, half a bit, not exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.keras_model import import_keras
from unet_export.repair.keras_graph import NORM, Graph, Reader
from unet_export.repair.ranges import channel_ranges

MAX_FACTOR = 2.0**12
"""A channel is multiplied or divided by no more: one that calibration hardly woke may be loud on the next photo."""

_AXES = {"Conv2D": (2, 3), "Conv2DTranspose": (3, 2), "DepthwiseConv2D": (2, 2)}
"""Input and output channels' axis of the kernel. A depthwise kernel (h, w, in, multiplier) has both in one."""


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


@dataclass(frozen=True)
class _Source:
    """A layer whose output channels may be rescaled, and who reads them."""

    layer: Any
    tensor: Any
    """What int8 will hold: behind the activation, which is fused into the layer."""
    readers: tuple[Reader, ...]


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
    clone = _clone(model)
    sources, skipped = _sources(clone)
    measured = channel_ranges(clone, [source.tensor for source in sources], images)
    ranges = [np.maximum(-low, high) for low, high in measured]  # of |x|, as low <= high
    factors = [_factors(*pair) for pair in zip(ranges, _targets(sources, ranges), strict=True)]
    for source, scale in zip(sources, factors, strict=True):
        _rescale(source, scale)
    done = [_describe(*row) for row in zip([source.layer.name for source in sources], ranges, factors, strict=True)]
    return clone, EqualizationReport(tuple(done), tuple(skipped))


def rescale(model: Any, factors: Mapping[str, npt.NDArray[np.float64]]) -> Any:
    """A clone of ``model`` that computes the same, with output channels of some layers multiplied.

    Args:
        model: as ``equalize`` takes it.
        factors: (channels,) by the name of the layer; above 0. The layers that read the channels are divided by them.

    Raises:
        ValueError: a layer whose channels cannot be rescaled.
    """
    clone = _clone(model)
    sources, skipped = _sources(clone)
    able = {source.layer.name: source for source in sources}
    if unable := sorted(set(factors) - set(able)):
        reasons = dict.fromkeys(factors, "makes no channels of its own") | dict(skipped)
        raise ValueError(
            f"layers {', '.join(f'{name} ({reasons[name]})' for name in unable)} cannot be rescaled, "
            f"expected some of {', '.join(able)}"
        )
    for name, scale in factors.items():
        _rescale(able[name], scale)
    return clone


def _clone(model: Any) -> Any:
    """The same network and weights, where every BatchNormalization has a gamma to carry the factors."""
    keras = import_keras()

    def with_gamma(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            config["scale"] = True
        return type(layer).from_config(config)

    clone = keras.models.clone_model(model, clone_function=with_gamma)
    for old, new in zip(model.layers, clone.layers, strict=True):
        weights = old.get_weights()
        if isinstance(old, keras.layers.BatchNormalization) and not old.scale:
            weights.insert(0, new.gamma.numpy())  # ones, so far
        new.set_weights(weights)
    return clone


def _sources(model: Any) -> tuple[list[_Source], list[tuple[str, str]]]:
    """What may be rescaled, in the network's order, and what not, with the reason."""
    graph = Graph(model)
    found, skipped = [], []
    for layer in model.layers:
        if type(layer).__name__ not in (*_AXES, NORM) or graph.is_folded(layer):
            continue
        readers, obstacle = graph.trace(layer)
        if obstacle := obstacle or _cannot_undo(readers):
            skipped.append((layer.name, obstacle))
        else:
            found.append(_Source(layer, graph.settled(layer), tuple(readers)))
    return found, skipped


def _cannot_undo(readers: Sequence[Reader]) -> str:
    for layer in (reader.layer for reader in readers):
        if type(layer).__name__ not in (*_AXES, NORM):
            return f"read by {layer.name} ({type(layer).__name__}), which cannot undo a factor"
        if getattr(layer, "groups", 1) != 1:
            return f"read by {layer.name}, a convolution in {layer.groups} groups"
    return ""


def _targets(sources: Sequence[_Source], ranges: Sequence[npt.NDArray[np.float64]]) -> list[float]:
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


def _rescale(source: _Source, factors: npt.NDArray[np.float64]) -> None:
    _scale_output(source.layer, factors)
    for reader in source.readers:
        _undo(reader, factors)


def _scale_output(layer: Any, factors: npt.NDArray[np.float64]) -> None:
    if type(layer).__name__ == NORM:
        _multiply(layer.gamma, factors)
        _multiply(layer.beta, factors)
        return
    axis = _AXES[type(layer).__name__][1]
    if type(layer).__name__ == "DepthwiseConv2D":  # output channel = input channel * multiplier + index
        _multiply(layer.kernel, factors.reshape(layer.kernel.shape[2:]))
    else:
        _multiply(layer.kernel, _along(axis, factors))
    _multiply(layer.bias, factors)


def _undo(reader: Reader, factors: npt.NDArray[np.float64]) -> None:
    layer = reader.layer
    scale = np.ones(layer.input.shape[-1])
    scale[reader.offset : reader.offset + len(factors)] = factors
    if type(layer).__name__ == NORM:  # gamma (x - mean) / deviation + beta, of s x
        _multiply(layer.moving_mean, scale)
        _multiply(layer.gamma, 1 / scale)
    else:
        _multiply(layer.kernel, _along(_AXES[type(layer).__name__][0], 1 / scale))


def _along(axis: int, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    return values.reshape(shape)


def _multiply(variable: Any, factors: npt.NDArray[np.float64]) -> None:
    if variable is not None:  # a layer without bias or beta
        variable.assign(variable.numpy() * factors.astype(np.float32))


def _describe(name: str, ranges: npt.NDArray[np.float64], factors: npt.NDArray[np.float64]) -> EqualizedLayer:
    alive = ranges > 0
    largest = float(2.0 ** np.abs(np.log2(factors)).max())
    return EqualizedLayer(name, _spread(ranges[alive]), _spread((ranges * factors)[alive]), largest)


def _spread(ranges: npt.NDArray[np.float64]) -> float:
    return float(ranges.max() / ranges.min()) if ranges.size else 1.0

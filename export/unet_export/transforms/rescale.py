"""The same function through channels of other sizes: a factor in the layer that makes a channel, undone in its readers.

Where all layers in between are positively homogeneous, f(s x) = s f(x) for s > 0, a channel may be multiplied by s in
the layer that makes it and divided by s in every layer that reads it. int8 gains where channels of one tensor come to
similar ranges (``equalize.py``), float16 where biases come to values that it holds (``rounding.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.source_model import import_keras
from unet_export.transforms.keras_graph import NORM, Graph, Reader

_AXES = {"Conv2D": (2, 3), "Conv2DTranspose": (3, 2), "DepthwiseConv2D": (2, 2)}
"""Input and output channels' axis of the kernel. A depthwise kernel (h, w, in, multiplier) has both in one."""


@dataclass(frozen=True)
class Source:
    """A layer whose output channels may be rescaled, and who reads them."""

    layer: Any
    tensor: Any
    """What int8 will hold: behind the activation, which is fused into the layer."""
    readers: tuple[Reader, ...]
    folded: Any | None
    """The convolution that a BatchNormalization is folded into."""

    def bias(self) -> npt.NDArray[np.float64]:
        """What an exported file adds to each channel: float64 (channels,)."""
        if type(self.layer).__name__ != NORM:
            return _values(self.layer.bias, self.layer.output.shape[-1])
        scale = _values(self.layer.gamma) / np.sqrt(_values(self.layer.moving_variance) + self.layer.epsilon)
        folded = None if self.folded is None else self.folded.bias
        mean = _values(self.layer.moving_mean) - _values(folded, len(scale))
        bias: npt.NDArray[np.float64] = _values(self.layer.beta, len(scale)) - scale * mean
        return bias


def clone(model: Any) -> Any:
    """The same network and weights, where every BatchNormalization has a gamma to carry the factors."""
    keras = import_keras()

    def with_gamma(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.layers.BatchNormalization):
            config["scale"] = True
        return type(layer).from_config(config)

    copy = keras.models.clone_model(model, clone_function=with_gamma)
    for old, new in zip(model.layers, copy.layers, strict=True):
        weights = old.get_weights()
        if isinstance(old, keras.layers.BatchNormalization) and not old.scale:
            weights.insert(0, new.gamma.numpy())  # ones, so far
        new.set_weights(weights)
    return copy


def rescalable(model: Any) -> list[Source]:
    """Sources of a model made by ``clone``, in order."""
    graph = Graph(model)
    found = []
    for layer in model.layers:
        if type(layer).__name__ in (*_AXES, NORM) and not graph.is_folded(layer):
            readers = graph.trace(layer)
            if readers is not None and all(map(_can_undo, readers)):
                found.append(Source(layer, graph.settled(layer), tuple(readers), graph.folded_into(layer)))
    return found


def _can_undo(reader: Reader) -> bool:
    return type(reader.layer).__name__ in (*_AXES, NORM) and getattr(reader.layer, "groups", 1) == 1


def rescale_channels(source: Source, factors: npt.NDArray[np.float64]) -> None:
    """Multiply the channels of ``source`` in place by (channels,) factors above 0, and divide its readers."""
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


def _values(variable: Any, channels: int = 0) -> npt.NDArray[np.float64]:
    """Values in float64; zeros for a layer without bias or beta."""
    return np.zeros(channels) if variable is None else variable.numpy().astype(np.float64)

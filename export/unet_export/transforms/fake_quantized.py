"""A Keras model as its int8 file computes it, in float arithmetic that gradients can pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.source_model import import_keras
from unet_export.transforms.keras_graph import CONVOLUTIONS, Graph, is_activation
from unet_export.transforms.ranges import channel_ranges

LARGEST_WEIGHT = {7: 64, 8: 127}
"""The largest integer that a weight may be, by its bits."""

_EXACT = (
    "InputLayer",
    "Rescaling",
    "MaxPooling2D",
    "ZeroPadding2D",
    "Cropping2D",
    "Dropout",
    "SpatialDropout2D",
)
"""Layers whose int8 output holds what their int8 input holds; Rescaling moves uint8 pixels to their own scale."""


class FakeQuantized:
    """A clone of a model that rounds weights and activations to int8 and back whenever it is called.

    Activations have one scale for the tensor, asymmetric, over the range seen on photos, and kernels one for each
    output channel, symmetric. An int8 file folds BatchNormalization into the kernel; the clone keeps it, with its
    statistics as they are, because it is a factor a channel, which the channel's scale takes along: rounding before
    the factor and rounding after it are the same.
    """

    def __init__(self, model: Any, images: npt.NDArray[np.uint8], weight_bits: int = 8) -> None:
        """Measure activations' ranges on ``images``, uint8 (n, h, w, 3), at least one; ``weight_bits``: 7 or 8."""
        self._largest = LARGEST_WEIGHT[weight_bits]
        rounding = _rounding(_activation_ranges(model, images))
        self._model = import_keras().models.clone_model(model, call_function=rounding)
        self._model.trainable = True
        for layer in self._layers():
            layer.set_weights(model.get_layer(layer.name).get_weights())
        self.trainable = list(self._model.trainable_variables)
        """The Keras variables that gradients reach; float, without any rounding."""
        self._kinds: dict[int, str] = {}
        for layer in self._layers():
            if type(layer).__name__ in CONVOLUTIONS:
                self._kinds[id(layer.kernel)] = type(layer).__name__

    def __call__(self, images: Any) -> Any:
        """uint8 (n, h, w, 3) -> float32 probabilities (n, h', w', classes), which themselves are not rounded."""
        trainable = list(map(self._rounded, self.trainable))
        fixed = list(map(attrgetter("value"), self._model.non_trainable_variables))
        outputs, _ = self._model.stateless_call(trainable, fixed, images, training=False)
        return outputs

    def weights(self) -> dict[str, list[npt.NDArray[np.float32]]]:
        """Weights by the name of their layer; as trained, not rounded."""
        return {layer.name: layer.get_weights() for layer in self._layers()}

    def _layers(self) -> list[Any]:
        return list(filter(attrgetter("weights"), self._model.layers))

    def _rounded(self, variable: Any) -> Any:
        kind = self._kinds.get(id(variable))
        return variable.value if kind is None else _round_kernel(variable.value, kind, self._largest)


def _activation_ranges(model: Any, images: npt.NDArray[np.uint8]) -> dict[str, tuple[float, float]]:
    """(low, high) by the name of the layer, for each whose output an int8 file stores; 0 is always inside."""
    keras = import_keras()
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    graph = Graph(clone)
    stored = {layer.name: layer.output for layer in clone.layers if _is_stored(layer, graph)}
    ranges = {}
    for name, (low, high) in zip(stored, channel_ranges(clone, list(stored.values()), images), strict=True):
        ranges[name] = (min(0.0, float(low.min())), max(0.0, float(high.max())))
    return ranges


def _is_stored(layer: Any, graph: Graph) -> bool:
    """Whether a layer's output is rounded: not what is fused with the layer behind, and not the model's output."""
    if type(layer).__name__ in _EXACT or graph.is_shared(layer) or graph.is_output(layer.output):
        return False
    return not graph.is_folded(layer) and not is_activation(graph.only_reader(layer.output))


def _rounding(ranges: Mapping[str, tuple[float, float]]) -> Callable[..., Any]:
    """For ``clone_model``: call a layer and round what it makes, where it has a range."""
    fake_quantize = import_keras().quantizers.fake_quant_with_min_max_vars

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        output = layer(*args, **kwargs)
        low, high = ranges.get(layer.name, (0.0, 0.0))
        return fake_quantize(output, low, high) if high > low else output

    return call


def _round_kernel(kernel: Any, kind: str, steps: int) -> Any:
    """float32 (h, w, in, out), or as ``kind`` has it, rounded to -steps..steps times a scale for each channel out."""
    import tensorflow as tf

    shape = kernel.shape
    if kind == "Conv2DTranspose":  # (h, w, out, in)
        return tf.transpose(_round_kernel(tf.transpose(kernel, (0, 1, 3, 2)), "Conv2D", steps), (0, 1, 3, 2))
    if kind == "DepthwiseConv2D":  # (h, w, in, multiplier): each of the last two axes' pairs makes a channel
        return tf.reshape(_round_kernel(tf.reshape(kernel, (*shape[:2], 1, -1)), "Conv2D", steps), shape)
    largest = tf.reduce_max(tf.abs(kernel), axis=(0, 1, 2))  # (out,)
    scale = tf.where(largest > 0, largest, 1) / steps
    return kernel + tf.stop_gradient(tf.round(kernel / scale) * scale - kernel)  # straight through

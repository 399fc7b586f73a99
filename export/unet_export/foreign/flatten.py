"""A foreign Keras model made anew: float32, channels last, one level of layers, behind an input of one's own.

Nested models hide their layers from whatever looks for them by name: repair, diagnosis, the rounding of biases. The
layers here are copies with their own weights, so the model as loaded stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from unet_export.errors import ExportError
from unet_export.source_model import import_keras

_FIRST, _LAST = "channels_first", "channels_last"
_CHANNEL_AXIS = 1
"""Axis of the channels in (n, channels, h, w)."""

_REORDERING = ("Reshape", "Permute", "Flatten")
"""Layers that mean other axes where the channels are last."""


def flatten(model: Any, image: Any) -> Any:
    """The model's outputs for the symbolic ``image``, which has the shape and dtype that the model takes.

    Layers called after those of ``model``; what several nested models have under one name gets the nested model's name
    in front. A model that is no graph of layers (subclassed) is called as a whole.
    """
    graph = functional(model)
    return model(image, training=False) if graph is None else _Copier(moved=False).run(graph, image)


def flatten_channels_last(model: Any, image: Any) -> Any:
    """As ``flatten``, of a model of channels first: ``image`` is (n, h, w, channels), and so are the outputs."""
    return _Copier(moved=True).run(functional(model), image)


def is_channels_first(model: Any) -> bool:
    """Whether the model's layers compute with channels first."""
    graph = functional(model)
    return graph is not None and any(getattr(layer, "data_format", _LAST) == _FIRST for layer in _layers(graph))


def functional(model: Any) -> Any | None:
    """The graph of a functional or sequential model; None for any other."""
    keras = import_keras()
    if isinstance(model, keras.Sequential):
        return model._functional if model.built else None
    return model if hasattr(model, "_run_through_graph") else None


def _layers(graph: Any) -> list[Any]:
    found: list[Any] = []
    for layer in graph.layers:
        inner = functional(layer)
        found += _layers(inner) if inner is not None else [layer]
    return found


_OURS = ("image", "rescale", "pixels", "preprocess", "two_classes", "enlarge", "as_map", "probabilities")
"""Names of what is put before and behind a model."""


class _Copier:
    """Copies of layers, each made once, so that a layer that is called twice stays one layer."""

    def __init__(self, *, moved: bool) -> None:
        self._moved = moved
        self._copies: dict[int, Any] = {}
        self._names = set(_OURS)

    def run(self, graph: Any, image: Any) -> Any:
        self._names.update(operation.name for operation in graph.operations if functional(operation) is None)
        return graph._run_through_graph([image], call_fn=self._caller(""))

    def _caller(self, prefix: str) -> Callable[..., Any]:
        def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
            inner = functional(operation)
            if inner is not None and not kwargs.get("training"):  # "training=True" is part of what it computes
                inputs = import_keras().tree.flatten((args, kwargs.get("inputs", ())))
                tensors = [tensor for tensor in inputs if hasattr(tensor, "_keras_history")]
                return inner._run_through_graph(tensors, call_fn=self._caller(f"{prefix}{operation.name}_"))
            return self._apply(operation, prefix, args, kwargs)

        return call

    def _apply(self, operation: Any, prefix: str, args: Any, kwargs: Any) -> Any:
        made = self._copies.get(id(operation))
        if made is not None:
            return made(*args, **kwargs)
        made = self._copy(operation, prefix)
        self._copies[id(operation)] = made
        result = made(*args, **kwargs)
        if isinstance(operation, import_keras().Layer) and type(made) is type(operation):
            made.set_weights(_filled(operation.get_weights(), made))
        return result

    def _copy(self, operation: Any, prefix: str) -> Any:
        name = operation.name
        if prefix and name in self._names:
            name = f"{prefix}{name}"
        while name in self._names if prefix else name in _OURS:
            name += "_"
        self._names.add(name)
        if not isinstance(operation, import_keras().Layer):
            return _bare_copy(operation, name)
        if (rescaling := _as_rescaling(operation, name)) is not None:
            return rescaling
        config = as_float32(operation.get_config()) | {"name": name}
        if type(operation).__name__ == "Conv2DTranspose":
            config = _as_large_as_its_stride(config)
        if self._moved:
            config = _channels_last(operation, config)
        return type(operation).from_config(config)


def _as_rescaling(layer: Any, name: str) -> Any | None:
    """A Normalization as the factor and offset for each channel that it is; None for all others.

    Its mean and variance follow from its weights when a file is loaded, and from nothing when the weights are set.
    """
    if type(layer).__name__ != "Normalization" or layer.invert or layer.mean is None:
        return None
    ops = import_keras().ops
    mean, variance = (np.asarray(ops.convert_to_numpy(values)) for values in (layer.mean, layer.variance))
    if max(mean.size, variance.size) != max(1, *mean.shape[-1:], *variance.shape[-1:]):
        return None  # along another axis than the channels
    deviation = np.maximum(np.sqrt(variance), import_keras().config.epsilon())
    scale, offset = np.broadcast_arrays(1 / deviation.ravel(), -mean.ravel() / deviation.ravel())
    return import_keras().layers.Rescaling(scale.tolist(), offset.tolist(), name=name)


def _as_large_as_its_stride(config: dict[str, Any]) -> dict[str, Any]:
    """A transposed convolution whose kernel has the size of its stride at least: the same one, filled up with zeros.

    tf2onnx writes negative pads, which no engine takes, for a stride above the kernel.
    """
    if config["padding"] != "same" and config.get("output_padding") is not None:
        return config
    sizes = tuple(map(max, config["kernel_size"], config["strides"]))
    return config | {"kernel_size": sizes}


def _filled(weights: list[Any], layer: Any) -> list[Any]:
    """The weights of a layer, a kernel filled up with zeros behind where the layer's own is larger."""
    if type(layer).__name__ != "Conv2DTranspose":
        return weights
    kernel = np.zeros(layer.kernel.shape, np.float32)  # (h, w, out, in)
    height, width = weights[0].shape[:2]
    kernel[:height, :width] = weights[0]
    return [kernel, *weights[1:]]


def _bare_copy(operation: Any, name: str) -> Any:
    """A keras.ops call on symbolic tensors, without the edges that it has in the old graph."""
    made = copy.copy(operation)
    made.name = name
    made._inbound_nodes, made._outbound_nodes = [], []
    return made


def as_float32(value: Any) -> Any:
    """A layer's description with float32 in place of a mixed precision, at any depth."""
    if isinstance(value, dict):
        if value.get("class_name") == "DTypePolicy":
            return "float32" if "float" in str(value.get("config")) else value
        return {key: as_float32(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(as_float32, value))
    return "float32" if value in ("mixed_float16", "mixed_bfloat16") else value


def _channels_last(layer: Any, config: dict[str, Any]) -> dict[str, Any]:
    kind = type(layer).__name__
    if kind in _REORDERING:
        raise ExportError(
            f"layer {layer.name} ({kind}) arranges axes, and the model computes with channels first, which the CPU and "
            "LiteRT do not: build the model with data_format channels_last, and copy the weights"
        )
    if config.get("data_format") == _FIRST:
        config["data_format"] = _LAST
    if config.get("axis") in (_CHANNEL_AXIS, [_CHANNEL_AXIS]) and len(layer.output.shape) == 4:
        config["axis"] = -1
    return config

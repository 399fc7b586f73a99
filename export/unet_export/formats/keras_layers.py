"""Conversion by tf2onnx that knows of every node which Keras layer it comes from.

A TensorFlow node's name has the scopes of its layers in it, made unique: ``unet_1/conv2d_1/convolution`` may come from
``conv2d`` or from ``conv2d_1``. So layers are marked for the time of the conversion: scope ``conv2d._1`` belongs to
layer ``conv2d``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper

from unet_export.errors import ExportError
from unet_export.formats.saved_model import all_layers, serving, signature
from unet_export.source_model import INPUT_NAME
from unet_runtime.core.text import one_line

_MARK = "."
_SCOPE = re.compile(r"([^/\s\[\]'\"]+)\.(?:_\d+)?(?=/)")
"""A marked layer's scope in a node's name, and in whatever text holds one."""


def layer_of(node: str) -> str:
    """The innermost layer of a node's name as ``convert`` left it; an empty string for none."""
    scopes = _SCOPE.findall(node)
    return scopes[-1] if scopes else ""


def convert(model: Any, opset: int) -> onnx.ModelProto:
    """What tf2onnx makes of the model: uint8 ``image`` -> ``probabilities``, names with marked scopes.

    Raises:
        ExportError: naming the layers that cannot be converted.
    """
    import tensorflow as tf
    import tf2onnx

    with _marked(model), _error_log() as errors:
        try:
            function, source = tf.function(serving(model)), [signature(model, None, "uint8")]
            proto, _ = tf2onnx.convert.from_function(function, source, opset=opset, custom_op_handlers=_HANDLERS)
            _store_constants(proto.graph, function.get_concrete_function(*source).graph)
        except Exception as error:  # the converter's errors share no base but Exception
            errors.append(str(error))
            cause: Exception | None = error
        else:
            cause = None
    if errors:  # without an exception: an unknown operator, which stays in the graph under TensorFlow's name
        raise _refusal(model, opset, errors) from cause
    assert isinstance(proto, onnx.ModelProto)
    return proto


def _store_constants(graph: onnx.GraphProto, source: Any) -> None:
    """Make initializers of the tensors that a function holds from outside, which tf2onnx takes for inputs, in place.

    Such are the mean and variance of Keras' Normalization: no variables, so nothing freezes them.
    """
    values = {}
    for inside, outside in zip(source.internal_captures, source.external_captures, strict=True):
        if outside.dtype.name != "resource":
            values[inside.name] = outside.numpy()
    for entry in [entry for entry in graph.input if entry.name in values]:
        graph.input.remove(entry)
        graph.initializer.append(onnx.numpy_helper.from_array(values[entry.name], entry.name))


def _erfc(context: Any, node: Any, *_: Any, **__: Any) -> None:
    """1 - erf(x), as ONNX has no erfc; it is in Keras' exact GELU."""
    shape, dtype = context.get_shape(node.output[0]), context.get_dtype(node.output[0])
    (source,), result = node.input, node.output[0]
    context.remove_node(node.name)
    erf = context.make_node("Erf", [source], name=f"{node.name}/erf", shapes=[shape], dtypes=[dtype])
    one = context.make_const(f"{node.name}/one", np.ones((), np.float32))
    context.make_node(
        "Sub", [one.output[0], erf.output[0]], outputs=[result], name=node.name, shapes=[shape], dtypes=[dtype]
    )


_HANDLERS: dict[str, tuple[Any, list[str]]] = {"Erfc": (_erfc, [])}
"""Conversions of TensorFlow operators that tf2onnx lacks."""


@contextmanager
def _marked(model: Any) -> Iterator[None]:
    layers = list(all_layers(model))
    try:
        for layer in layers:
            layer.name += _MARK
        yield
    finally:
        for layer in layers:
            layer.name = layer.name.removesuffix(_MARK)


@contextmanager
def _error_log() -> Iterator[list[str]]:
    """The errors that tf2onnx logs: only they name the node, and it does not raise for an unknown operator.

    The change that made it log: https://github.com/onnx/tensorflow-onnx/pull/599
    """
    errors: list[str] = []
    logger = logging.getLogger("tf2onnx.tfonnx")
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: errors.append(record.getMessage())  # type: ignore[method-assign]
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield errors
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _refusal(model: Any, opset: int, errors: list[str]) -> ExportError:
    import tf2onnx

    text = "; ".join(errors)
    layers = sorted(set(_SCOPE.findall(text))) or _unsupported_layers(model, opset)
    subject = f"layer {', '.join(layers)}" if layers else "the model"
    return ExportError(
        f"tf2onnx {tf2onnx.__version__} cannot convert {subject}: {one_line(text)}: use layers that ONNX {opset} can "
        "express"
    )


def _unsupported_layers(model: Any, opset: int) -> list[str]:
    """Names of the layers that tf2onnx refuses when they are converted alone."""
    import tensorflow as tf
    import tf2onnx

    unsupported = []
    for layer in model.layers:
        sources = []
        for index, tensor in enumerate(tf.nest.flatten(layer.input)):
            sources.append(tf.TensorSpec(tensor.shape, tensor.dtype, f"{INPUT_NAME}{index}"))
        with _error_log() as errors:
            try:
                tf2onnx.convert.from_function(tf.function(_call_alone(layer)), sources, opset=opset)
            except Exception as error:  # which it is does not matter: the whole model's is reported
                errors.append(str(error))
        if errors:
            unsupported.append(layer.name)
    return unsupported


def _call_alone(layer: Any) -> Any:
    def call(*tensors: Any) -> Any:
        return layer(list(tensors) if len(tensors) > 1 else tensors[0])

    return call

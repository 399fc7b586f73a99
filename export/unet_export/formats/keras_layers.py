"""Conversion by tf2onnx that knows of every node which Keras layer it comes from.

A TensorFlow node's name has the scopes of its layers in it, made unique: ``unet_1/conv2d_1/convolution`` may come from
``conv2d`` or from ``conv2d_1``. So layers are marked for the time of the conversion: scope ``conv2d._1`` is of layer
``conv2d``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import onnx

from unet_export.errors import ExportError
from unet_export.formats.saved_model import INPUT_NAME, flat, serving, signature

_MARK = "."
_SCOPE = re.compile(r"([^/\s\[\]'\"]+)\.(?:_\d+)?(?=/)")
"""A marked layer's scope in a node's name, and in whatever text holds one."""


def layer_of(node: str) -> str:
    """The innermost layer of a node's name as ``convert`` left it; an empty string for none."""
    return next(reversed(_SCOPE.findall(node)), "")


def convert(model: Any, opset: int) -> onnx.ModelProto:
    """What tf2onnx makes of the model: uint8 ``image`` -> ``probabilities``, names with marked scopes.

    Raises:
        ExportError: naming the layers that cannot be converted.
    """
    import tensorflow as tf
    import tf2onnx

    said: list[str] = []
    source = [signature(model, None, "uint8")]
    try:
        with _marked(model), _listening(said):
            proto, _ = tf2onnx.convert.from_function(tf.function(serving(model)), source, opset=opset)
    except Exception as error:  # the converter's errors share no base but Exception
        raise _refusal(model, opset, [*said, str(error)]) from error
    if said:  # an operator it does not know stays in the graph under TensorFlow's name
        raise _refusal(model, opset, said)
    assert isinstance(proto, onnx.ModelProto)
    return proto


@contextmanager
def _marked(model: Any) -> Iterator[None]:
    layers = list(flat(model))
    names = [layer.name for layer in layers]
    try:
        for layer in layers:
            layer.name += _MARK
        yield
    finally:
        for layer, name in zip(layers, names, strict=True):
            layer.name = name


@contextmanager
def _listening(said: list[str]) -> Iterator[None]:
    """Collect tf2onnx' errors: only what it logs names the node, and it does not raise for an unknown operator."""
    logger = logging.getLogger("tf2onnx.tfonnx")
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _refusal(model: Any, opset: int, said: list[str]) -> ExportError:
    import tf2onnx

    text = " ".join("; ".join(said).split())
    layers = sorted(set(_SCOPE.findall(text))) or _failing_alone(model, opset)
    named = f"layer {', '.join(layers)}" if layers else "the model"
    return ExportError(
        f"tf2onnx {tf2onnx.__version__} cannot convert {named}: {text[:300]}: use layers that ONNX {opset} can express"
    )


def _failing_alone(model: Any, opset: int) -> list[str]:
    """Names of the layers that tf2onnx refuses one by one."""
    import tensorflow as tf
    import tf2onnx

    failing = []
    for layer in model.layers:
        inputs = layer.input if isinstance(layer.input, list) else [layer.input]
        sources = [tf.TensorSpec(tensor.shape, tensor.dtype, f"{INPUT_NAME}{i}") for i, tensor in enumerate(inputs)]
        said: list[str] = []
        try:
            with _listening(said):
                tf2onnx.convert.from_function(tf.function(_alone(layer)), sources, opset=opset)
        except Exception:  # which it is does not matter: the whole model's is reported
            said.append(layer.name)
        if said:
            failing.append(layer.name)
    return failing


def _alone(layer: Any) -> Any:
    def call(*tensors: Any) -> Any:
        return layer(list(tensors) if len(tensors) > 1 else tensors[0])

    return call

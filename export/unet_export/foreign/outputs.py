"""What a foreign model gives, brought to one map of probabilities, (n, h, w, classes), by layers behind it.

The runtime needs nothing new for such a file: whatever a model leaves to its user is in the graph.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from unet_export.errors import ExportError
from unet_export.source_model import OUTPUT_NAME, import_keras
from unet_runtime.core.spec import ClassSpec

logger = logging.getLogger(__name__)

Head = Literal["auto", "softmax", "sigmoid", "logits", "labels"]
HEADS: tuple[Head, ...] = ("auto", "softmax", "sigmoid", "logits", "labels")
"""Output of a model's last layer; ``auto``: what its graph says. Logits get a softmax, of one channel a sigmoid."""

_SHAPING = ("Reshape", "Permute", "Squeeze", "ExpandDims", "Transpose", "Cropping2D", "Identity", "Cast")
"""Layers and operations that leave each value as it is."""

_ENLARGING = ("UpSampling2D", "Resizing", "Resize")

_LINEAR = (
    *("Conv2D", "Conv2DTranspose", "SeparableConv2D", "DepthwiseConv2D", "Dense"),
    *("BatchNormalization", "Add", "Subtract", "Average", "Concatenate", "ReLU", "LeakyReLU", "Rescaling"),
)
"""Layers whose output is no probability, unless they have an activation."""

_ARGMAX = ("Argmax", "ArgMax")


def softmax(logits: Any) -> Any:
    """Probabilities of classes, under the contract's name."""
    return import_keras().layers.Activation("softmax", name=OUTPUT_NAME)(logits)


def read_head(tensor: Any) -> Head:
    """What the graph says of a tensor: ``auto`` where it says nothing, as in a SavedModel or behind a custom layer."""
    while True:
        operation = maker(tensor)
        kind = type(operation).__name__
        name = activation(operation)
        if kind in ("Softmax", "Sigmoid") or name in ("softmax", "sigmoid"):
            return "softmax" if "softmax" in (kind.lower(), name) else "sigmoid"
        if kind in (*_SHAPING, *_ENLARGING) and not isinstance(operation.input, list):
            tensor = operation.input
        elif kind in _LINEAR or (kind == "Activation" and name == "linear"):
            return "logits"
        else:
            return "auto"


def maker(tensor: Any) -> Any:
    """The layer or operation that makes a symbolic tensor."""
    return tensor._keras_history.operation


def activation(operation: Any) -> str:
    """Name of a layer's activation; empty for one without."""
    function = getattr(operation, "activation", None)
    return str(getattr(function, "__name__", "")) if function is not None else ""


def without_argmax(tensor: Any) -> Any | None:
    """What the last argmax of a model decides between, (n, h, w, classes); None where there is none to be found."""
    while (operation := maker(tensor)) is not None:
        kind = type(operation).__name__
        if kind in _ARGMAX:
            source = operation.input
            rank = len(source.shape)
            return source if operation.axis in (-1, rank - 1) else None
        if kind not in _SHAPING or isinstance(operation.input, list):
            return None
        tensor = operation.input
    return None


def one_hot(labels: Any, classes: int) -> Any:
    """Class ids (n, h, w) or (n, h, w, 1) as probabilities of 0 and 1."""
    keras = import_keras()
    ops = keras.ops
    if len(labels.shape) == 4:
        labels = ops.squeeze(labels, axis=-1)
    return ops.one_hot(ops.cast(labels, "int32"), classes, dtype="float32")


def before_sigmoid(tensor: Any) -> Any | None:
    """What a sigmoid at the end of a graph is computed of, with the layers that only arrange it behind; else None."""
    behind: list[Any] = []
    while True:
        operation = maker(tensor)
        kind = type(operation).__name__
        if kind in _SHAPING and not isinstance(operation.input, list):
            behind.append(operation)
            tensor = operation.input
            continue
        if kind == "Sigmoid" or (kind == "Activation" and activation(operation) == "sigmoid"):
            return _again(operation.input, behind)
        if activation(operation) == "sigmoid" and kind in _LINEAR and not isinstance(operation.input, list):
            return _again(_linear(operation), behind)
        return None


def _linear(layer: Any) -> Any:
    """The output of a copy of a layer without its activation."""
    made = type(layer).from_config(layer.get_config() | {"activation": "linear"})
    result = made(layer.input)
    made.set_weights(layer.get_weights())
    return result


def _again(tensor: Any, operations: Sequence[Any]) -> Any:
    for operation in reversed(operations):
        tensor = operation(tensor)
    return tensor


def two_logits(logit: Any, foreground: int) -> Any:
    """One class's logit z, (n, h, w, 1), as logits of two, -z / 2 and z / 2: their softmax is the sigmoid of z.

    A convolution that makes z makes both instead; ``foreground``: id of the class that z stands for.
    """
    keras = import_keras()
    signs = np.full(2, -0.5, np.float32)
    signs[foreground] = 0.5
    head = maker(logit)
    if type(head).__name__ == "Conv2D" and activation(head) in ("", "linear"):
        made = keras.layers.Conv2D.from_config(head.get_config() | {"filters": 2})
        result = made(head.input)
        made.set_weights([values * signs for values in head.get_weights()])  # (h, w, in, 1) and (1,)
        return result
    return _one_by_one(logit, signs, np.zeros(2, np.float32))


def two_probabilities(probability: Any, foreground: int) -> Any:
    """One class's probability p, (n, h, w, 1), as those of two: p and 1 - p."""
    signs, constants = -np.ones(2, np.float32), np.ones(2, np.float32)
    signs[foreground], constants[foreground] = 1, 0
    return _one_by_one(probability, signs, constants)


def _one_by_one(tensor: Any, kernel: Any, bias: Any) -> Any:
    layer = import_keras().layers.Conv2D(2, 1, name="two_classes")
    result = layer(tensor)
    layer.set_weights([kernel.reshape(1, 1, 1, 2), bias])
    return result


def foreground_of(classes: Sequence[ClassSpec]) -> int:
    """Id of the class that a one-channel model finds: the only foreground of two, else the second."""
    roles = [entry.role for entry in classes]
    return roles.index("foreground") if roles.count("foreground") == 1 else 1


def as_map(tensor: Any, size: tuple[int, int], channels: int) -> Any:
    """A map (n, h, w, c) of what a model gives flattened, (n, h * w, c), without channels, (n, h, w), or in front.

    ``size``: of the model's input; a flattened map has its shape, or the same at a whole part of its size. Raises
    ExportError for a shape that is no map.
    """
    layers = import_keras().layers
    shape = tuple(tensor.shape[1:])
    if len(shape) == 2 and _is_grid(shape, size):
        return layers.Reshape((*shape, 1), name="with_channel")(tensor)
    if len(shape) == 2 and (grid := _grid(shape[0], size)) is not None:
        return layers.Reshape((*grid, shape[1]), name="as_map")(tensor)
    if len(shape) == 1 and (grid := _grid(shape[0] // channels, size)) is not None and shape[0] % channels == 0:
        return layers.Reshape((*grid, channels), name="as_map")(tensor)
    if len(shape) == 3 and shape[0] in (1, channels) and not _is_grid(shape[:2], size) and _is_grid(shape[1:], size):
        return layers.Permute((2, 3, 1), name="channels_last")(tensor)
    if len(shape) != 3:
        raise ExportError(
            f"its output {tuple(tensor.shape)} is no map of classes, expected (n, h, w, classes) or (n, h * w, "
            f"classes) for a photo of {size[0]}x{size[1]}: a segmentation model"
        )
    return tensor


def _is_grid(shape: Sequence[int], size: tuple[int, int]) -> bool:
    """Whether a shape is that of the input, or of a whole part of it."""
    if None in shape or 0 in shape:
        return False
    return size[0] % shape[0] == 0 and size[0] * shape[1] == size[1] * shape[0]


def _grid(count: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """The shape, a whole part of the input's, that has so many pixels."""
    for factor in range(1, min(size) + 1):
        if size[0] % factor == 0 and size[1] % factor == 0 and (size[0] // factor) * (size[1] // factor) == count:
            return size[0] // factor, size[1] // factor
    return None


def enlarge(tensor: Any, size: tuple[int, int]) -> Any:
    """A map at a whole part of the photo's size, at the photo's size: bilinear."""
    rows, columns = size[0] // tensor.shape[1], size[1] // tensor.shape[2]
    logger.info("its output has %dx%d of %dx%d pixels: enlarged in the file, bilinear", *tensor.shape[1:3], *size)
    return import_keras().layers.UpSampling2D((rows, columns), interpolation="bilinear", name="enlarge")(tensor)


def reach(predict: Callable[[Any], Any], size: tuple[int, int], result: tuple[int, int]) -> tuple[float, float]:
    """Where in the output, as (row, column), a model sees a spot at a third and a quarter of its input.

    By test pictures: noise, with and without the spot. ``predict``: uint8 (n, h, w, 3) -> (n, h', w', c).
    """
    rng = np.random.default_rng(0)
    row, column = size[0] // 3, size[1] // 4
    total = np.zeros(result)
    for _ in range(_PICTURES):
        plain = rng.integers(64, 192, (1, *size, 3), np.uint8)
        spotted = plain.copy()
        spotted[:, row - 2 : row + 3, column - 2 : column + 3] ^= 0xC0
        total += np.abs(predict(spotted) - predict(plain)).sum(axis=(0, 3))
    if not total.any():
        return float("nan"), float("nan")
    total = np.where(total > total.max() / 10, total, 0) / total.sum()
    total /= total.sum()
    return float(total.sum(axis=1) @ np.arange(result[0])), float(total.sum(axis=0) @ np.arange(result[1]))


_PICTURES = 4


def margin_of(model: Any, size: tuple[int, int], result: tuple[int, int]) -> int | None:
    """Pixels on each side that unpadded convolutions leave out; None where sizes or layers do not tell so."""
    lost = size[0] - result[0], size[1] - result[1]
    if lost[0] != lost[1] or lost[0] <= 0 or lost[0] % 2:
        return None
    return lost[0] // 2 if any(map(_is_unpadded, model.layers)) else None


def _is_unpadded(layer: Any) -> bool:
    kernel = getattr(layer, "kernel_size", ())
    if "Conv" not in type(layer).__name__ or getattr(layer, "padding", "") != "valid":
        return False
    return max(kernel, default=1) > 1 and set(layer.strides) == {1}

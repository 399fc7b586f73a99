"""Keras model -> SavedModel, the format that TensorFlow Serving and the TFLite converter read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.errors import ExportError
from unet_export.formats.base import Builder, Format
from unet_export.quantization import Quantization
from unet_export.source_model import INPUT_NAME, OUTPUT_NAME
from unet_runtime.core.artifact import read_saved_model_spec, write_saved_model_spec
from unet_runtime.core.spec import ModelSpec

SIGNATURE_NAME = "serving_default"


def export_saved_model(model: Any, spec: ModelSpec, folder: Path) -> None:
    """Write ``folder``, with the spec in ``assets.extra/``. Raises OSError.

    Signature ``serving_default``: uint8 ``image`` (batch, h, w, 3) -> float32 ``probabilities``
    (batch, h', w', classes); any batch size.
    """
    import tensorflow as tf

    write_graph(model, folder, batch=None, dtype="uint8")
    tools = {**spec.provenance.tools, "tensorflow": tf.__version__}
    write_saved_model_spec(folder, spec.with_precision("float32", tools=tools))


def write_graph(model: Any, folder: Path, *, batch: int | None, dtype: str) -> None:
    """Write a bare SavedModel of ``model`` with one signature, ``serving_default``. Raises OSError.

    The variables are listed as TensorFlow's own. TensorFlow finds only wrappers in a Keras 3 model, and the TFLite
    converter then dies in calibration (READ_VARIABLE); Keras' ExportArchive finds both, and writes every weight twice.
    The same arrangement served: https://github.com/keras-team/keras/issues/20095
    """
    import tensorflow as tf

    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    module.serve = tf.function(serving(model), input_signature=[signature(model, batch, dtype)])
    try:
        tf.saved_model.save(module, str(folder), signatures={SIGNATURE_NAME: module.serve})
    except tf.errors.OpError as error:  # TensorFlow's own file system layer knows no OSError
        raise OSError(error.message.rpartition("; ")[2]) from error  # "<node> <temporary file>; File too large"


def serving(model: Any) -> Any:
    """The model as a function whose argument and result carry the contract's names."""

    def serve(image: Any) -> dict[str, Any]:
        with _plain_operators(model):
            return {OUTPUT_NAME: model(image, training=False)}

    return serve


@contextmanager
def _plain_operators(model: Any) -> Iterator[None]:
    """For the time of a call every layer that resizes, or convolves in groups, is made of operators that every engine
    has, and computes alike.

    A nearest UpSampling2D is one resize operator: Keras repeats rows, then columns, in reshapes and tiles of five
    dimensions that no converter sees through, because the resize has no XLA kernel for its gradient:
    https://github.com/keras-team/keras/issues/18460.
    Cubic, Lanczos and area resizing are products with constant matrices: LiteRT has none of them, OpenVINO's cubic and
    tf2onnx' area are others.
    A convolution in groups is one operator: Keras has XLA compile it, behind a call that no converter looks into.
    """
    changed = []
    try:
        for layer in all_layers(model):
            if (call := _grouped(layer) or _resizing(layer)) is not None:
                vars(layer)["call"] = call
                changed.append(layer)
        yield
    finally:
        for layer in changed:
            del vars(layer)["call"]


def _grouped(layer: Any) -> Any | None:
    """What to call in place of a convolution in groups; None for all other layers."""
    if type(layer).__name__ != "Conv2D" or layer.groups == 1 or layer.data_format != "channels_last":
        return None
    return partial(_convolve, layer)


def _convolve(layer: Any, inputs: Any, **_: Any) -> Any:
    """(n, h, w, c) -> (n, h', w', filters): TensorFlow sees by the kernel's depth how many groups there are."""
    import tensorflow as tf

    x = tf.nn.conv2d(inputs, layer.kernel, layer.strides, layer.padding.upper(), dilations=layer.dilation_rate)
    if layer.use_bias:
        x = tf.nn.bias_add(x, layer.bias)
    return layer.activation(x)


_SMOOTH = ("bicubic", "lanczos3", "lanczos5", "area")


def _resizing(layer: Any) -> Any | None:
    """What to call in place of a layer that resizes; None for all others, and for those that engines compute alike."""
    kind = type(layer).__name__
    method = getattr(layer, "interpolation", "")
    if kind not in ("UpSampling2D", "Resizing") or layer.data_format != "channels_last":
        return None
    if kind == "UpSampling2D" and method == "nearest":
        return partial(_resize, layer.size)
    is_plain = not getattr(layer, "crop_to_aspect_ratio", False) and not getattr(layer, "pad_to_aspect_ratio", False)
    _, *before = layer.input.shape[:3]
    _, *after = layer.output.shape[:3]
    if method not in _SMOOTH or None in (*before, *after) or not is_plain:
        return None
    matrices = []
    for old, new in zip(before, after, strict=True):
        matrices.append(_resizing_matrix(old, new, method))
    return partial(_resize_by_products, *matrices)


def _resizing_matrix(old: int, new: int, method: str) -> npt.NDArray[np.float32]:
    """(old, new): what each of ``old`` positions along an axis contributes to each of ``new``, by TensorFlow's own."""
    import tensorflow as tf

    unit = np.eye(old, dtype=np.float32).reshape(1, old, 1, old)  # (n, h, w, channels): a position in each channel
    with tf.init_scope():
        resized = tf.image.resize(unit, (new, 1), method).numpy()  # (1, new, 1, old)
    return np.ascontiguousarray(resized[0, :, 0].T)


def _resize_by_products(rows: npt.NDArray[np.float32], columns: npt.NDArray[np.float32], inputs: Any, **_: Any) -> Any:
    """(n, h, w, c) -> (n, h', w', c); ``rows``: (h, h'), ``columns``: (w, w'); a Resizing is told whether it trains."""
    import tensorflow as tf

    x = tf.matmul(tf.transpose(inputs, (0, 3, 1, 2)), columns)  # (n, c, h, w')
    x = tf.matmul(tf.transpose(x, (0, 1, 3, 2)), rows)  # (n, c, w', h')
    return tf.transpose(x, (0, 3, 2, 1))


def _resize(factors: tuple[int, int], inputs: Any) -> Any:
    """(n, h, w, c) -> (n, h * factors[0], w * factors[1], c)."""
    import tensorflow as tf

    height = inputs.shape[1] or tf.shape(inputs)[1]
    width = inputs.shape[2] or tf.shape(inputs)[2]
    return tf.raw_ops.ResizeNearestNeighbor(images=inputs, size=[height * factors[0], width * factors[1]])


def all_layers(model: Any) -> Iterator[Any]:
    """Layers in order, those inside of nested models too; each once."""
    seen: set[int] = set()
    waiting = list(reversed(model.layers))
    while waiting:
        layer = waiting.pop()
        if id(layer) not in seen:
            seen.add(id(layer))
            yield layer
            waiting.extend(reversed(getattr(layer, "layers", [])))


def layer_names(model: Any) -> list[str]:
    """Names of all layers, those inside of nested models too."""
    return [layer.name for layer in all_layers(model)]


def signature(model: Any, batch: int | None, dtype: str) -> Any:
    """``tf.TensorSpec`` of ``image``, (batch, h, w, 3)."""
    import tensorflow as tf

    return tf.TensorSpec((batch, *model.inputs[0].shape[1:]), dtype, name=INPUT_NAME)


def _write(builder: Builder, path: Path, quantization: Quantization) -> None:
    export_saved_model(builder.model(quantization), builder.spec, path)


def _check(path: Path) -> None:
    """The digests of the files, and the precision in the spec."""
    precision = read_saved_model_spec(path).precision
    if precision != "float32":
        raise ExportError(f"{path}: its spec says precision {precision}, expected float32")


SAVED_MODEL = Format("saved-model", "float32", "", ("tensorflow",), _write, _check)

"""Keras model -> TFLite in five precisions, each fed with the photo's own bytes.

TensorFlow converts the graph; what is to be integer throughout is then quantised by ``tflite_quantize``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.calibration import sha256
from unet_export.errors import ExportError
from unet_export.formats.flatbuffer import WEIGHTS, Flatbuffer, layers_in
from unet_export.formats.saved_model import INPUT_NAME, write_graph
from unet_export.formats.tflite_check import check
from unet_export.formats.tflite_quantize import check_settings, quantize
from unet_export.keras_model import import_keras
from unet_export.quantization import Quantization
from unet_export.transforms.rounding import diffused
from unet_runtime.core.artifact import append_to_tflite
from unet_runtime.core.spec import ModelSpec, Precision

_CALIBRATED = ("int8", "int16x8")

_LOCATION = re.compile(r'"(\w+):", "([^"]+)"')
"""In the converter's complaints: (TensorFlow operator, ``unet_1/grow_1/resize/ResizeBicubic@…``)."""

_UNSUPPORTED = re.compile(r"'tf\.(\w+)' op is neither")


def export_tflite(
    model: Any,
    precision: Precision,
    spec: ModelSpec,
    images: npt.NDArray[np.uint8] | None,
    quantization: Quantization | None,
    work: Path,
) -> bytes:
    """A whole ``.tflite`` file: uint8 (1, h, w, 3) -> probabilities (1, h', w', classes).

    Probabilities are float32, of int8 and int16x8 files int16 in steps of 1/32768. Equal models and photos give equal
    bytes.

    Args:
        model: the Keras model.
        precision: ``float32``, ``float16``, ``dynamic-range``, ``int8`` or ``int16x8``.
        spec: of the model.
        images: calibration photos, uint8 (n, h, w, 3); not used, and may be None, unless int8 or int16x8.
        quantization: how those two are quantised; None: the default.
        work: a folder for what the converter reads.

    Returns:
        Its bytes, spec and digest included.

    Raises:
        ExportError: a layer that has no form in this precision, by name, or a file that is not what its precision says.
        OSError: ``work`` cannot be written.
        ValueError: int8 or int16x8 without photos.
    """
    tools = {**spec.provenance.tools, "tensorflow": version("tensorflow")}
    if precision not in _CALIBRATED:
        write_graph(model, work / precision, batch=1, dtype="uint8")
        flatbuffer = Flatbuffer(_convert(work / precision, model, precision))
        if precision == "float16":
            _round_kernels(flatbuffer, Flatbuffer(_convert(work / precision, model, "float32")))
        content = flatbuffer.pack()
        check(content, precision)
        return append_to_tflite(
            content, spec.with_precision(precision, tools=tools, calibration_sha256="", quantization={})
        )
    if images is None or not len(images):
        raise ValueError(f"{precision} without calibration photos")
    quantization = quantization or Quantization(photos=len(images))
    content = _integers(model, precision, images, quantization, work / precision)
    check(content, precision)
    tools["ai-edge-quantizer"] = version("ai-edge-quantizer")
    provenance = {"calibration_sha256": sha256(images), "quantization": quantization.as_dict()}
    return append_to_tflite(content, spec.with_precision(precision, tools=tools, **provenance))


def export_int8(model: Any, spec: ModelSpec, images: npt.NDArray[np.uint8], work: Path) -> bytes:
    """``export_tflite`` in int8 with the default quantisation."""
    return export_tflite(model, "int8", spec, images, None, work)


def _integers(
    model: Any, precision: str, images: npt.NDArray[np.uint8], quantization: Quantization, folder: Path
) -> bytes:
    names = list(layer_names(model))
    check_settings(quantization, names)
    write_graph(_with_float_input(model), folder, batch=1, dtype="float32")
    content = _convert(folder, model, "float32")
    # The answer's own layer always has int16 activations, and its name is lost: the graph's output has another.
    precise = tuple(name for name in quantization.precise if name not in model.output_names)
    return quantize(content, precision, images, replace(quantization, precise=precise), names)


def _with_float_input(model: Any) -> Any:
    """The same network fed with float32 in 0..255: only what is float can be quantised."""
    keras = import_keras()
    image = keras.Input(model.inputs[0].shape[1:], dtype="float32", name=INPUT_NAME)
    twin = keras.models.clone_model(model, input_tensors=image)
    twin.set_weights(model.get_weights())
    return twin


def _convert(folder: Path, model: Any, precision: str) -> bytes:
    """A SavedModel as a ``.tflite`` of LiteRT's own operators, weights in ``precision``."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    # No TensorFlow kernel to fall back to: LiteRT does not have them.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    try:
        return bytes(converter.convert())
    except Exception as error:  # the converter's errors share no base but Exception
        raise ExportError(
            f"TensorFlow {tf.__version__} cannot convert the model to {precision}: {_reason(str(error), model)}"
        ) from error


def _round_kernels(half: Flatbuffer, full: Flatbuffer) -> None:
    """Give the float16 file kernels rounded with care: TensorFlow rounds each value by itself."""
    pairs = zip(half.weighted(), full.weighted(), strict=True)
    for index, exact in ((half.source(one.inputs[WEIGHTS]), two.inputs[WEIGHTS]) for one, two in pairs):
        kernels = full.values(exact, np.float32)  # (out, h, w, in), of a depthwise one (1, h, w, channels)
        if half.type(index) == "FLOAT16" and kernels.ndim == 4:
            rounded = np.moveaxis(diffused(np.moveaxis(kernels, -1, 1)), 1, -1)
            half.set_values(index, rounded.astype(np.float16))


def _reason(text: str, model: Any) -> str:
    """The layers that the converter stumbles over, with their operators, or its own words where it names none."""
    refused = set(_UNSUPPORTED.findall(text))
    names = list(layer_names(model))
    found = {
        f"layer {layer} ({operator})"
        for operator, location in _LOCATION.findall(text)
        if operator in refused
        for layer in layers_in(location, names)
    }
    if found:
        return f"{', '.join(sorted(found))}: LiteRT has no such operator, replace the layer"
    return " ".join(text.split())[:300]


def layer_names(model: Any) -> Iterator[str]:
    """Of every Keras layer, those inside a nested model included."""
    for layer in model.layers:
        yield layer.name
        if hasattr(layer, "layers"):
            yield from layer_names(layer)

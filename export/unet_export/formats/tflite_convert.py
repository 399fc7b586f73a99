"""Keras model -> TFLite in five precisions, each fed with the photo's own bytes.

TensorFlow converts the graph; what is to be integer throughout is then quantised by ``tflite_quantize``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.errors import ExportError
from unet_export.formats.base import measuring_norms
from unet_export.formats.flatbuffer import WEIGHTS, Flatbuffer, layers_in
from unet_export.formats.saved_model import layer_names, write_graph
from unet_export.formats.tflite_check import float_operators
from unet_export.formats.tflite_head import center_logits, gives_logits
from unet_export.formats.tflite_quantize import check_settings, quantize, second_moments
from unet_export.photos import sha256
from unet_export.quantization import Quantization
from unet_export.source_model import copy_with_input
from unet_export.transforms.rounding import (
    MOMENT_PHOTOS,
    compensated,
    diffused,
    held_by_float16,
    nearest_float16,
    stored_as_float16,
)
from unet_runtime.core.artifact import append_to_tflite
from unet_runtime.core.spec import ModelSpec, Precision
from unet_runtime.core.text import one_line

CALIBRATED = ("int8", "int16x8", "mixed")
"""Precisions that need calibration photos."""

_LOCATION = re.compile(r'"(\w+):", "([^"]+)"')
"""In the converter's complaints: (TensorFlow operator, ``unet_1/grow_1/resize/ResizeBicubic@…``)."""

_UNSUPPORTED = re.compile(r"'tf\.(\w+)' op is neither")


def export_tflite(
    model: Any,
    precision: Precision,
    spec: ModelSpec,
    images: npt.NDArray[np.uint8] | None,
    quantization: Quantization,
    work: Path,
) -> bytes:
    """A whole ``.tflite`` file, spec and digest included: uint8 (1, h, w, 3) -> float32 probabilities.

    Integer files give int16 probabilities in steps of 1/32768, int8 files int8 logits unless a finer head is asked for:
    (1, h', w', classes). Equal models and photos give equal bytes.

    Args:
        model: the Keras model.
        precision: ``float32``, ``float16``, ``dynamic-range``, ``int8``, ``mixed`` or ``int16x8``.
        spec: of the model.
        images: calibration photos, uint8 (n, h, w, 3), for int8 and int16x8; for float16 some, or None, which
            rounds 1x1 kernels less well; not used by the others.
        quantization: settings of those two.
        work: a folder for what the converter reads.

    Raises:
        ExportError: a layer that has no form in this precision, by name.
        OSError: ``work`` cannot be written.
    """
    folder = work / precision
    tools = {**spec.provenance.tools, "tensorflow": version("tensorflow")}
    provenance: dict[str, Any] = {}
    if precision in CALIBRATED:
        assert images is not None
        content = _integers(model, precision, images, quantization, folder)
        spec = replace(spec, output=replace(spec.output, logits=gives_logits(content)))
        tools["ai-edge-quantizer"] = version("ai-edge-quantizer")
        provenance = {"calibration_sha256": sha256(images), "quantization": quantization.as_dict()}
        if precision == "mixed":
            provenance["quantization"]["float"] = float_operators(Flatbuffer(content))
    else:
        write_graph(model, folder, batch=1, dtype="uint8")
        # The weights of float16 are stored here: TensorFlow rounds each value by itself, those of biases too.
        flatbuffer = Flatbuffer(_convert(folder, model, "float32" if precision == "float16" else precision))
        if precision == "float16":
            moments = {}
            if images is not None:
                moments = second_moments(flatbuffer, images[:MOMENT_PHOTOS])
                provenance = {"calibration_sha256": sha256(images[:MOMENT_PHOTOS])}
            flatbuffer.store_float16(dict(_rounded_kernels(flatbuffer, moments)))
        elif precision == "float32":
            center_logits(flatbuffer)  # as its int8 file's, so that the two can be compared layer by layer
        content = flatbuffer.pack()
    return append_to_tflite(content, spec.with_precision(precision, tools=tools, **provenance))


def _integers(
    model: Any, precision: str, images: npt.NDArray[np.uint8], quantization: Quantization, folder: Path
) -> bytes:
    names = layer_names(model)
    check_settings(quantization, names)
    # Only what is float can be quantised: the same network fed with float32 in 0..255.
    write_graph(copy_with_input(model, model.inputs[0].shape[1:], "float32"), folder, batch=1, dtype="float32")
    content = _convert(folder, model, "float32")
    # The activation of the last layer has another name in the file: that of the graph's output.
    precise = tuple(name for name in quantization.precise if name not in model.output_names)
    finer = quantization.finer_head or len(precise) < len(quantization.precise)
    settings = replace(quantization, precise=precise, finer_head=finer)
    floats = measuring_norms(model) if precision == "mixed" else ()
    return quantize(content, precision, images, settings, names, floats)


def _convert(folder: Path, model: Any, precision: str) -> bytes:
    """A SavedModel as a ``.tflite`` of LiteRT's own operators, weights in ``precision``."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    # No TensorFlow kernel to fall back to: LiteRT does not have them.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    try:
        content = bytes(converter.convert())
    except Exception as error:  # the converter's errors share no base but Exception
        raise ExportError(
            f"TensorFlow {tf.__version__} cannot convert the model to {precision}: {_reason(str(error), model)}"
        ) from error
    flatbuffer = Flatbuffer(content)
    return flatbuffer.pack() if flatbuffer.flatten_biases() else content


def _rounded_kernels(
    flatbuffer: Flatbuffer, moments: Mapping[int, npt.NDArray[np.float64]]
) -> Iterator[tuple[int, npt.NDArray[np.float16]]]:
    """(tensor, values of float16) of the kernels that a float16 file rounds; ``moments`` of the inputs of 1x1 ones.

    Kernels that float16 cannot hold stay float32, as the smallest do.
    """
    kernels = {entry.inputs[WEIGHTS] for entry in flatbuffer.weighted()}
    sizes = {index: flatbuffer.size(index) for index in kernels if flatbuffer.constant(index)}
    for index in stored_as_float16(sizes):
        values = flatbuffer.values(index, np.float32)
        if not held_by_float16(values):
            continue
        if index in moments:
            values = compensated(values.reshape(len(values), -1), moments[index], nearest_float16).reshape(values.shape)
        elif values.ndim == 4:  # (out, h, w, in), depthwise (1, h, w, channels)
            values = np.moveaxis(diffused(np.moveaxis(values, -1, 1)), 1, -1)
        yield index, values.astype(np.float16)


def _reason(text: str, model: Any) -> str:
    """The layers that the converter stumbles over, with their operators, or its own words where it names none."""
    refused = _UNSUPPORTED.findall(text)
    names = layer_names(model)
    found: set[str] = set()
    for operator, location in _LOCATION.findall(text):
        if operator in refused:
            found.update(f"layer {layer} ({operator})" for layer in layers_in(location, names))
    if found:
        return f"{', '.join(sorted(found))}: LiteRT has no such operator, replace the layer"
    return one_line(text)

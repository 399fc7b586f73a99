"""A float ``.tflite`` -> one with integers throughout, by ai-edge-quantizer, on ranges measured here.

The head, from the last trained operator to the probabilities, works on int16: the 256 levels of int8 are too few to
tell two nearly equal classes apart, and ties go to the lower id.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, filterfalse
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import qtyping, quantizer

from unet_export.errors import ExportError
from unet_export.formats.flatbuffer import WEIGHTED, WEIGHTS, Flatbuffer, Operator, layers_in
from unet_export.quantization import TFLITE_METHODS, Quantization
from unet_runtime.core.text import one_line

_PERCENTILE = 99.99
"""Percentile of an activation's values at the high end, and as much at the low end: the rest is clipped."""

_SAMPLES = 4096
"""Values of an activation that a photo contributes to the percentile."""

_LEAST_RANGE = 2.0**-16
"""Smallest range of an activation, as a share of the range of what it is computed from."""

_BIAS_STEPS = {8: 2.0**30, 16: 2.0**44}
"""Bits of an operator's input -> the largest bias in units of that input's scale times its channel's weight scale.

Biases are int32 and int64; LiteRT's factors go down to 2**-31, which leaves 16 bits of the output."""

_PIXEL_RANGE = (0.0, 255.0)
"""Range of the input, whatever the photos show: int8 then has scale 1 and zero point -128, the photo's own bytes."""

_INT16_RANGE = (-32767.0, 32767.0)
"""The same in int16: scale 1."""


def quantize(
    content: bytes, precision: str, images: npt.NDArray[np.uint8], quantization: Quantization, layers: Iterable[str]
) -> bytes:
    """A ``.tflite`` of integers: uint8 (1, h, w, 3) -> int16 probabilities (1, h', w', classes) in 1/32768.

    Args:
        content: the float file, whose input is float32 in 0..255.
        precision: ``int8`` or ``int16x8``.
        images: calibration photos, uint8 (n, h, w, 3).
        quantization: ``precise`` layers get int16 activations.
        layers: names of all Keras layers.

    Raises ExportError for a precise layer without an operator, values that are not finite, or what ai-edge-quantizer
    refuses.
    """
    flatbuffer = Flatbuffer(content)
    wide = precision == "int16x8"
    precise = [*head(flatbuffer), *_precise(flatbuffer, quantization.precise, set(layers))]
    ranges = _wide_enough(flatbuffer, dict(measure(flatbuffer, content, images, quantization.method)))
    (source,) = flatbuffer.graph.inputs
    ranges[flatbuffer.name(source)] = _INT16_RANGE if wide else _PIXEL_RANGE
    if _let_biases_fit(flatbuffer, ranges, flatbuffer.weighted() if wide else precise):
        content = flatbuffer.pack()
    limits = {}
    for name, (low, high) in ranges.items():
        limits[name] = {"min": np.array([low]), "max": np.array([high])}
    try:
        with _quiet():
            worker = quantizer.Quantizer(content)
            _add_rules(worker, flatbuffer, precise, wide)
            result = worker.quantize(limits, enable_progress_bar=False, enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError) as error:
        message = f"ai-edge-quantizer cannot quantise the model to {precision}: {one_line(error)}"
        raise ExportError(message) from error
    quantized = Flatbuffer(bytes(result.quantized_model))
    _fill_long_biases(quantized, flatbuffer)
    if wide:
        quantized.feed_bytes(flatbuffer.name(source))
    return quantized.pack()


def check_settings(quantization: Quantization, layers: Iterable[str]) -> None:
    """Raise ExportError for an unknown method, or a precise layer that is none of the model's ``layers``."""
    if quantization.method not in TFLITE_METHODS:
        raise ExportError(
            f"calibration method {quantization.method}: a .tflite has {' and '.join(TFLITE_METHODS)}, "
            "choose one of them"
        )
    known = set(layers)
    if unknown := set(quantization.precise) - known:
        raise ExportError(f"precise layers {', '.join(sorted(unknown))}: the model has {', '.join(sorted(known))}")


def head(flatbuffer: Flatbuffer) -> list[Operator]:
    """The operators from the probabilities back to the last with weights, where one operator feeds the next."""
    operators: list[Operator] = []
    (index,) = flatbuffer.graph.outputs
    while (entry := flatbuffer.producers.get(int(index))) is not None:
        sources = list(filterfalse(flatbuffer.constant, entry.inputs))
        if entry.kind not in WEIGHTED and len(sources) != 1:
            break
        operators.append(entry)
        if entry.kind in WEIGHTED:
            break
        (index,) = sources
    return operators


def measure(
    flatbuffer: Flatbuffer, content: bytes, images: npt.NDArray[np.uint8], method: str
) -> Iterator[tuple[str, tuple[float, float]]]:
    """(name, (lowest, highest)) of every activation of a float file on ``images``. Raises ExportError if not finite."""
    written = chain(flatbuffer.graph.inputs, *(entry.outputs for entry in flatbuffer.operators))
    tensors = [int(index) for index in written if flatbuffer.type(index) == "FLOAT32"]
    ends: dict[int, list[tuple[float, float]]] = defaultdict(list)
    samples: dict[int, list[npt.NDArray[np.float32]]] = defaultdict(list)
    for index, value in _activations(content, tensors, images):
        ends[index].append((float(value.min()), float(value.max())))
        if method == "percentile":
            samples[index].append(sample(value))
    for index in tensors:  # in the order of execution, so that the first that is not finite is named
        limits = np.array(ends[index])  # (n, 2)
        if not np.isfinite(limits).all():
            raise ExportError(f"calibration: {flatbuffer.name(index)} has values that are not finite on these photos")
        low, high = limits[:, 0].min(), limits[:, 1].max()
        if method == "percentile":
            low, high = np.percentile(np.concatenate(samples[index]), (100 - _PERCENTILE, _PERCENTILE))
        yield flatbuffer.name(index), (float(low), float(high))


def _wide_enough(flatbuffer: Flatbuffer, ranges: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """The ranges, widened where an activation's is much smaller than that of what it is computed from.

    A ReLU that gives 0 on every calibration photo has no range at all: its scale would be next to nothing, and LiteRT
    aborts the process where the factor between two scales is beyond its fixed-point numbers. The same abort on huge
    scales: https://github.com/tensorflow/tensorflow/issues/62196
    """
    result = dict(ranges)
    for entry in flatbuffer.operators:
        widths = [_width(flatbuffer, index, result) for index in entry.inputs]
        least = max(widths, default=0.0) * _LEAST_RANGE
        for name in map(flatbuffer.name, entry.outputs):
            low, high = result.get(name, (0.0, least))
            if high - low < least:
                result[name] = (low, low + least)
    return result


def _let_biases_fit(flatbuffer: Flatbuffer, ranges: dict[str, tuple[float, float]], wide: Sequence[Operator]) -> bool:
    """Raise a channel's largest weight where its bias would overflow in units of it; True if there was such a channel.

    Training with weight decay leaves channels with a bias and next to no weights, whose scale then is next to nothing
    too. The weight put in adds less than 3e-5 of the bias, in int16 less than 1e-6. ONNX Runtime's quantiser does the
    same: https://github.com/microsoft/onnxruntime/pull/22020
    """
    changed = False
    for entry in flatbuffer.weighted():
        bias = _bias(entry)
        if bias is None or flatbuffer.type(entry.inputs[WEIGHTS]) != "FLOAT32":
            continue
        low, high = ranges[flatbuffer.name(entry.inputs[2 if entry.kind == "TRANSPOSE_CONV" else 0])]
        bits = 16 if entry in wide else 8
        scale = (max(high, 0.0) - min(low, 0.0) if bits == 8 else 2 * max(abs(low), abs(high))) / (2**bits - 1)
        if not scale:
            continue
        values = flatbuffer.values(entry.inputs[WEIGHTS], np.float32)
        axis = values.ndim - 1 if entry.kind == "DEPTHWISE_CONV_2D" else 0  # of the output's channels
        weights = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).copy()  # (channels, the rest)
        least = 127 * np.abs(flatbuffer.values(bias, np.float32)) / (scale * _BIAS_STEPS[bits])  # (channels,)
        largest = np.abs(weights).argmax(axis=1)
        small = np.flatnonzero(np.abs(weights[range(len(weights)), largest]) < least)
        if small.size:
            weights[small, largest[small]] = least[small]
            rest = np.delete(values.shape, axis)
            values = np.moveaxis(weights.reshape(-1, *rest), 0, axis)
            flatbuffer.set_values(entry.inputs[WEIGHTS], values)
            changed = True
    return changed


def _fill_long_biases(quantized: Flatbuffer, flatbuffer: Flatbuffer) -> None:
    """Fill in the int64 biases of operators on int16, which ai-edge-quantizer clips as if they were int32.

    See ``symmetric_quantize_bias_tensor`` in its algorithms/uniform_quantize/uniform_quantize_tensor.py.
    """
    for entry, original in zip(quantized.weighted(), flatbuffer.weighted(), strict=True):
        bias, source = _bias(entry), _bias(original)
        if bias is None or source is None or quantized.type(bias) != "INT64":
            continue
        counts = quantized.values(bias, np.int64)  # (channels,)
        scales = np.array(quantized.graph.tensors[bias].quantization.scale, np.float64)
        whole = np.rint(flatbuffer.values(source, np.float32) / scales).astype(np.int64)
        quantized.set_values(bias, np.where(np.abs(counts) < 2**31 - 1, counts, whole))


def _bias(entry: Operator) -> int | None:
    """The bias tensor of an operator with weights, if it has one."""
    place = 3 if entry.kind == "TRANSPOSE_CONV" else 2  # (size, weights, x, bias), the others (x, weights, bias)
    return entry.inputs[place] if len(entry.inputs) > place else None


def _width(flatbuffer: Flatbuffer, index: int, ranges: dict[str, tuple[float, float]]) -> float:
    """Width of the range of an operator's input, be it a constant."""
    if flatbuffer.type(index) != "FLOAT32":
        return 0.0
    if flatbuffer.constant(index):
        return 2.0 * float(np.abs(flatbuffer.values(index, np.float32)).max(initial=0.0))
    low, high = ranges[flatbuffer.name(index)]
    return high - low


def sample(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """About ``_SAMPLES`` of an activation's values, (1, h, w, channels), from all channels alike."""
    step = max(1, value.size // _SAMPLES)
    channels = value.shape[-1] if value.ndim else 1
    while math.gcd(step, channels) > 1:  # a step that shares a factor meets some channels only
        step += 1
    return value.ravel()[::step].copy()


def _activations(
    content: bytes, tensors: list[int], images: npt.NDArray[np.uint8]
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """(index, values) of each tensor, photo after photo."""
    with _quiet():
        interpreter: Any = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]["index"]
    for image in images:
        interpreter.set_tensor(source, image[np.newaxis].astype(np.float32))  # (1, h, w, 3) in 0..255
        interpreter.invoke()
        for index in tensors:
            yield index, interpreter.get_tensor(index)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without LiteRT's warning that an interpreter which keeps all tensors is meant for debugging."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*experimental_preserve_all_tensors", category=UserWarning)
        yield


def _precise(flatbuffer: Flatbuffer, names: tuple[str, ...], layers: set[str]) -> Iterator[Operator]:
    """Operators of the Keras layers ``names``."""
    for name in names:
        found = False
        for entry in flatbuffer.operators:
            if name in layers_in(flatbuffer.name(entry.outputs[0]), layers):
                found = True
                yield entry
        if not found:
            raise ExportError(
                f"precise layer {name}: the .tflite has no operator of that name, the converter folded it into another "
                "layer's: name that one"
            )


def _add_rules(worker: Any, flatbuffer: Flatbuffer, precise: list[Operator], wide: bool) -> None:
    """Rules of ai-edge-quantizer, later ones before earlier ones; an operator goes by the names of its outputs."""
    names = qtyping.TFLOperationName
    worker.add_static_config(".*", names.ALL_SUPPORTED, activation_num_bits=16 if wide else 8, weight_num_bits=8)
    worker.add_static_config(".*", names.OUTPUT, activation_num_bits=16, weight_num_bits=8)
    if not wide:
        pixels = qtyping.TensorQuantizationConfig(8, symmetric=False, dtype=qtyping.TensorDataType.UINT)
        weights = qtyping.TensorQuantizationConfig(8, granularity=qtyping.QuantGranularity.CHANNELWISE)
        settings = qtyping.OpQuantizationConfig(pixels, weights, qtyping.ComputePrecision.INTEGER)
        worker.update_quantization_recipe(".*", names.INPUT, settings)
    for entry in precise:
        scope = re.escape("".join(f"{flatbuffer.name(index)};" for index in entry.outputs))
        worker.add_static_config(f"^{scope}$", names.ALL_SUPPORTED, activation_num_bits=16, weight_num_bits=8)

"""A float ``.tflite`` -> one with integers throughout, by ai-edge-quantizer, on ranges measured here.

The 256 levels of int8 are too few to tell two nearly equal classes apart, and ties go to the lower id. So an int8 file
ends with its logits, in the narrowest range that decides between classes (``tflite_head.py``), and the runtime computes
the activation in float; or, if asked for, its head works on int16 from the last weights on.
"""

from __future__ import annotations

import math
import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, filterfalse
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.schema_py_generated import BuiltinOperator
from ai_edge_quantizer import qtyping, quantizer
from ai_edge_quantizer.utils import tfl_flatbuffer_utils

from unet_export.errors import ExportError
from unet_export.formats.flatbuffer import BIAS, WEIGHTS, Flatbuffer, Operator, layers_in
from unet_export.formats.tflite_head import center_logits, decisive, head, without_activation
from unet_export.quantization import TFLITE_METHODS, Quantization
from unet_export.transforms.bias_shift import bias_shift
from unet_export.transforms.rounding import moments
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

_BIAS_TYPES = {"INT32": np.int32, "INT64": np.int64}

_NO_QUANTIZATION = "no_quantize"
"""ai-edge-quantizer's name of what it does with operators that stay float."""

_PIXEL_RANGE = (0.0, 255.0)
"""Range of the input, whatever the photos show: int8 then has scale 1 and zero point -128, the photo's own bytes."""

_INT16_RANGE = (-32767.0, 32767.0)
"""The same in int16: scale 1."""


def quantize(
    content: bytes,
    precision: str,
    images: npt.NDArray[np.uint8],
    quantization: Quantization,
    layers: Iterable[str],
    floats: Iterable[str] = (),
) -> bytes:
    """A ``.tflite`` of integers: uint8 (1, h, w, 3) -> (1, h', w', classes), int8 logits.

    In int16x8, and in int8 with a finer head, int16 probabilities in 1/32768. Where the model ends with another
    activation than softmax and sigmoid, int8 probabilities.

    Args:
        content: the float file, whose input is float32 in 0..255.
        precision: ``int8``, ``mixed`` (the same, where operators without an int8 kernel stay float) or ``int16x8``.
        images: calibration photos, uint8 (n, h, w, 3).
        quantization: ``precise`` layers get int16 activations.
        layers: names of all Keras layers.
        floats: names of those that compute in float, in a mixed file.

    Raises ExportError for a precise layer without an operator, values that are not finite, or what ai-edge-quantizer
    refuses.
    """
    flatbuffer = Flatbuffer(content)
    wide = precision == "int16x8"
    precise = list(_precise(flatbuffer, quantization.precise, set(layers)))
    decided = 0.0
    if wide or quantization.finer_head or set(head(flatbuffer)).intersection(precise):
        precise = [*head(flatbuffer), *precise]
    else:
        center_logits(flatbuffer)
        flatbuffer, decided = without_activation(flatbuffer)
        content = flatbuffer.pack()
    measured = dict(measure(flatbuffer, content, images, quantization.method, decided))
    ranges = _wide_enough(flatbuffer, {name: entry.range for name, entry in measured.items()})
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
            if precision == "mixed":
                _add_floats(worker, _islands(flatbuffer, set(floats)), flatbuffer)
            result = worker.quantize(limits, enable_progress_bar=False, enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError) as error:
        message = f"ai-edge-quantizer cannot quantise the model to {precision}: {one_line(error)}"
        raise ExportError(message) from error
    quantized = Flatbuffer(bytes(result.quantized_model))
    _fill_long_biases(quantized, flatbuffer)
    if not quantization.finetune_steps:  # its biases have learnt with rounded weights
        _correct_biases(quantized, flatbuffer, measured)
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


class Measured(NamedTuple):
    """An activation on the calibration photos."""

    range: tuple[float, float]
    """Lowest and highest value."""
    means: npt.NDArray[np.float64]
    """Mean of each channel, (channels,)."""


def measure(
    flatbuffer: Flatbuffer, content: bytes, images: npt.NDArray[np.uint8], method: str, decided: float = 0
) -> Iterator[tuple[str, Measured]]:
    """Every activation of a float file on ``images``, by name. Raises ExportError if one is not finite.

    ``decided``: of a file that gives logits, the size at which one decides its pixel, see ``tflite_head.decisive``.
    """
    logits = set(chain(*(entry.outputs for entry in head(flatbuffer)))) if decided else set()
    written = chain(flatbuffer.graph.inputs, *(entry.outputs for entry in flatbuffer.operators))
    tensors = [int(index) for index in written if flatbuffer.type(index) == "FLOAT32"]
    ends: dict[int, list[tuple[float, float]]] = defaultdict(list)
    sums: dict[int, npt.NDArray[np.float64]] = {}
    samples: dict[int, list[npt.NDArray[np.float32]]] = defaultdict(list)
    for index, value in _activations(content, tensors, images):
        if index in logits and np.isfinite(value).all():
            value = decisive(value, decided)
        ends[index].append((float(value.min()), float(value.max())))
        sums[index] = sums.get(index, 0.0) + _channel_means(value)
        if method == "percentile":
            samples[index].append(sample(value))
    for index in tensors:  # in the order of execution, so that the first that is not finite is named
        limits = np.array(ends[index])  # (n, 2)
        if not np.isfinite(limits).all():
            raise ExportError(f"calibration: {flatbuffer.name(index)} has values that are not finite on these photos")
        low, high = limits[:, 0].min(), limits[:, 1].max()
        if method == "percentile":
            low, high = np.percentile(np.concatenate(samples[index]), (100 - _PERCENTILE, _PERCENTILE))
        yield flatbuffer.name(index), Measured((float(low), float(high)), sums[index] / len(images))


def _channel_means(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(..., channels) -> (channels,)."""
    channels = value.shape[-1] if value.ndim else 1
    means: npt.NDArray[np.float64] = value.reshape(-1, channels).mean(axis=0, dtype=np.float64)
    return means


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


def _correct_biases(quantized: Flatbuffer, flatbuffer: Flatbuffer, measured: Mapping[str, Measured]) -> None:
    """Let biases take up what rounding the weights does to a layer's mean, see ``bias_shift``."""
    for entry, original in zip(quantized.weighted(), flatbuffer.weighted(), strict=True):
        bias = _bias(entry)
        source = original.inputs[2 if entry.kind == "TRANSPOSE_CONV" else 0]
        if bias is None or quantized.type(bias) not in _BIAS_TYPES or flatbuffer.name(source) not in measured:
            continue
        exact = flatbuffer.values(original.inputs[WEIGHTS], np.float32)
        depthwise = entry.kind == "DEPTHWISE_CONV_2D"
        scales = np.array(quantized.graph.tensors[entry.inputs[WEIGHTS]].quantization.scale, np.float64)
        along = scales if depthwise else scales.reshape(-1, *[1] * (exact.ndim - 1))
        error = exact - quantized.values(entry.inputs[WEIGHTS], np.int8) * along
        means = measured[flatbuffer.name(source)].means
        if depthwise:  # (1, h, w, channels)
            shift = bias_shift(np.moveaxis(error, 3, 0), means, len(means))
        else:  # (out, h, w, in / groups) or (out, in)
            shift = bias_shift(np.moveaxis(error, -1, 1), means, len(means) // error.shape[-1])
        if entry.kind == "TRANSPOSE_CONV":  # of its taps each output sees those of one phase
            shift *= flatbuffer.size(source) / len(means) / (flatbuffer.size(original.outputs[0]) / len(shift))
        dtype = _BIAS_TYPES[quantized.type(bias)]
        steps = np.rint(shift / np.array(quantized.graph.tensors[bias].quantization.scale, np.float64))
        quantized.set_values(bias, quantized.values(bias, dtype) + steps.astype(dtype))


def _bias(entry: Operator) -> int | None:
    """The bias tensor of an operator with weights, if it has one."""
    place = BIAS[entry.kind]
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


def second_moments(flatbuffer: Flatbuffer, images: npt.NDArray[np.uint8]) -> dict[int, npt.NDArray[np.float64]]:
    """Mean of x * x^T, (in, in), over the pixels x of what each 1x1 convolution reads, by the tensor of its kernel."""
    kernels: dict[int, list[int]] = defaultdict(list)  # by the tensor that is read
    for entry in flatbuffer.operators:
        shape = list(map(int, flatbuffer.graph.tensors[entry.inputs[min(WEIGHTS, len(entry.inputs) - 1)]].shape))
        depth = int(flatbuffer.graph.tensors[entry.inputs[0]].shape[-1])
        if entry.kind == "CONV_2D" and shape[1:] == [1, 1, depth]:  # in one group
            kernels[entry.inputs[0]].append(entry.inputs[WEIGHTS])
    sums: dict[int, npt.NDArray[np.float64]] = {}
    for index, value in _activations(flatbuffer.pack(), sorted(kernels), images):
        share = moments(value.reshape(-1, value.shape[-1])) / len(images)
        sums[index] = sums[index] + share if index in sums else share
    found: dict[int, npt.NDArray[np.float64]] = {}
    for index, tensors in kernels.items():
        found |= dict.fromkeys(tensors, sums[index])
    return found


def _activations(
    content: bytes, tensors: list[int], images: npt.NDArray[np.uint8]
) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """(index, values) of each tensor, photo after photo."""
    with _quiet():
        interpreter: Any = Interpreter(model_content=content, experimental_preserve_all_tensors=True)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    for image in images:
        interpreter.set_tensor(source["index"], image[np.newaxis].astype(source["dtype"]))  # (1, h, w, 3) in 0..255
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
    (result,) = flatbuffer.graph.outputs
    finer = any(result in entry.outputs for entry in precise)
    worker.add_static_config(".*", names.OUTPUT, activation_num_bits=16 if finer else 8, weight_num_bits=8)
    if not wide:
        pixels = qtyping.TensorQuantizationConfig(8, symmetric=False, dtype=qtyping.TensorDataType.UINT)
        weights = qtyping.TensorQuantizationConfig(8, granularity=qtyping.QuantGranularity.CHANNELWISE)
        settings = qtyping.OpQuantizationConfig(pixels, weights, qtyping.ComputePrecision.INTEGER)
        worker.update_quantization_recipe(".*", names.INPUT, settings)
    for entry in precise:
        scope = re.escape("".join(f"{flatbuffer.name(index)};" for index in entry.outputs))
        worker.add_static_config(f"^{scope}$", names.ALL_SUPPORTED, activation_num_bits=16, weight_num_bits=8)


def _islands(flatbuffer: Flatbuffer, layers: set[str]) -> Iterator[Operator]:
    """Operators that compute in float: of some Keras layers, without an integer kernel, and what goes on from these.

    Mish is x * tanh(log(1 + exp(x))): its exponential reaches thousands, and what decides near 0 is its sum with 1, so
    that 8 bits between the exponential and the logarithm, which have no integer kernel, leave nothing.
    """
    written: set[int] = set()
    for entry in flatbuffer.operators:
        sources = list(filterfalse(flatbuffer.constant, entry.inputs))
        in_layer = layers & set(layers_in(flatbuffer.name(entry.outputs[0]), layers))
        goes_on = entry.kind in _ELEMENTWISE and sources and written.issuperset(sources)
        if in_layer or goes_on or not _has_integer_kernel(entry):
            written.update(entry.outputs)
            yield entry


_ELEMENTWISE = (
    *("ADD", "SUB", "MUL", "DIV", "SQRT", "RSQRT", "SQUARED_DIFFERENCE", "TANH", "LOGISTIC", "MAXIMUM", "MINIMUM"),
    *("RELU", "GELU", "HARD_SWISH"),
)
"""Operators that cost no more in float where what they take is float anyway: the conversion comes behind them."""


def _has_integer_kernel(entry: Operator) -> bool:
    code = getattr(BuiltinOperator, entry.kind, None)
    return code in tfl_flatbuffer_utils.TFL_OP_CODE_TO_NAME


def _add_floats(worker: Any, islands: Iterable[Operator], flatbuffer: Flatbuffer) -> None:
    """Rules that leave operators in float."""
    for entry in islands:
        scope = re.escape("".join(f"{flatbuffer.name(index)};" for index in entry.outputs))
        worker.update_quantization_recipe(
            f"^{scope}$", qtyping.TFLOperationName.ALL_SUPPORTED, algorithm_key=_NO_QUANTIZATION
        )

"""float32 ONNX graph -> int8: ``image`` stays uint8, ``probabilities`` float32, names stay.

int8 means QuantizeLinear and DequantizeLinear around every operator but the head and what scales channels (a
BatchNormalization that no convolution could take in), activations uint8, weights int8 per output channel, by default
in 7 bits. x86 without VNNI adds pairs of products in 16 bits, which 8-bit weights saturate without a word: one file
would then predict differently from one CPU to the next. With 7 bits it cannot happen, and the same file serves all:
https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html. docs/results.md has what each costs.
"""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from collections.abc import Collection, Container, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from unet_export.errors import ExportError
from unet_export.formats import onnx_graph
from unet_export.formats.base import NotIntegerError
from unet_export.formats.onnx_graph import attribute, initializers, layer_of_node, makers, nodes_of, readers, redirect
from unet_export.formats.onnx_parts import WEIGHTED, cleaned, head_layers, patch_moments, photo_means, tail_of
from unet_export.quantization import Quantization
from unet_export.source_model import INPUT_NAME
from unet_export.transforms.bias_shift import bias_shift
from unet_export.transforms.fake_quantized import LARGEST_WEIGHT
from unet_export.transforms.rounding import MOMENT_PHOTOS, rounded_integers
from unet_runtime.core.text import one_line

_CALIBRATORS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
"""ONNX Runtime's names."""

_PERCENTILE = 99.999
"""Share of an activation's values that the ``percentile`` method keeps, %."""

_SAFE_BITS = 7

_PREPROCESSED = {"onnx.quant.pre_process": "onnxruntime.quant"}
"""Tells ONNX Runtime's quantiser that there is nothing left to fold, or it warns."""


def _input_chain(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], npt.NDArray[np.float32]]:
    """How the graph begins: the nodes that only cast, scale and lay out the photo, and the factor of all together."""
    weights = initializers(graph)
    read_by = readers(graph)
    chain: list[onnx.NodeProto] = []
    factor = np.ones((), np.float32)
    tensor = INPUT_NAME
    while len(read_by.get(tensor, [])) == 1:
        node = read_by[tensor][0]
        if node.op_type == "Mul":
            constant = next(filter(weights.__contains__, node.input), None)
            value = np.zeros(0) if constant is None else numpy_helper.to_array(weights[constant])
            if value.size != 1 or not value > 0:
                break
            factor = np.asarray(factor * value.reshape(()), np.float32)
        elif node.op_type not in ("Cast", "Transpose"):
            break
        chain.append(node)
        tensor = node.output[0]
    return chain, factor


def quantize(proto: onnx.ModelProto, images: npt.NDArray[np.uint8], quantization: Quantization) -> onnx.ModelProto:
    """int8 by ONNX Runtime's static quantisation; the same arguments give the same graph, byte for byte.

    ``images``: calibration photos as fed, uint8 (n, h, w, 3); they are run one by one.

    Raises:
        ExportError: an unknown layer in ``precise``, or the quantiser fails.
    """
    from onnxruntime import quantization as ort

    source = copy.deepcopy(proto)
    onnx.helper.set_model_props(source, _PREPROCESSED)
    chain, factor = _input_chain(proto.graph)
    precise = (*head_layers(proto), *quantization.precise)
    excluded = [
        *map(attrgetter("name"), chain),
        *onnx_graph.scales(proto.graph),
        *tail_of(proto.graph),
        *nodes_of(proto, precise),
    ]
    pixels = {}
    if chain:  # the photo's own integers are the first activation's: no calibration, no rounding
        pixels[chain[-1].output[0]] = [{"scale": factor, "zero_point": np.array(0, np.uint8)}]
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):  # it prints
            path = Path(folder) / "int8.onnx"
            ort.quantize_static(
                source,
                path,
                _reader(images),
                quant_format=ort.QuantFormat.QDQ,
                per_channel=True,
                reduce_range=quantization.weight_bits == _SAFE_BITS,
                activation_type=ort.QuantType.QUInt8,
                weight_type=ort.QuantType.QInt8,
                nodes_to_exclude=excluded,
                calibrate_method=ort.CalibrationMethod[_CALIBRATORS[quantization.method]],
                extra_options={
                    # After each photo, or all activations of all photos would be in memory together:
                    # https://github.com/microsoft/onnxruntime/issues/11020
                    "CalibStridedMinMax": 1,
                    "CalibPercentile": _PERCENTILE,
                    "CalibTensorRangeSymmetric": False,
                    "TensorQuantOverrides": pixels,
                },
            )
            made = onnx.load(path)
    except OSError:
        raise
    except Exception as error:  # its errors share no base
        raise ExportError(f"ONNX Runtime cannot quantise the model ({one_line(error)})") from error
    if not quantization.finetune_steps:  # its weights and biases have learnt with rounded ones
        _round_kernels(made.graph, proto, images, quantization.weight_bits)
        _correct_biases(made.graph, proto, images)
    _feed_integers(made.graph)
    return cleaned(made, proto)


class _Integer(NamedTuple):
    """A convolution that computes in integers."""

    node: onnx.NodeProto
    source: str
    """What it reads, in the float graph."""
    kernel: str
    """Its kernel in the float graph."""


def _integer_convolutions(graph: onnx.GraphProto, exact: Container[str]) -> Iterator[_Integer]:
    """Those of a quantised graph whose kernels are among the float graph's constants ``exact``.

    A transposed convolution is none of them.
    """
    made_by = makers(graph)
    for node in graph.node:
        sources = [made_by[name] for name in node.input if name in made_by]
        if node.op_type != "Conv" or [entry.op_type for entry in sources] != 3 * ["DequantizeLinear"]:
            continue
        rounding = made_by.get(sources[0].input[0])
        kernel = sources[1].input[0].removesuffix("_quantized")
        if rounding is not None and rounding.op_type == "QuantizeLinear" and kernel in exact:
            yield _Integer(node, rounding.input[0], kernel)


def _round_kernels(graph: onnx.GraphProto, proto: onnx.ModelProto, images: npt.NDArray[np.uint8], bits: int) -> None:
    """Round the kernels of integer convolutions so that the errors of an output's weights make up for each other.

    In place; the scales stay as they are. See ``rounding.compensated``.
    """
    constants, exact = initializers(graph), initializers(proto.graph)
    made_by = makers(graph)
    found = {}
    wanted = {}
    for node, source, kernel in _integer_convolutions(graph, exact):
        measure = patch_moments(node, exact[kernel].dims)
        if measure is not None:
            found[kernel] = node
            wanted[kernel] = (source, measure)
    known = photo_means(proto, wanted, images[:: max(1, len(images) // MOMENT_PHOTOS)])
    for kernel, seen in known.items():
        held, step = made_by[found[kernel].input[1]].input[:2]
        values = numpy_helper.to_array(exact[kernel])
        outputs = (*seen.shape[:-2], -1)  # (out,), or (out, 1) of a depthwise convolution
        steps = numpy_helper.to_array(constants[step]).astype(np.float64).reshape(outputs)
        weights = values.reshape(*steps.shape, -1)
        counts = rounded_integers(weights, seen, steps, LARGEST_WEIGHT[bits])
        constants[held].CopyFrom(numpy_helper.from_array(counts.reshape(values.shape), held))


def _correct_biases(graph: onnx.GraphProto, proto: onnx.ModelProto, images: npt.NDArray[np.uint8]) -> None:
    """Let the biases of integer convolutions take up what rounding the weights does to a layer's mean, in place.

    See ``bias_shift``.
    """
    constants, exact = initializers(graph), initializers(proto.graph)
    made_by = makers(graph)
    found = list(_integer_convolutions(graph, exact))
    means = photo_means(proto, {entry.source: (entry.source, _channel_means) for entry in found}, images)
    for node, source, kernel in found:
        if source not in means:
            continue
        weights, bias = made_by[node.input[1]].input, made_by[node.input[2]].input
        values, scales = (numpy_helper.to_array(constants[name]) for name in weights[:2])  # symmetric: zero point 0
        rounded = values.astype(np.float64) * scales.reshape(-1, *[1] * (values.ndim - 1))
        shift = bias_shift(numpy_helper.to_array(exact[kernel]) - rounded, means[source], attribute(node, "group", 1))
        counts, steps = (numpy_helper.to_array(constants[name]) for name in bias[:2])
        corrected = (counts + np.rint(shift / steps)).astype(np.int32)
        constants[bias[0]].CopyFrom(numpy_helper.from_array(corrected, bias[0]))


def _channel_means(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """(n, channels, ...) -> (channels,)"""
    means: npt.NDArray[np.float64] = value.mean(axis=(0, *range(2, value.ndim)), dtype=np.float64)
    return means


def _feed_integers(graph: onnx.GraphProto) -> None:
    """Give the photo to the first DequantizeLinear, without the way through float32 and back."""
    chain, _ = _input_chain(graph)
    following = readers(graph).get(chain[-1].output[0], []) if chain else []
    if len(following) != 1 or following[0].op_type != "QuantizeLinear":  # the first layer computes in float32
        return
    tensor = INPUT_NAME
    for node in chain:
        if node.op_type == "Transpose":
            node.input[0] = tensor
            tensor = node.output[0]
    redirect(graph, following[0].output[0], tensor)


def check_quantized(proto: onnx.ModelProto, precise: Collection[str]) -> None:
    """Raise ExportError where all convolutions and matrix products compute in float.

    Raise NotIntegerError where some do that are not in ``precise``.
    """
    unasked = []
    for node in _float_products(proto):
        if layer_of_node(node.name) not in precise:
            unasked.append(f"{node.name} ({node.op_type})")
    check_mixed(proto)
    if unasked:
        raise NotIntegerError(f"the int8 graph computes in float: {', '.join(unasked)}")


def check_mixed(proto: onnx.ModelProto) -> None:
    """Raise ExportError where no convolution or matrix product is int8."""
    weighted = [node for node in proto.graph.node if node.op_type in WEIGHTED]
    if len(_float_products(proto)) == len(weighted):
        raise ExportError(
            f"the int8 graph has {len(weighted)} weighted operators, none of them int8: keep fewer precise"
        )


def layers_with_nodes(proto: onnx.ModelProto, layers: Collection[str]) -> list[str]:
    """Those of some Keras layers that have nodes in a graph."""
    known = {layer_of_node(node.name) for node in proto.graph.node}
    return list(filter(known.__contains__, layers))


def float_products(proto: onnx.ModelProto) -> list[str]:
    """Names of the convolutions and matrix products that compute in float, the head among them."""
    return list(map(attrgetter("name"), _float_products(proto)))


def _float_products(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    made_by = makers(proto.graph)
    found = []
    for node in proto.graph.node:
        sources = map(made_by.get, node.input[:2])
        integer = all(source is not None and source.op_type == "DequantizeLinear" for source in sources)
        if node.op_type in WEIGHTED and not integer:
            found.append(node)
    return found


def _reader(images: npt.NDArray[np.uint8]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        """Photo after photo, in ranges, as the strided calibration asks for them."""

        def __init__(self) -> None:
            self.waiting = iter(range(0))

        def __len__(self) -> int:
            return len(images)

        def set_range(self, start_index: int, end_index: int) -> None:
            self.waiting = iter(range(start_index, end_index))

        def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
            index = next(self.waiting, None)
            return None if index is None else {INPUT_NAME: images[index : index + 1]}

    return Reader()

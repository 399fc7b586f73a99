"""float32 ONNX graph -> float16 and int8: ``image`` stays uint8, ``probabilities`` float32, names stay.

What int8 is here: QuantizeLinear and DequantizeLinear around every operator but the head and what scales channels (a
BatchNormalization that no convolution could take in), activations uint8, weights int8 per output channel, by default
in 7 bits. x86 without VNNI adds pairs of products in 16 bits, which 8-bit weights
saturate without a word: one file would then answer differently from one CPU to the next. With 7 bits it cannot happen,
and the same file serves all. docs/results.md has what each costs.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from unet_export.errors import ExportError
from unet_export.formats.onnx_graph import in_order, layer_of_node, nodes_of, scales
from unet_export.formats.saved_model import INPUT_NAME
from unet_export.quantization import Quantization
from unet_export.transforms.rounding import diffused

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Where the arithmetic is: a file with one of these in float is not int8."""

_SHAPING = ("Resize", "Reshape", "Slice", "Pad", "Tile", "Expand", "Squeeze", "Unsqueeze")
"""Operators whose constants are sizes and positions, no weights."""

_CALIBRATORS = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}
"""ONNX Runtime's names."""

_PERCENTILE = 99.999
"""Of an activation's values that the ``percentile`` method keeps, %."""

_SAFE_BITS = 7

_PREPROCESSED = ("onnx.quant.pre_process", "onnxruntime.quant")
"""Tells ONNX Runtime's quantiser that there is nothing left to fold, or it warns."""


def to_float16(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Weights and activations in float16; the head and its softmax, a sliver of the work, stay float32.

    Args:
        proto: what ``onnx.build_onnx`` made; it is left as it is.

    Raises:
        ExportError: a weight that float16 cannot hold, or a graph that the checker refuses.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    kept = [*_tail(proto.graph), *nodes_of(proto, head_layers(proto))]
    source = _copy(proto)
    _round_kernels(source.graph, {name for node in source.graph.node if node.name in kept for name in node.input})
    made = convert_float_to_float16(
        source, keep_io_types=True, op_block_list=DEFAULT_OP_BLOCK_LIST, node_block_list=kept
    )
    _drop_round_trips(made.graph)
    return _clean(made, proto)


def _round_kernels(graph: onnx.GraphProto, kept: set[str]) -> None:
    """Bring weights to values of float16, in place, so that the converter has nothing to round in a kernel."""
    largest = float(np.finfo(np.float16).max)
    for entry in graph.initializer:
        values = onnx.numpy_helper.to_array(entry)
        if values.dtype != np.float32 or entry.name in kept:
            continue
        if np.abs(values).max(initial=0) > largest:
            raise ExportError(f"weight {entry.name} reaches {np.abs(values).max():g}, float16 ends at {largest:g}")
        if values.ndim > 2:
            entry.CopyFrom(onnx.numpy_helper.from_array(diffused(values), entry.name))


def _drop_round_trips(graph: onnx.GraphProto) -> None:
    """Between two float32 nodes the converter goes through float16 and back: connect them."""
    makers = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        down = makers.get(node.input[0]) if node.op_type == "Cast" else None
        if down is None or not down.name.endswith("_cast_to_fp16_node"):
            continue
        source = down.input[0]
        if node.output[0] in {value.name for value in graph.output}:
            maker = makers[source]
            maker.output[list(maker.output).index(source)] = node.output[0]
            _redirect(graph, source, node.output[0])
            node.output[0] = f"{source}_unused"
        else:
            _redirect(graph, node.output[0], source)


def _redirect(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for position, tensor in enumerate(node.input):
            if tensor == old:
                node.input[position] = new


def head_layers(proto: onnx.ModelProto) -> tuple[str, ...]:
    """The Keras layers with the last weights before the output: whose rounding decides between near equal classes.

    Kept in float32 they cost little (a 1x1 convolution) and lose nothing of the border class: see docs/results.md.
    """
    tail = set(_tail(proto.graph))
    feeding = {tensor for node in proto.graph.node if node.name in tail for tensor in node.input}
    heads = [node for node in proto.graph.node if node.name not in tail and set(node.output) & feeding]
    return tuple(dict.fromkeys(layer_of_node(node.name) for node in heads if layer_of_node(node.name)))


def _tail(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes after the last weights: the activation, a resizing, the layout of the output."""
    weights = {entry.name for entry in graph.initializer}
    users: dict[str, list[str]] = defaultdict(list)
    for node in graph.node:
        for tensor in node.input:
            users[tensor].append(node.name)
    tail: list[str] = []
    for node in reversed(graph.node):
        followers = [user for tensor in node.output for user in users[tensor]]
        weighted = node.op_type not in _SHAPING and weights.intersection(node.input)
        if not weighted and all(user in tail for user in followers):
            tail.append(node.name)
    return tail


def _input_chain(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], npt.NDArray[np.float32]]:
    """How the graph begins: the nodes that only cast, scale and lay out the photo, and the factor of all together."""
    weights = {entry.name: onnx.numpy_helper.to_array(entry) for entry in graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            users[name].append(node)
    chain: list[onnx.NodeProto] = []
    factor, tensor = np.ones((), np.float32), INPUT_NAME
    while len(users[tensor]) == 1:
        node = users[tensor][0]
        constants = [weights[name] for name in node.input if name in weights]
        if node.op_type == "Mul" and len(constants) == 1 and constants[0].size == 1 and constants[0] > 0:
            factor = np.asarray(factor * constants[0].reshape(()), np.float32)
        elif node.op_type not in ("Cast", "Transpose"):
            break
        chain.append(node)
        tensor = node.output[0]
    return chain, factor


# --- int8 ------------------------------------------------------------------------------------------


def quantize(proto: onnx.ModelProto, images: npt.NDArray[np.uint8], quantization: Quantization) -> onnx.ModelProto:
    """int8 by ONNX Runtime's static quantisation; the same arguments give the same graph, byte for byte.

    Args:
        proto: what ``onnx.build_onnx`` made; it is left as it is.
        images: calibration photos as fed, uint8 (n, h, w, 3); they are run one by one.
        quantization: ``method``, ``weight_bits`` 7 or 8, and ``precise``, the Keras layers that stay in float32
            besides the head.

    Raises:
        ExportError: an unknown layer in ``precise``, the quantiser fails, or an operator stays in float unasked.
    """
    from onnxruntime import quantization as ort

    source = _copy(proto)
    source.metadata_props.add(key=_PREPROCESSED[0], value=_PREPROCESSED[1])
    chain, factor = _input_chain(proto.graph)
    precise = (*head_layers(proto), *quantization.precise)
    kept = (*chain, *scales(proto.graph))
    excluded = [*(node.name for node in kept), *_tail(proto.graph), *nodes_of(proto, precise)]
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
                    # After each photo, or all activations of all photos would be in memory together.
                    "CalibStridedMinMax": 1,
                    "CalibPercentile": _PERCENTILE,
                    "CalibTensorRangeSymmetric": False,
                    "TensorQuantOverrides": _as_fed(chain, factor),
                },
            )
            made = onnx.load(path)
    except OSError:
        raise
    except Exception as error:  # its errors share no base
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"ONNX Runtime cannot quantise the model ({reason})") from error
    _feed_integers(made.graph)
    clean = _clean(made, proto)
    check_quantized(clean, precise)
    return clean


def _as_fed(chain: list[onnx.NodeProto], factor: npt.NDArray[np.float32]) -> dict[str, list[dict[str, Any]]]:
    """The photo's own integers are the first activation's: no calibration, no rounding."""
    if not chain:
        return {}
    return {chain[-1].output[0]: [{"scale": factor, "zero_point": np.array(0, np.uint8)}]}


def _feed_integers(graph: onnx.GraphProto) -> None:
    """Give the photo to the first DequantizeLinear, without the way through float32 and back."""
    chain, _ = _input_chain(graph)
    following = [node for node in graph.node if chain and chain[-1].output[0] in node.input]
    if [node.op_type for node in following] != ["QuantizeLinear"]:  # the first layer computes in float32
        return
    tensor = INPUT_NAME
    for node in chain:
        if node.op_type == "Transpose":
            node.input[0] = tensor
            tensor = node.output[0]
    _redirect(graph, following[0].output[0], tensor)


def check_quantized(proto: onnx.ModelProto, precise: Collection[str]) -> None:
    """Refuse a file that calls itself int8 and is not.

    Raises:
        ExportError: naming every convolution or matrix product that computes in float and whose Keras layer is not
            in ``precise``; or if none at all is int8.
    """
    makers = {tensor: node for node in proto.graph.node for tensor in node.output}
    weighted = [node for node in proto.graph.node if node.op_type in _WEIGHTED]
    floats = [node for node in weighted if not all(_dequantized(makers.get(name)) for name in node.input[:2])]
    if unasked := [f"{node.name} ({node.op_type})" for node in floats if layer_of_node(node.name) not in precise]:
        raise ExportError(
            f"the int8 graph computes in float: {', '.join(unasked)}: name these layers as precise, or do without int8"
        )
    if len(floats) == len(weighted):
        raise ExportError(
            f"the int8 graph has {len(weighted)} weighted operators, none of them int8: keep fewer precise"
        )


def _dequantized(node: onnx.NodeProto | None) -> bool:
    return node is not None and node.op_type == "DequantizeLinear"


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


# --- both ------------------------------------------------------------------------------------------


def _copy(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def _clean(made: onnx.ModelProto, proto: onnx.ModelProto) -> onnx.ModelProto:
    """The new graph with the ends of the old, its nodes in order, and nothing that no output needs."""
    nodes = in_order(made.graph)
    used = {tensor for node in nodes for tensor in node.input}
    weights = sorted((entry for entry in made.graph.initializer if entry.name in used), key=lambda entry: entry.name)
    graph = onnx.helper.make_graph(nodes, proto.graph.name, proto.graph.input, proto.graph.output, weights)
    clean = onnx.helper.make_model(
        graph, producer_name=proto.producer_name, opset_imports=proto.opset_import, ir_version=proto.ir_version
    )
    try:
        onnx.checker.check_model(clean, full_check=True)
    except Exception as error:  # the checker's and the shape inference's errors share no base
        raise ExportError(f"onnx {onnx.__version__} refuses the reduced graph: {error}") from error
    return clean

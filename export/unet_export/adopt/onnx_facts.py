"""A foreign ``.onnx`` file, read: its tensors, how its outputs end, its metadata; weights beside it are taken in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from unet_export.adopt.beside import hugging_face, ultralytics
from unet_export.adopt.facts import Facts, Tensor
from unet_export.errors import ExportError
from unet_export.formats.onnx_graph import makers
from unet_runtime.core.artifact import MAX_BYTES, read_model
from unet_runtime.core.spec import Precision
from unet_runtime.core.text import one_line

_STANDARD = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")
"""Domains of operators that ONNX Runtime has."""

_PASSING = (
    *("Transpose", "Resize", "Upsample", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Slice", "Flatten"),
    *("DequantizeLinear", "QuantizeLinear", "Dropout", "Crop", "DepthToSpace", "AveragePool", "MaxPool"),
)
"""Operators that leave an activation what it is, and logits logits."""

_ACTIVATIONS = {"Softmax": "softmax", "Sigmoid": "sigmoid", "ArgMax": "labels", "LogSoftmax": "logits"}

_LINEAR = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "BatchNormalization", "QLinearConv", "Sum")
"""Operators behind which nothing limits a value: their results are logits."""

_WHOLE_BYTES = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT32, TensorProto.INT64)
"""Types of weights whose size in a file is known for certain."""

_SHOWN = 100  # characters of a name in a message

_INTEGER = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "DynamicQuantizeLinear")


def read(path: Path) -> Facts:
    """See ``reader.read``."""
    proto = load(path)
    _refuse_operators(path, proto)
    graph = proto.graph
    constants = set(map(attrgetter("name"), graph.initializer))
    inputs = [_tensor(entry) for entry in graph.input if entry.name not in constants]
    outputs = [_tensor(entry)._replace(ends=_ends(graph, entry.name)) for entry in graph.output]
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    said = {**hugging_face(path), **ultralytics(metadata)}
    tools = {proto.producer_name or "unknown tool": proto.producer_version or "unknown"}
    content = proto.SerializeToString()
    return Facts(path, content, inputs, outputs, _precision(graph), said, tools)


def load(path: Path) -> onnx.ModelProto:
    """The file's model with all its weights, spec and digest of an earlier export left out.

    Raises:
        ModelFileError, ExportError: as ``reader.read``.
    """
    content = read_model(path)
    try:
        proto = onnx.load_from_string(content)
    except Exception as error:  # protobuf's errors share no base
        raise ExportError(f"{path}: no ONNX model ({one_line(error)}): copy or export it again") from error
    if not proto.graph.node:
        raise ExportError(f"{path}: no ONNX model, or an empty one: it has no operator: copy or export it again")
    _take_in(path, proto)
    kept = [entry for entry in proto.metadata_props if not entry.key.startswith("unet_edge")]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    if proto.functions:
        from onnx import inliner

        proto = inliner.inline_local_functions(proto)
    if proto.ByteSize() >= MAX_BYTES:
        raise ExportError(f"{path}: 2 GB or more with its weights, which no single ONNX file can hold")
    return proto


def _take_in(path: Path, proto: onnx.ModelProto) -> None:
    """Weights from files beside the model; only from its own folder: a file may name any path."""
    folder = path.resolve().parent
    outside = [tensor for tensor in _tensors(proto.graph) if tensor.data_location == TensorProto.EXTERNAL]
    for location in sorted(set(map(_location, outside))):
        try:
            target = (folder / location).resolve()
            is_there = target.is_file()
        except (OSError, ValueError) as error:  # too long, or with a zero in it
            raise ExportError(
                f"{path}: its weights are at {location[:_SHOWN]!r}, which is no file's name ({type(error).__name__}): "
                "export it again"
            ) from error
        if Path(location).is_absolute() or not target.is_relative_to(folder):
            raise ExportError(
                f"{path}: its weights are at {location!r}, outside of its own folder, from where nothing is read: save "
                "it as one file, or put the weights beside it"
            )
        if not is_there:
            raise ExportError(f"{path}: its weights are in {location!r}, which is not beside it: copy that file too")
    try:
        onnx.load_external_data_for_model(proto, str(folder))
    except Exception as error:  # its errors share no base
        raise ExportError(
            f"{path}: its weights beside it cannot be read ({one_line(error)}): copy them again"
        ) from error
    for tensor in outside:
        expected = math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        if tensor.data_type in _WHOLE_BYTES and len(tensor.raw_data) != expected:
            raise ExportError(
                f"{path}: the weights {tensor.name!r} beside it have {len(tensor.raw_data):,} bytes, expected "
                f"{expected:,}: copy them again"
            )


def _location(tensor: onnx.TensorProto) -> str:
    entries: dict[str, str] = {entry.key: entry.value for entry in tensor.external_data}
    return entries.get("location", "")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))
        for inner in _graphs(node):
            yield from _tensors(inner)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for inner in _graphs(node):
            yield from _nodes(inner)


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Branches and bodies of a node of control flow."""
    for attribute in node.attribute:
        yield from (attribute.g, *attribute.graphs)


def _refuse_operators(path: Path, proto: onnx.ModelProto) -> None:
    known = onnx.defs.onnx_opset_version()
    for entry in proto.opset_import:
        if entry.domain in ("", "ai.onnx") and entry.version > known:
            raise ExportError(
                f"{path}: opset {entry.version}, this ONNX reads up to {known}: export it with an older opset (torch: "
                "opset_version=17), or upgrade onnx and the engines"
            )
    foreign = sorted({f"{node.domain}.{node.op_type}" for node in _nodes(proto.graph) if node.domain not in _STANDARD})
    if foreign:
        raise ExportError(
            f"{path}: custom operators {', '.join(foreign)}, which no engine here has: export it with ONNX's own "
            "operators"
        )


def _tensor(entry: Any) -> Tensor:
    kind = entry.type.tensor_type
    sizes = [size.dim_value if size.dim_value > 0 else None for size in kind.shape.dim]
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
    except (KeyError, TypeError):
        dtype = "no tensor"
    return Tensor(entry.name, dtype, tuple(sizes))


def _ends(graph: onnx.GraphProto, name: str) -> str:
    """What an output is, by the operators before it."""
    made_by = makers(graph)
    constants = set(map(attrgetter("name"), graph.initializer))
    node = made_by.get(name)
    while node is not None and node.op_type in _PASSING:
        sources = [tensor for tensor in node.input[:1] if tensor not in constants]
        node = made_by.get(sources[0]) if sources else None
    if node is None:
        return ""
    return _ACTIVATIONS.get(node.op_type, "logits" if node.op_type in _LINEAR else "")


def _precision(graph: onnx.GraphProto) -> Precision:
    if any(node.op_type in _INTEGER for node in graph.node):
        return "int8"
    halves = sum(entry.data_type == TensorProto.FLOAT16 for entry in graph.initializer)
    singles = sum(entry.data_type == TensorProto.FLOAT for entry in graph.initializer)
    return "float16" if halves > singles else "float32"

"""Keras model -> ONNX float32: BatchNormalization folded, names set, the same bytes every time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx

from unet_export.errors import ExportError
from unet_export.saved_model import INPUT_NAME, OUTPUT_NAME, serving, signature
from unet_runtime.artifact import append_to_onnx
from unet_runtime.spec import ModelSpec

OPSET = 17
"""Not the newest: nothing in these graphs needs one, and 17 is read by every ONNX Runtime since 1.12
(2022) and by the vendors' compilers for devices, which lag behind."""

BATCH_NAME = "batch"

_PRODUCER = "unet-edge"
_LAYOUT_TRANSPOSES = 2
"""NHWC outside, NCHW inside: one at each end."""


def export_onnx(model: Any, spec: ModelSpec) -> bytes:
    """A whole ``.onnx`` file: uint8 ``image`` ("batch", h, w, 3) -> float32 ``probabilities``.

    Returns:
        Its bytes, spec and digest included; equal for equal models and specs.

    Raises:
        ExportError: tf2onnx or the checker refuses the model, or the graph is not clean.
    """
    import tensorflow as tf
    import tf2onnx

    proto = _tidy(_convert(model), spec.name)
    _check(proto)
    versions = {"tensorflow": tf.__version__, "tf2onnx": tf2onnx.__version__, "onnx": onnx.__version__}
    described = spec.with_precision("float32", tools={**spec.provenance.tools, **versions})
    return append_to_onnx(proto.SerializeToString(deterministic=True), described)


def _convert(model: Any) -> onnx.ModelProto:
    import tensorflow as tf
    import tf2onnx

    source = [signature(model, None, "uint8")]
    try:
        proto, _ = tf2onnx.convert.from_function(tf.function(serving(model)), source, opset=OPSET)
    except Exception as error:  # the converter's errors share no base but Exception
        raise ExportError(f"tf2onnx {tf2onnx.__version__} cannot convert the model: {error}") from error
    assert isinstance(proto, onnx.ModelProto)
    return proto


def _tidy(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """The same network, described by nothing but itself.

    tf2onnx numbers names with a counter of its process and names dimensions ``unk__222``: the second
    export of a process would differ from the first.
    """
    nodes = _in_order(proto.graph)
    names = _rename(nodes, kept={value.name for value in (*proto.graph.input, *proto.graph.output)})
    weights = {entry.name: entry for entry in proto.graph.initializer}
    for old, entry in weights.items():
        entry.name, entry.doc_string = names.get(old, old), ""
    # In order of first use; a weight that nothing uses is left out.
    used = [weights[old] for old in names if old in weights]
    graph = onnx.helper.make_graph(nodes, name, list(proto.graph.input), list(proto.graph.output), used)
    for value in (*graph.input, *graph.output):
        value.doc_string = ""
        value.type.tensor_type.shape.dim[0].dim_param = BATCH_NAME
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_model(graph, producer_name=_PRODUCER, opset_imports=opsets, ir_version=proto.ir_version)


def _in_order(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that the outputs need, each after those it needs: an order that the network alone decides."""
    makers = {tensor: node for node in graph.node for tensor in node.output}
    order: list[onnx.NodeProto] = []
    made: set[str] = set()
    waiting = [makers[value.name] for value in graph.output]
    while waiting:
        missing = [name for name in waiting[-1].input if name in makers and name not in made]
        if missing:
            waiting.append(makers[missing[0]])
            continue
        node = waiting.pop()
        if node.output[0] not in made:
            order.append(node)
            made.update(node.output)
    return order


def _rename(nodes: list[onnx.NodeProto], kept: set[str]) -> dict[str, str]:
    """Name nodes ``Conv_4`` and tensors after the node that makes or first uses them.

    Returns:
        New name by old name of every tensor but those ``kept``, in order of first use.
    """
    names: dict[str, str] = {}
    for index, node in enumerate(nodes):
        node.name, node.doc_string = f"{node.op_type}_{index}", ""
        node.attribute.sort(key=lambda attribute: attribute.name)
        for kind, tensors in (("input", node.input), ("output", node.output)):
            for position, tensor in enumerate(tensors):
                if tensor and tensor not in kept:  # "" stands for an optional input that is absent
                    tensors[position] = names.setdefault(tensor, f"{node.name}_{kind}{position}")
    return names


def _check(proto: onnx.ModelProto) -> None:
    """Refuse a graph that an engine would refuse, or run slower than need be, or call differently."""
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # the checker's and the shape inference's errors share no base
        raise ExportError(f"onnx {onnx.__version__} refuses the exported graph: {error}") from error
    problems = list(_problems(proto.graph))
    if problems:
        raise ExportError(f"the exported ONNX graph is not clean: {'; '.join(problems)}")


def _problems(graph: onnx.GraphProto) -> Iterator[str]:
    """What engines would run, but nobody wants."""
    ends = ([value.name for value in graph.input], [value.name for value in graph.output])
    if ends != ([INPUT_NAME], [OUTPUT_NAME]):
        yield f"inputs and outputs {ends}, expected {INPUT_NAME} and {OUTPUT_NAME}"
    operators = [node.op_type for node in graph.node]
    if norms := operators.count("BatchNormalization"):
        yield f"{norms} BatchNormalization nodes, expected all folded into the Conv before"
    if (transposes := operators.count("Transpose")) != _LAYOUT_TRANSPOSES:
        yield f"{transposes} Transpose nodes, expected {_LAYOUT_TRANSPOSES} (layout of input and output)"
    if foreign := sorted({node.op_type for node in graph.node if node.domain}):
        yield f"operators outside ONNX: {', '.join(foreign)}"

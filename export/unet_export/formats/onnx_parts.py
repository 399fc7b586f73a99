"""What the reduced ONNX formats, float16 and int8, have in common: head and tail of a graph, statistics on photos."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import onnx

from unet_export.formats.onnx_graph import in_order, initializers, layer_of_node, makers, readers
from unet_export.source_model import INPUT_NAME

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Where the arithmetic is: a file with one of these in float is not int8."""

_SHAPING = ("Resize", "Reshape", "Slice", "Pad", "Tile", "Expand", "Squeeze", "Unsqueeze")
"""Operators whose constants are sizes and positions, no weights."""


def head_layers(proto: onnx.ModelProto) -> tuple[str, ...]:
    """The Keras layers with the last weights before the output: whose rounding decides between near equal classes.

    Kept in float32 they cost little (a 1x1 convolution) and lose nothing of the border class: see docs/results.md.
    """
    tail = set(tail_of(proto.graph))
    needed: set[str] = set()
    for node in proto.graph.node:
        if node.name in tail:
            needed.update(node.input)
    layers: dict[str, None] = {}
    for node in proto.graph.node:
        layer = layer_of_node(node.name)
        if layer and node.name not in tail and needed.intersection(node.output):
            layers[layer] = None
    return tuple(layers)


def tail_of(graph: onnx.GraphProto) -> list[str]:
    """Names of the nodes after the last weights: the activation, a resizing, the layout of the output."""
    weights = initializers(graph).keys()
    read_by = readers(graph)
    tail: list[str] = []
    for node in reversed(graph.node):
        weighted = node.op_type not in _SHAPING and weights & set(node.input)
        followers: set[str] = set()
        for tensor in node.output:
            followers.update(map(attrgetter("name"), read_by.get(tensor, [])))
        if not weighted and followers.issubset(tail):
            tail.append(node.name)
    return tail


def photo_means(
    proto: onnx.ModelProto,
    tensors: Iterable[str],
    images: npt.NDArray[np.uint8],
    measure: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]],
) -> dict[str, npt.NDArray[np.float64]]:
    """Mean over photos of what ``measure`` returns for those of a float graph's ``tensors`` that it has, by name.

    ``measure``: of a tensor's values on one photo, (1, channels, ...).
    """
    import onnxruntime as ort

    probe = copy.deepcopy(proto)
    made = makers(probe.graph)
    names = list(filter(made.__contains__, tensors))
    if not names:
        return {}
    del probe.graph.output[:]
    for name in names:
        probe.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    sums = dict.fromkeys(names, np.zeros(()))
    for index in range(len(images)):
        for name, value in zip(names, session.run(names, {INPUT_NAME: images[index : index + 1]}), strict=True):
            sums[name] = sums[name] + measure(value)
    return {name: total / len(images) for name, total in sums.items()}


def cleaned(made: onnx.ModelProto, proto: onnx.ModelProto) -> onnx.ModelProto:
    """The new graph with the ends of the old, its nodes in order, and nothing that no output needs."""
    nodes = in_order(made.graph)
    used: set[str] = set()
    for node in nodes:
        used.update(node.input)
    constants = initializers(made.graph)
    weights = list(map(constants.__getitem__, sorted(used & constants.keys())))
    graph = onnx.helper.make_graph(nodes, proto.graph.name, proto.graph.input, proto.graph.output, weights)
    return onnx.helper.make_model(
        graph, producer_name=proto.producer_name, opset_imports=proto.opset_import, ir_version=proto.ir_version
    )

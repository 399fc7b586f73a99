"""An ONNX graph made clean: in one order, BatchNormalization folded, nodes named after their Keras layers.

tf2onnx writes down how it came to the graph: counters of its process in names, ``unk__222`` dimensions, weights that
nothing uses. Here the network alone decides.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from unet_export.errors import ExportError

_LAYER_SEPARATOR = "/"
"""Between a layer's name and the number of a further node of it: no Keras name has one, so names are unambiguous."""

_MADE_BY_CONVERTER = re.compile(r"__\d+$")

LayerOf = Callable[[str], str]
"""Name of a node as tf2onnx wrote it -> the Keras layer it comes from, or an empty string."""


def tidy(graph: onnx.GraphProto, name: str, layer_of: LayerOf) -> onnx.GraphProto:
    """The same network, described by nothing but itself: equal networks give equal bytes.

    Nodes are called after their layers (see ``nodes_of``), or ``/Cast_0`` where there is none; a tensor is called
    after the node that makes it or first uses it. What no output needs is left out.
    """
    nodes = in_order(graph)
    weights = {entry.name: entry for entry in graph.initializer}
    layers = {node.name: _layer(node, weights, layer_of) for node in nodes}
    names = _rename(nodes, {value.name for value in (*graph.input, *graph.output)}, layers)
    for old, entry in weights.items():
        entry.name, entry.doc_string = names.get(old, old), ""
    used = [weights[old] for old in names if old in weights]  # in order of first use
    for value in (*graph.input, *graph.output):
        value.doc_string = ""
    return onnx.helper.make_graph(nodes, name, list(graph.input), list(graph.output), used)


def layer_of_node(name: str) -> str:
    """The Keras layer that a node of a tidy graph belongs to; an empty string for none."""
    return name.partition(_LAYER_SEPARATOR)[0]


def nodes_of(proto: onnx.ModelProto, layers: Iterable[str]) -> list[str]:
    """Names of the nodes that belong to Keras layers, in the graph's order.

    A BatchNormalization folded into the convolution before has none: name the convolution.

    Raises:
        ExportError: a layer without a node.
    """
    wanted = set(layers)
    found = [(layer_of_node(node.name), node.name) for node in proto.graph.node]
    known = {layer for layer, _ in found} - {""}
    if unknown := sorted(wanted - known):
        raise ExportError(
            f"layers {', '.join(unknown)}: no node of the ONNX graph belongs to them, expected some of "
            f"{', '.join(sorted(known))}"
        )
    return [node for layer, node in found if layer in wanted]


def in_order(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that the outputs need, each after those it needs: an order that the network alone decides."""
    makers = {tensor: node for node in graph.node for tensor in node.output}
    order: list[onnx.NodeProto] = []
    made: set[str] = set()
    waiting = [makers[value.name] for value in reversed(graph.output)]
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


def _layer(node: onnx.NodeProto, weights: Container[str], layer_of: LayerOf) -> str:
    """The Keras layer that a node comes from, empty for none: of a convolution that tf2onnx made anew, to give it a
    bias, the kernel has the name still."""
    if _is_layout(node):
        return ""
    kernels = [name for name in node.input[1:2] if node.op_type in _CHANNEL_AXIS and name in weights]
    return next(filter(None, map(layer_of, [node.name, *kernels])), "")


def _rename(nodes: list[onnx.NodeProto], kept: set[str], layers: Mapping[str, str]) -> dict[str, str]:
    """Name nodes and tensors; ``layers``: by the node's old name.

    Returns:
        New name by old name of every tensor but those ``kept``, in order of first use.
    """
    names: dict[str, str] = {}
    count: Counter[str] = Counter()
    for index, node in enumerate(nodes):
        layer = layers[node.name]
        count[layer] += 1
        further = f"{_LAYER_SEPARATOR}{count[layer]}" if count[layer] > 1 else ""
        node.name = layer + further if layer else f"{_LAYER_SEPARATOR}{node.op_type}_{index}"
        node.doc_string = ""
        node.attribute.sort(key=lambda attribute: attribute.name)
        for kind, tensors in (("input", node.input), ("output", node.output)):
            for position, tensor in enumerate(tensors):
                if tensor and tensor not in kept:  # "" stands for an optional input that is absent
                    tensors[position] = names.setdefault(tensor, f"{node.name}_{kind}{position}")
    return names


def _is_layout(node: onnx.NodeProto) -> bool:
    """A Transpose from NHWC or back: tf2onnx calls it after whichever layer it came to lie beside."""
    return node.op_type == "Transpose" and bool(_MADE_BY_CONVERTER.search(node.name))


# --- folding ---------------------------------------------------------------------------------------


def fold_scales(graph: onnx.GraphProto) -> None:
    """Fold every Mul and Add of a constant per channel into the convolution before it, in place.

    TensorFlow writes an inferring BatchNormalization as these two. Left alone they are passes over memory for an
    engine that does not fuse, and further roundings in int8. An Add of zeros (a Rescaling's offset) goes too.
    """
    weights = {entry.name: entry for entry in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    users = Counter(tensor for node in graph.node for tensor in node.input)
    users.update(value.name for value in graph.output)
    for node in in_order(graph):
        constant = _constant(node, weights)
        if constant is None or node.op_type not in ("Mul", "Add"):
            continue
        source = next(tensor for tensor in node.input if tensor not in weights)
        before = makers.get(source)
        if node.op_type == "Add" and constant.size == 1 and not constant.any():
            _bypass(graph, node, source)
            users[source] += users[node.output[0]] - 1
        elif (
            before is not None
            and before.op_type in _CHANNEL_AXIS
            and users[source] == 1
            and _fold(graph, before, node, constant, weights)
        ):
            makers[node.output[0]] = before


_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}
"""Axis of the output channels in an operator's weights."""


def scales(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """Every Mul and Add of a constant that ``fold_scales`` had to leave: where a sum or two readers are before it.

    int8 had better leave them in float too: two roundings less, and one pass over memory in place of two.
    """
    weights = {entry.name: entry for entry in graph.initializer}
    return [node for node in graph.node if node.op_type in ("Mul", "Add") and _constant(node, weights) is not None]


def _constant(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> npt.NDArray[np.float32] | None:
    """The one constant of a node of two inputs."""
    constants = [tensor for tensor in node.input if tensor in weights]
    return numpy_helper.to_array(weights[constants[0]]) if (len(constants), len(node.input)) == (1, 2) else None


def _bypass(graph: onnx.GraphProto, node: onnx.NodeProto, source: str) -> None:
    if any(value.name == node.output[0] for value in graph.output):
        return
    for other in graph.node:
        for position, tensor in enumerate(other.input):
            if tensor == node.output[0]:
                other.input[position] = source


def _fold(
    graph: onnx.GraphProto,
    conv: onnx.NodeProto,
    node: onnx.NodeProto,
    constant: npt.NDArray[np.float32],
    weights: dict[str, onnx.TensorProto],
) -> bool:
    """Let ``conv`` do what ``node`` does with its output; False where it cannot."""
    if any(name not in weights for name in conv.input[1:]):
        return False
    kernel = numpy_helper.to_array(weights[conv.input[1]]).astype(np.float64)
    axis = _CHANNEL_AXIS[conv.op_type]
    group = next((attribute.i for attribute in conv.attribute if attribute.name == "group"), 1)
    channels = kernel.shape[axis]
    if (
        (axis == 1 and group != 1)
        or constant.ndim > kernel.ndim
        or (
            constant.shape != (1,) * constant.ndim
            and constant.shape[-(kernel.ndim - 1) :] != (channels, *(1,) * (kernel.ndim - 2))
        )
    ):
        return False
    values = np.broadcast_to(constant.reshape(-1).astype(np.float64), channels)
    bias = (
        numpy_helper.to_array(weights[conv.input[2]]).astype(np.float64) if len(conv.input) > 2 else np.zeros(channels)
    )
    if node.op_type == "Mul":
        kernel *= values.reshape([-1 if dim == axis else 1 for dim in range(kernel.ndim)])
        bias = bias * values
    else:
        bias = bias + values
    inputs = [conv.input[0]]
    for part, array in (("kernel", kernel), ("bias", bias)):  # new ones: another convolution may share the old
        entry = numpy_helper.from_array(array.astype(np.float32), f"{node.output[0]}/{part}")
        graph.initializer.append(entry)
        weights[entry.name] = entry
        inputs.append(entry.name)
    del conv.input[:]
    conv.input.extend(inputs)
    conv.output[0] = node.output[0]
    graph.node.remove(node)
    return True

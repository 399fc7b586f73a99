"""An ONNX graph made clean: in one order, BatchNormalization folded, nodes named after their Keras layers.

tf2onnx writes down how it came to the graph: counters of its process in names, ``unk__222`` dimensions, weights that
nothing uses. Here the network alone decides.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from fractions import Fraction
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from unet_export.errors import ExportError

_LAYER_SEPARATOR = "/"
"""Between a layer's name and the number of a further node of it: no Keras name has one, so names are unambiguous."""

_MADE_BY_CONVERTER = re.compile(r"__\d+$")

_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1}
"""Axis of the output channels in an operator's weights."""

LayerOf = Callable[[str], str]
"""Name of a node as tf2onnx wrote it -> the Keras layer it comes from, or an empty string."""


def tidy(graph: onnx.GraphProto, name: str, layer_of: LayerOf) -> onnx.GraphProto:
    """The same network, described by nothing but itself: equal networks give equal bytes.

    Nodes are called after their layers (see ``nodes_of``), or ``/Cast_0`` where there is none; a tensor is called
    after the node that makes it or first uses it. What no output needs is left out.
    """
    nodes = in_order(graph)
    weights = initializers(graph)
    layers = {node.name: _layer(node, weights, layer_of) for node in nodes}
    ends = set(map(attrgetter("name"), [*graph.input, *graph.output]))
    names = _rename(nodes, ends, layers)
    used = []
    for old, new in names.items():  # in order of first use
        if old in weights:
            entry = weights[old]
            entry.name = new
            entry.doc_string = ""
            used.append(entry)
    for value in (*graph.input, *graph.output):
        value.doc_string = ""
    return onnx.helper.make_graph(nodes, name, list(graph.input), list(graph.output), used)


def initializers(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Weights and other constants by name."""
    return {entry.name: entry for entry in graph.initializer}


def parameters(graph: onnx.GraphProto) -> int:
    """How many numbers the floating-point weights have."""
    weights = [entry for entry in graph.initializer if entry.data_type == onnx.TensorProto.FLOAT]
    return sum(math.prod(entry.dims) for entry in weights)


def makers(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """The node that writes each tensor."""
    return {tensor: node for node in graph.node for tensor in node.output}


def readers(graph: onnx.GraphProto) -> dict[str, list[onnx.NodeProto]]:
    """The nodes that read each tensor, in the graph's order."""
    found: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for tensor in node.input:
            found.setdefault(tensor, []).append(node)
    return found


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An operator's integer attribute."""
    return next((int(entry.i) for entry in node.attribute if entry.name == name), default)


def redirect(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Let every node that reads tensor ``old`` read ``new``."""
    for node in graph.node:
        for position, tensor in enumerate(node.input):
            if tensor == old:
                node.input[position] = new


def layer_of_node(name: str) -> str:
    """The Keras layer that a node of a tidy graph belongs to; an empty string for none."""
    return name.partition(_LAYER_SEPARATOR)[0]


def nodes_of(proto: onnx.ModelProto, layers: Iterable[str]) -> list[str]:
    """Names of the nodes that belong to Keras layers, in the graph's order. Raises ExportError for a layer without one.

    A BatchNormalization folded into the convolution before has none: name the convolution.
    """
    names = set(layers)
    known: set[str] = set()
    found = []
    for node in proto.graph.node:
        layer = layer_of_node(node.name)
        known.add(layer)
        if layer in names:
            found.append(node.name)
    known.discard("")
    if unknown := sorted(names - known):
        raise ExportError(
            f"layers {', '.join(unknown)}: no node of the ONNX graph belongs to them, expected some of "
            f"{', '.join(sorted(known))}"
        )
    return found


def in_order(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that the outputs need, each after those it needs: an order that the network alone decides."""
    made_by = makers(graph)
    order: list[onnx.NodeProto] = []
    made: set[str] = set()
    waiting = [made_by[value.name] for value in reversed(graph.output)]
    while waiting:
        missing = next((name for name in waiting[-1].input if name in made_by and name not in made), None)
        if missing is not None:
            waiting.append(made_by[missing])
            continue
        node = waiting.pop()
        if node.output[0] not in made:
            order.append(node)
            made.update(node.output)
    return order


def _layer(node: onnx.NodeProto, weights: Container[str], layer_of: LayerOf) -> str:
    """The Keras layer that a node comes from, empty for none."""
    if node.op_type == "Transpose" and _MADE_BY_CONVERTER.search(node.name):
        return ""  # from NHWC or back: tf2onnx calls it after whichever layer it came to lie beside
    layer = layer_of(node.name)
    if not layer and node.op_type in _CHANNEL_AXIS and node.input[1] in weights:
        # tf2onnx makes a convolution anew to give it a bias; its kernel keeps the name.
        layer = layer_of(node.input[1])
    return layer


def _rename(nodes: list[onnx.NodeProto], kept: set[str], layers: Mapping[str, str]) -> dict[str, str]:
    """Name nodes and tensors; returns new names by old, in order of first use, of all tensors but those ``kept``.

    ``layers``: by the node's old name.
    """
    names: dict[str, str] = {}
    count: Counter[str] = Counter()
    for index, node in enumerate(nodes):
        layer = layers[node.name]
        count[layer] += 1
        further = f"{_LAYER_SEPARATOR}{count[layer]}" if count[layer] > 1 else ""
        node.name = layer + further if layer else f"{_LAYER_SEPARATOR}{node.op_type}_{index}"
        node.doc_string = ""
        node.attribute.sort(key=attrgetter("name"))
        for kind, tensors in (("input", node.input), ("output", node.output)):
            for position, tensor in enumerate(tensors):
                if tensor and tensor not in kept:  # "" stands for an optional input that is absent
                    tensors[position] = names.setdefault(tensor, f"{node.name}_{kind}{position}")
    return names


# --- folding ---------------------------------------------------------------------------------------


def fold_scales(graph: onnx.GraphProto) -> None:
    """Fold every Mul and Add of a constant per channel into the convolution before it, in place.

    TensorFlow writes an inferring BatchNormalization as these two. Left alone they are passes over memory for an
    engine that does not fuse, and further roundings in int8. An Add of zeros (a Rescaling's offset) goes too.
    """
    weights = initializers(graph)
    made_by = makers(graph)
    outputs = set(map(attrgetter("name"), graph.output))
    uses = Counter(outputs)
    for node in graph.node:
        uses.update(node.input)
    for node in in_order(graph):
        constant = _constant(node, weights)
        if constant is None:
            continue
        source, result = next(tensor for tensor in node.input if tensor not in weights), node.output[0]
        before = made_by.get(source)
        if node.op_type == "Add" and constant.size == 1 and not constant.any():
            if result not in outputs:
                redirect(graph, result, source)
            uses[source] += uses[result] - 1
            continue
        if before is None or before.op_type not in _CHANNEL_AXIS or uses[source] > 1:
            continue
        if _fold(graph, before, node, constant, weights):
            made_by[result] = before


_NOT_NEGATIVE = ("Relu", "Sigmoid", "Softmax", "Abs", "Exp", "HardSigmoid")
"""Operators whose output is 0 or more."""

_PADDED_WITH = 2
"""Place of a Pad's constant among its inputs."""


def guard_zero_padding(graph: onnx.GraphProto) -> None:
    """Keep ONNX Runtime from merging a Pad of zeros into the MaxPool behind it, in place.

    MaxPool pads with nothing, not with zeros: the two differ where all values of a window are negative. Its optimiser
    Pad_Fusion takes a constant for zero whose bytes all are, so a minus zero, which is equal, is left alone:
    https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/optimizer/pad_fusion.cc
    """
    weights = initializers(graph)
    made_by = makers(graph)
    read_by = readers(graph)
    for node in list(graph.node):
        pools = [reader for reader in read_by.get(node.output[0], []) if reader.op_type == "MaxPool"]
        before = made_by.get(node.input[0]) if node.op_type == "Pad" else None
        if node.op_type != "Pad" or not pools or (before is not None and before.op_type in _NOT_NEGATIVE):
            continue
        given = node.input[_PADDED_WITH] if len(node.input) > _PADDED_WITH else ""
        if given and (given not in weights or numpy_helper.to_array(weights[given]).any()):
            continue
        entry = numpy_helper.from_array(np.array(-0.0, np.float32), f"{node.output[0]}/minus_zero")
        graph.initializer.append(entry)
        inputs = [*node.input[:_PADDED_WITH], entry.name, *node.input[_PADDED_WITH + 1 :]]
        del node.input[:]
        node.input.extend(inputs)


_SCALES = 2
"""Place of a Resize's factors among its inputs."""

_LARGEST_SIDE = 16384
"""Pixels: a factor is the ratio of two whole numbers up to it."""


def round_scales_up(graph: onnx.GraphProto) -> None:
    """Take the next higher float32 for every factor of a Resize that float32 has rounded down, in place.

    The size of the result is the product, rounded down: 96/200 in float32 is a little less, and 200 pixels become 95.
    """
    weights = initializers(graph)
    for node in list(graph.node):  # nodes may be added meanwhile
        if node.op_type != "Resize" or len(node.input) <= _SCALES or node.input[_SCALES] not in weights:
            continue
        factors = numpy_helper.to_array(weights[node.input[_SCALES]])
        rounded = np.array(list(map(_not_below_its_ratio, factors)), np.float32)
        if np.array_equal(rounded, factors):
            continue
        entry = numpy_helper.from_array(rounded, f"{node.output[0]}/scales")
        graph.initializer.append(entry)
        node.input[_SCALES] = entry.name


def leave_out_empty_inputs(graph: onnx.GraphProto) -> None:
    """Leave out what a Resize is given as empty constants, in place.

    tf2onnx writes regions and factors so where sizes count; behind a conversion to float16 they are no constants any
    more, and ONNX Runtime refuses factors beside sizes.
    """
    empty = {name for name, entry in initializers(graph).items() if 0 in entry.dims}
    for node in graph.node:
        if node.op_type == "Resize":
            for place, name in enumerate(node.input):
                if name in empty:
                    node.input[place] = ""


def _not_below_its_ratio(factor: np.float32) -> np.float32:
    ratio = Fraction(float(factor)).limit_denominator(_LARGEST_SIDE)
    return factor if float(factor) >= ratio else np.nextafter(factor, np.float32(np.inf))


def pad_transposed_kernels(graph: onnx.GraphProto) -> None:
    """Pad kernels of transposed convolutions with zeros where their pads are negative, which ONNX refuses, in place.

    tf2onnx writes such where the stride is larger than the kernel: the result is larger than what the kernels cover.
    TensorFlow, whose padding is never negative, leaves the rest behind them, not around them.
    """
    weights = initializers(graph)
    for node in graph.node:
        if node.op_type != "ConvTranspose" or node.input[1] not in weights:
            continue
        attributes = {entry.name: entry for entry in node.attribute}
        pads = np.array(attributes["pads"].ints if "pads" in attributes else [0], np.int64)
        if (pads >= 0).all():
            continue
        rest = -np.minimum(pads, 0).reshape(2, -1).sum(axis=0)
        kernel = numpy_helper.to_array(weights[node.input[1]])  # (in, out / groups, h, w)
        kernel = np.pad(kernel, [(0, 0), (0, 0), *((0, int(size)) for size in rest)])
        entry = numpy_helper.from_array(kernel, f"{node.output[0]}/padded")
        graph.initializer.append(entry)
        node.input[1] = entry.name
        attributes["pads"].ints[:] = np.maximum(pads, 0)
        if "kernel_shape" in attributes:
            attributes["kernel_shape"].ints[:] = kernel.shape[2:]


def scales(graph: onnx.GraphProto) -> list[str]:
    """Names of every Mul and Add of a constant that ``fold_scales`` had to leave: a sum or two readers are before it.

    int8 had better leave them in float too: two roundings less, and one pass over memory in place of two.
    """
    weights = initializers(graph)
    return [node.name for node in graph.node if _constant(node, weights) is not None]


def _constant(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> npt.NDArray[np.float32] | None:
    """The one constant of a Mul or Add; None for other nodes."""
    constants = list(filter(weights.__contains__, node.input))
    if node.op_type not in ("Mul", "Add") or len(node.input) != 2 or len(constants) != 1:
        return None
    return numpy_helper.to_array(weights[constants[0]])


def _fold(
    graph: onnx.GraphProto,
    conv: onnx.NodeProto,
    node: onnx.NodeProto,
    constant: npt.NDArray[np.float32],
    weights: dict[str, onnx.TensorProto],
) -> bool:
    """Let ``conv`` do what ``node`` does with its output; False where it cannot."""
    if not weights.keys() >= set(conv.input[1:]):
        return False
    kernel = numpy_helper.to_array(weights[conv.input[1]]).astype(np.float64)  # (out, in, h, w), or transposed
    axis = _CHANNEL_AXIS[conv.op_type]
    shape = [1] * kernel.ndim
    shape[axis] = channels = kernel.shape[axis]
    per_channel = (channels, *(1,) * (kernel.ndim - 2))  # as it broadcasts over (n, channels, h, w)
    if not _is_per_channel(constant, per_channel) or (axis == 1 and attribute(conv, "group", 1) != 1):
        return False
    values = np.broadcast_to(constant.reshape(-1).astype(np.float64), channels)
    bias = np.zeros(channels)
    if len(conv.input) > 2:
        bias = numpy_helper.to_array(weights[conv.input[2]]).astype(np.float64)
    if node.op_type == "Mul":
        kernel = kernel * values.reshape(shape)
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


def _is_per_channel(constant: npt.NDArray[np.float32], shape: tuple[int, ...]) -> bool:
    """One value for all channels, or a value for each, whose ``shape`` may have a 1 in front for the batch."""
    if constant.ndim > len(shape) + 1:
        return False
    return constant.size == 1 or constant.shape[-len(shape) :] == shape

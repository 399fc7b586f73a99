"""What the reduced ONNX formats, float16 and int8, have in common: head and tail of a graph, statistics on photos."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import onnx

from unet_export.formats.onnx_graph import in_order, initializers, layer_of_node, makers, readers
from unet_export.source_model import INPUT_NAME
from unet_export.transforms.rounding import moments

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Where the arithmetic is: a file with one of these in float is not int8."""

Measure = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float64]]
"""Values of a tensor on one photo, (1, channels, ...) -> what is to be averaged over photos."""

_MOST_TAPS = 1536
"""Largest number of weights of one output whose second moments are taken: their matrix has its square."""

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
    proto: onnx.ModelProto, wanted: Mapping[str, tuple[str, Measure]], images: npt.NDArray[np.uint8]
) -> dict[str, npt.NDArray[np.float64]]:
    """Means over photos of what is measured of a float graph's tensors.

    ``wanted``: by any name, a tensor and how to measure its values on one photo. A tensor that no node of the graph
    makes is left out.
    """
    import onnxruntime as ort

    probe = copy.deepcopy(proto)
    made = makers(probe.graph)
    wanted = {name: entry for name, entry in wanted.items() if entry[0] in made}
    if not wanted:
        return {}
    tensors = sorted({tensor for tensor, _ in wanted.values()})
    del probe.graph.output[:]
    for tensor in tensors:
        probe.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    sums = dict.fromkeys(wanted, np.zeros(()))
    for index in range(len(images)):
        values = dict(zip(tensors, session.run(tensors, {INPUT_NAME: images[index : index + 1]}), strict=True))
        for name, (tensor, measure) in wanted.items():
            sums[name] = sums[name] + measure(values[tensor])
    return {name: total / len(images) for name, total in sums.items()}


def patch_moments(node: onnx.NodeProto, kernel: Sequence[int]) -> Measure | None:
    """How to measure the second moments of what each output of a convolution sees, for ``rounding.compensated``.

    Args:
        node: a Conv.
        kernel: shape of its kernel, (out, in / groups, height, width).

    Returns:
        None where they are too many, or the convolution is none that is rounded so. Else a function of its input,
        (1, in, h, w): (taps, taps) of all its input channels' taps, or of a depthwise convolution (in, taps, taps).
    """
    attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    groups = attributes.get("group", 1)
    if len(kernel) != 4 or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    is_depthwise = groups == kernel[0] and kernel[1] == 1
    if set(attributes.get("dilations", [1])) != {1} or not (groups == 1 or is_depthwise):
        return None
    if math.prod(kernel[1:]) > _MOST_TAPS:
        return None
    top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
    down, across = attributes.get("strides", [1, 1])

    def measure(value: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        padded = np.pad(value[0], ((0, 0), (top, bottom), (left, right)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel[2:], (1, 2))[:, ::down, ::across]
        if groups == 1:  # (in, h', w', height, width) -> (pixels, taps)
            return moments(windows.transpose(1, 2, 0, 3, 4).reshape(-1, math.prod(kernel[1:])))
        of_channels = windows.reshape(len(windows), -1, math.prod(kernel[2:]))  # (in, pixels, taps)
        return moments(of_channels)

    return measure


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

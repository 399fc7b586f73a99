"""float32 ONNX graph -> float16 as storage alone, or float16 as arithmetic; names, input and output stay.

Storage halves a file for CPUs, which compute in float32: engines undo it once, when they load the file. Arithmetic is
for GPUs, and rounds every activation too: what it costs differs from network to network and is measured here.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Iterator, Mapping
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from unet_export.errors import ExportError
from unet_export.formats.onnx_graph import attribute, initializers, makers, nodes_of, redirect
from unet_export.formats.onnx_parts import WEIGHTED, cleaned, head_layers, patch_moments, photo_means, tail_of
from unet_export.source_model import INPUT_NAME, OUTPUT_NAME
from unet_export.transforms.rounding import (
    SHARE_OF_FLOAT32,
    compensated,
    diffused,
    held_by_float16,
    nearest_float16,
    stored_as_float16,
)
from unet_runtime.core.text import one_line

logger = logging.getLogger(__name__)

logging.getLogger("onnxruntime.transformers.float16").setLevel(logging.WARNING)  # it prints every node

_TARGET = 2.5e-3
"""Largest difference of a probability on the photos of calibration: half of what the gate allows on its own."""

_LARGEST = float(np.finfo(np.float16).max)

_FOLLOWING = ("Relu", "LeakyRelu", "Clip")
"""Activations that engines fuse with the convolution before."""


# --- storage ---------------------------------------------------------------------------------------


def store_float16(proto: onnx.ModelProto, images: npt.NDArray[np.uint8]) -> onnx.ModelProto:
    """The same arithmetic in float32, with kernels stored as float16, each behind a Cast.

    The smallest kernels, biases, and what float16 cannot hold stay float32.

    Args:
        proto: the float32 graph; it is left as it is.
        images: calibration photos, uint8 (n, h, w, 3), on which 1x1 kernels are rounded.
    """
    made = copy.deepcopy(proto)
    kernels = _kernels(made.graph)
    rounded = stored_as_float16({name: int(np.prod(entry.dims)) for name, entry in kernels.items()})
    known = _moments(proto, rounded, images)
    casts = []
    for node in made.graph.node:
        for name in node.input:
            if name not in rounded:
                continue
            rounded.remove(name)  # another node may read the same kernel
            values = numpy_helper.to_array(kernels[name])
            if held_by_float16(values):
                casts.append(_store(kernels[name], _rounded(values, known.get(name)), node.name))
    nodes = [*casts, *made.graph.node]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return cleaned(made, proto)


def _kernels(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """float32 kernels by name."""
    constants = initializers(graph)
    found = {}
    for node in graph.node:
        for name in node.input[:2] if node.op_type in WEIGHTED else ():
            entry = constants.get(name)
            if entry is not None and entry.data_type == onnx.TensorProto.FLOAT:
                found[name] = entry
    return found


def _moments(
    proto: onnx.ModelProto, kernels: Collection[str], images: npt.NDArray[np.uint8]
) -> Mapping[str, npt.NDArray[np.float64]]:
    """Second moments of what 1x1 convolutions read, by the kernel's name."""
    wanted = {}
    constants = initializers(proto.graph)
    for node in proto.graph.node:
        if node.op_type != "Conv" or node.input[1] not in kernels or attribute(node, "group", 1) != 1:
            continue
        shape = constants[node.input[1]].dims
        measure = patch_moments(node, shape)
        if set(shape[2:]) == {1} and measure is not None:
            wanted[node.input[1]] = (node.input[0], measure)
    return photo_means(proto, wanted, images)


def _rounded(values: npt.NDArray[np.float32], known: npt.NDArray[np.float64] | None = None) -> npt.NDArray[np.float16]:
    """A kernel in float16; ``known``: second moments of what it reads, where it is 1x1."""
    if known is not None:
        values = compensated(values.reshape(len(values), -1), known, nearest_float16).reshape(values.shape)
    elif values.ndim > 2:
        values = diffused(values)
    return values.astype(np.float16)


def _store(entry: onnx.TensorProto, values: npt.NDArray[np.float16], node: str) -> onnx.NodeProto:
    """Put ``values`` in place of a constant, under a name of their own; the Cast that makes float32 of them."""
    name = f"{entry.name}_float16"
    cast = onnx.helper.make_node("Cast", [name], [entry.name], name=f"{node}/float16", to=onnx.TensorProto.FLOAT)
    entry.CopyFrom(numpy_helper.from_array(values, name))
    return cast


def check_stored(proto: onnx.ModelProto) -> None:
    """Raise ExportError where anything but a Cast reads float16, or more kernels are float32 than should be."""
    halves = set()
    for entry in proto.graph.initializer:
        if entry.data_type == onnx.TensorProto.FLOAT16:
            halves.add(entry.name)
    wrong = [node.name for node in proto.graph.node if node.op_type != "Cast" and halves.intersection(node.input)]
    if wrong:
        raise ExportError(f"{', '.join(wrong)}: computes in float16, expected float32")
    wide = sum(int(np.prod(entry.dims)) for entry in _kernels(proto.graph).values())
    stored = sum(int(np.prod(entry.dims)) for entry in proto.graph.initializer if entry.name in halves)
    if wide > SHARE_OF_FLOAT32 * (wide + stored):
        raise ExportError(
            f"{wide:,} of {wide + stored:,} weights are float32: beyond the range of float16, ±{_LARGEST:g}"
        )


# --- arithmetic ------------------------------------------------------------------------------------


def to_float16(proto: onnx.ModelProto, images: npt.NDArray[np.uint8]) -> onnx.ModelProto:
    """Weights and activations in float16, but for the head with its softmax, and the first layers where need be.

    The first layers' rounding is passed on by all others, so as many of them stay float32 as bring the result on
    ``images`` to within half of what the gate allows: none if it is so anyway, else 1, 2, 4, ... up to half of all.

    Args:
        proto: the float32 graph; it is left as it is.
        images: calibration photos, uint8 (n, h, w, 3).

    Raises:
        ExportError: a weight that float16 cannot hold, or a graph that the checker refuses.
    """
    layers = sum(node.op_type in WEIGHTED for node in proto.graph.node)
    expected = _probabilities(proto, images)
    made = _halved(proto, 0)
    first = 0
    while not _difference(made, images, expected) <= _TARGET and first < layers // 2:
        first = min(max(1, 2 * first), layers // 2)
        logger.info("float16: the first %d of %d layers with weights stay float32", first, layers)
        made = _halved(proto, first)
    return made


def _probabilities(proto: onnx.ModelProto, images: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.float32]]:
    import onnxruntime as ort

    try:
        session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        return [session.run([OUTPUT_NAME], {INPUT_NAME: image[np.newaxis]})[0] for image in images]
    except Exception as error:  # the engine's errors share no base
        raise ExportError(f"ONNX Runtime refuses the graph ({one_line(error)}): leave this format out") from error


def _difference(
    proto: onnx.ModelProto, images: npt.NDArray[np.uint8], expected: list[npt.NDArray[np.float32]]
) -> float:
    """Largest difference of a probability; NaN where one is NaN."""
    pairs = zip(expected, _probabilities(proto, images), strict=True)
    return float(np.max([np.abs(before - after).max() for before, after in pairs]))


def _halved(proto: onnx.ModelProto, first: int) -> onnx.ModelProto:
    """float16 but for the ``first`` layers with weights, and the head."""
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    kept = [*_first_nodes(proto.graph, first), *tail_of(proto.graph), *nodes_of(proto, head_layers(proto))]
    source = copy.deepcopy(proto)
    precise: set[str] = set()
    for node in source.graph.node:
        if node.name in kept:
            precise.update(node.input)
    _round_kernels(source.graph, precise)
    blocked = DEFAULT_OP_BLOCK_LIST
    made = convert_float_to_float16(source, keep_io_types=True, op_block_list=blocked, node_block_list=kept)
    _drop_round_trips(made.graph)
    return cleaned(made, proto)


def _first_nodes(graph: onnx.GraphProto, layers: int) -> Iterator[str]:
    """Names of the nodes up to the last of the first ``layers`` with weights, its activation included."""
    left = layers
    for node in graph.node:
        if left == 0 and node.op_type not in _FOLLOWING:
            return
        yield node.name
        left -= node.op_type in WEIGHTED


def _round_kernels(graph: onnx.GraphProto, kept: set[str]) -> None:
    """Round weights to values of float16, in place, so that the converter has nothing to round in a kernel."""
    for entry in graph.initializer:
        values = numpy_helper.to_array(entry)
        if values.dtype != np.float32 or entry.name in kept:
            continue
        if not held_by_float16(values):
            raise ExportError(f"weight {entry.name} reaches {np.abs(values).max():g}, float16 ends at {_LARGEST:g}")
        if values.ndim > 2:
            entry.CopyFrom(numpy_helper.from_array(diffused(values), entry.name))


def _drop_round_trips(graph: onnx.GraphProto) -> None:
    """Connect float32 nodes between which the converter goes through float16 and back.

    ONNX Runtime removes such Casts for another entry point: https://github.com/microsoft/onnxruntime/pull/12871
    """
    made_by = makers(graph)
    outputs = set(map(attrgetter("name"), graph.output))
    for node in graph.node:
        down = made_by.get(node.input[0]) if node.op_type == "Cast" else None
        if down is None or not down.name.endswith("_cast_to_fp16_node"):
            continue
        source = down.input[0]
        if node.output[0] in outputs:
            maker = made_by[source]
            maker.output[list(maker.output).index(source)] = node.output[0]
            redirect(graph, source, node.output[0])
            node.output[0] = f"{source}_unused"
        else:
            redirect(graph, node.output[0], source)

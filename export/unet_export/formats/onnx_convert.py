"""Keras model -> ONNX float32: BatchNormalization folded, names set, the same bytes every time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import onnx

from unet_export.errors import ExportError
from unet_export.formats import keras_layers
from unet_export.formats.onnx_graph import (
    fold_scales,
    guard_zero_padding,
    leave_out_empty_inputs,
    pad_transposed_kernels,
    round_scales_up,
    tidy,
)
from unet_export.formats.onnx_model import is_adopted
from unet_export.source_model import INPUT_NAME, OUTPUT_NAME, copy_with_input
from unet_runtime.core.artifact import append_to_onnx
from unet_runtime.core.spec import ModelSpec, Precision
from unet_runtime.core.text import one_line

logger = logging.getLogger(__name__)

OPSET = 17
"""Not the newest: nothing in these graphs needs one, and 17 is read by every ONNX Runtime since 1.12
(2022) and by the vendors' compilers for devices, which lag behind."""

LABELS_NAME = "labels"
"""The second output, where it is asked for."""

DIMENSION_NAMES = ("batch", "height", "width")
"""Names of dimensions that are not fixed, in NHWC."""

_TRIAL_SIDE = 256
"""Height and width to convert a model with that has none of its own, pixels: many networks' pooling divides it."""

_PRODUCER = "unet-edge"
_LAYOUT_TRANSPOSES = 2
"""NHWC outside, NCHW inside: one at each end."""


def build_onnx(model: Any, name: str, *, dynamic: bool = False, labels: bool = False) -> onnx.ModelProto:
    """The clean graph: uint8 ``image`` (batch, h, w, 3) -> float32 ``probabilities`` (batch, h', w', classes).

    Its nodes are called after the Keras layers they come from: see ``onnx_graph.nodes_of``.

    Args:
        model: the Keras model; it is left as it is.
        name: of the graph.
        dynamic: height and width free, as the batch is; what the network pools must divide them.
        labels: a second output ``labels``, uint8 (batch, h', w'): the most probable class, the lower id of equals.

    Raises:
        ExportError: tf2onnx cannot convert the model, and the message names the layers; or the checker refuses the
            graph, or it is not clean.
    """
    fixed = None not in model.inputs[0].shape[1:3]
    graph, ir_version = _convert(model, name) if fixed and not dynamic else _convert_for_any_size(model, name)
    if labels:
        _add_labels(graph)
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    clean = onnx.helper.make_model(graph, producer_name=_PRODUCER, opset_imports=opsets, ir_version=ir_version)
    check(clean)
    for remark in _remarks(graph):
        logger.info("the ONNX graph has %s: valid, and a little slower", remark)
    return clean


def finish(proto: onnx.ModelProto, spec: ModelSpec, precision: Precision, **provenance: Any) -> bytes:
    """The whole file, spec and digest included; ``provenance``: further fields of the spec's provenance."""
    tools = {"onnx": onnx.__version__}
    if not is_adopted(spec):
        import tensorflow as tf
        import tf2onnx

        tools |= {"tensorflow": tf.__version__, "tf2onnx": tf2onnx.__version__}
    if precision != "float32":
        import onnxruntime

        tools["onnxruntime"] = onnxruntime.__version__
    described = spec.with_precision(precision, tools={**spec.provenance.tools, **tools}, **provenance)
    return append_to_onnx(proto.SerializeToString(deterministic=True), described)


def _convert(model: Any, name: str, *, free: bool = False) -> tuple[onnx.GraphProto, int]:
    """The clean graph and its IR version; ``free``: height and width by name, whatever they are in ``model``."""
    proto = keras_layers.convert(model, OPSET)
    fold_scales(proto.graph)
    guard_zero_padding(proto.graph)
    leave_out_empty_inputs(proto.graph)
    round_scales_up(proto.graph)
    pad_transposed_kernels(proto.graph)
    graph = tidy(proto.graph, name, keras_layers.layer_of)
    _name_dimensions(graph, free, same_size=model.outputs[0].shape[1:3] == model.inputs[0].shape[1:3])
    return graph, proto.ir_version


def _convert_for_any_size(model: Any, name: str) -> tuple[onnx.GraphProto, int]:
    """A graph that comes out the same for two sizes has neither of them inside, so it serves all sizes.

    tf2onnx' own way of leaving a size open surrounds every transposed convolution with forty nodes that compute its
    padding, since ONNX takes its output shape as an attribute only: https://github.com/onnx/onnx/issues/1772. It is
    used where the two graphs differ.
    """
    height, width = model.inputs[0].shape[1:3]
    height, width = height or _TRIAL_SIDE, width or _TRIAL_SIDE
    first, version = _convert(_resized(model, height, width), name, free=True)
    second, _ = _convert(_resized(model, 2 * height, 3 * width), name, free=True)
    if first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True):
        return first, version
    return _convert(_resized(model, None, None), name, free=True)


def _resized(model: Any, height: int | None, width: int | None) -> Any:
    """The same network for another height and width; None: any. Raises ExportError where Keras cannot build it so."""
    _, *own, channels = model.inputs[0].shape
    try:
        return copy_with_input(model, (height, width, channels), model.inputs[0].dtype)
    except Exception as error:  # layers that need their size raise errors of all kinds
        raise ExportError(
            f"the model cannot be built for any height and width ({one_line(error)}): export it with its own, "
            f"{own[0]}x{own[1]}"
        ) from error


def _name_dimensions(graph: onnx.GraphProto, free: bool, *, same_size: bool) -> None:
    """tf2onnx calls what it does not know ``unk__222``; a result of another size than the photo stays without name."""
    for value, named in ((graph.input[0], True), (graph.output[0], same_size)):
        for position, name in enumerate(DIMENSION_NAMES):
            dimension = value.type.tensor_type.shape.dim[position]
            if position == 0 or (free and named):
                dimension.dim_param = name
            elif free:
                dimension.Clear()


def _add_labels(graph: onnx.GraphProto) -> None:
    count, classes = len(graph.node), f"{LABELS_NAME}_int64"
    # ONNX's ArgMax takes the first of equals, as numpy's does.
    argmax = onnx.helper.make_node(
        "ArgMax", [OUTPUT_NAME], [classes], name=f"/ArgMax_{count}", axis=3, keepdims=0, select_last_index=0
    )
    cast = onnx.helper.make_node("Cast", [classes], [LABELS_NAME], name=f"/Cast_{count + 1}", to=onnx.TensorProto.UINT8)
    graph.node.extend((argmax, cast))
    output = graph.output.add()
    output.CopyFrom(graph.output[0])
    output.name = LABELS_NAME
    output.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    del output.type.tensor_type.shape.dim[3:]


def check(proto: onnx.ModelProto) -> None:
    """Raise ExportError, naming all that is wrong, for a graph that an engine would refuse or call else."""
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception as error:  # the checker's and the shape inference's errors share no base
        raise ExportError(f"onnx {onnx.__version__} refuses the exported graph: {error}") from error
    if problems := list(_problems(proto.graph)):
        raise ExportError(f"the exported ONNX graph breaks the contract: {'; '.join(problems)}")


def _remarks(graph: onnx.GraphProto) -> Iterator[str]:
    """Properties of the graph that cost time, in words: the gate proves that they cost nothing else."""
    operators = list(map(attrgetter("op_type"), graph.node))
    if norms := operators.count("BatchNormalization"):
        yield f"{norms} BatchNormalization nodes that no convolution before could take in"
    if (transposes := operators.count("Transpose")) > _LAYOUT_TRANSPOSES:
        yield f"{transposes} Transpose nodes, where the layouts of input and output need {_LAYOUT_TRANSPOSES}"


def _problems(graph: onnx.GraphProto) -> Iterator[str]:
    """Properties of the graph that engines accept and that break the contract."""
    inputs, outputs = list(map(attrgetter("name"), graph.input)), list(map(attrgetter("name"), graph.output))
    if inputs != [INPUT_NAME] or outputs not in ([OUTPUT_NAME], [OUTPUT_NAME, LABELS_NAME]):
        yield f"inputs {inputs} and outputs {outputs}, expected {INPUT_NAME} and {OUTPUT_NAME}"
    if foreign := sorted({node.op_type for node in graph.node if node.domain}):
        yield f"operators outside ONNX: {', '.join(foreign)}"

"""The graph of an adopted ONNX file rewritten: uint8 photos in, probabilities out, its own network between."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from unet_export.errors import ExportError
from unet_export.formats import onnx_graph
from unet_export.source_model import INPUT_NAME, OUTPUT_NAME
from unet_runtime.core.artifact import Artifact
from unet_runtime.core.spec import ALL_OPTIMIZERS, InputSpec, ModelSpec
from unet_runtime.core.text import one_line

_OPSET = 17
"""What an older graph is brought to: integers per channel need 13."""

_LUMA = np.array([19595, 38470, 7471], np.float32)
"""As ``core.tensors``: sums of 2^24 at most, which float32 holds exactly."""


_MASK, _REST = "their/mask", "their/rest"
"""Tensors of a one-channel model: what the second class has, and the first."""

Step = tuple[str, list[str], dict[str, Any]]
"""An operator that is added: its kind, its inputs beside the one before it, its attributes."""

_ACTIVATIONS: dict[str, Step] = {"softmax": ("Softmax", [], {"axis": 3}), "sigmoid": ("Sigmoid", [], {})}


def rewritten(artifact: Artifact) -> onnx.ModelProto:
    """The file's network behind uint8 ``image`` (n, h, w, 3) and before float32 ``probabilities`` (n, h', w', classes).

    Raises:
        ExportError: control flow, or operators that ONNX itself has not.
    """
    path, spec = artifact.path, artifact.spec
    proto = _simplified(path, _current(path, onnx.load_from_string(artifact.content)), spec.disabled_optimizers)
    graph = proto.graph
    if flow := sorted({node.op_type for node in graph.node if any(entry.HasField("g") for entry in node.attribute)}):
        raise ExportError(f"{path}: control flow ({', '.join(flow)}): export the model for one fixed path")
    if foreign := sorted({f"{node.domain}.{node.op_type}" for node in graph.node if node.domain}):
        raise ExportError(f"{path}: operators outside ONNX: {', '.join(foreign)}: export it with ONNX's own")
    batch = _batch(path, graph)
    _name_nodes(graph)
    constants = set(map(attrgetter("name"), graph.initializer))
    (source,) = (entry for entry in graph.input if entry.name not in constants)
    result = next(entry for entry in graph.output if spec.output.name in ("", entry.name))
    added = _Added()
    front = list(_front(spec.input, added, source.name))
    back = list(_back(spec, added, result))
    made = helper.make_graph(
        [*front, *graph.node, *back],
        spec.name,
        [helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, [batch, spec.input.height, spec.input.width, 3])],
        [
            helper.make_tensor_value_info(
                OUTPUT_NAME, TensorProto.FLOAT, [batch, spec.output.height, spec.output.width, len(spec.classes)]
            )
        ],
        [*graph.initializer, *added.constants],
    )
    onnx_graph.fold_scales(made)
    onnx_graph.guard_zero_padding(made)
    tidied = onnx_graph.tidy(made, spec.name, lambda name: name)
    clean = helper.make_model(
        tidied, producer_name="unet-edge", opset_imports=proto.opset_import, ir_version=proto.ir_version
    )
    try:
        onnx.checker.check_model(clean, full_check=True)
    except Exception as error:  # the checker's and the shape inference's errors share no base
        raise ExportError(f"{path}: its graph cannot be rewritten ({one_line(error)})") from error
    return clean


def _current(path: Path, proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model in an opset that integers per channel need."""
    del proto.metadata_props[:]
    version = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), _OPSET)
    if version >= _OPSET:
        return proto
    from onnx import version_converter

    try:
        return version_converter.convert_version(proto, _OPSET)
    except Exception as error:  # its errors share no base
        raise ExportError(
            f"{path}: opset {version} cannot be brought to {_OPSET} ({one_line(error)}): export it with opset {_OPSET}"
        ) from error


def _simplified(path: Path, proto: onnx.ModelProto, disabled: Sequence[str]) -> onnx.ModelProto:
    """Constants folded, BatchNormalization fused: ONNX Runtime's basic rules, which stay within ONNX."""
    import onnxruntime

    from unet_runtime.engines.onnxruntime_cpu import session_options

    options = session_options(None, disabled)
    if ALL_OPTIMIZERS not in disabled:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    try:
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder) / "simple.onnx"
            options.optimized_model_filepath = str(place)
            onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
            made = onnx.load(place)
    except OSError:
        raise
    except Exception as error:  # the engine's exceptions share no base
        raise ExportError(f"{path}: ONNX Runtime cannot simplify it ({one_line(error)})") from error
    used = {node.domain for node in made.graph.node}
    opsets = [copy.deepcopy(entry) for entry in made.opset_import if entry.domain in used or entry.domain == ""]
    del made.opset_import[:]
    made.opset_import.extend(opsets)
    return made


def _batch(path: Path, graph: onnx.GraphProto) -> int | str:
    """The batch of the new graph: free, or the file's 1."""
    constants = set(map(attrgetter("name"), graph.initializer))
    sizes = [entry.type.tensor_type.shape.dim[0].dim_value for entry in graph.input if entry.name not in constants]
    if sizes[0] > 1:
        raise ExportError(f"{path}: takes {sizes[0]} pictures at a time: export it for one, or for any number")
    return sizes[0] or "batch"


def _name_nodes(graph: onnx.GraphProto) -> None:
    """Give every node a name of its own that stands for a layer, in place: other tools' have slashes, or none."""
    known: set[str] = set()
    for index, node in enumerate(graph.node):
        name = node.name.strip("/").replace("/", ".") or f"{node.op_type}_{index}"
        if name in known:
            name = f"{name}_{index}"
        known.add(name)
        node.name = name
        node.doc_string = ""


class _Added:
    """Constants of added nodes."""

    def __init__(self) -> None:
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, name: str, values: Any, dtype: npt.DTypeLike = np.float32) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values, dtype), f"{INPUT_NAME}/{name}"))
        return f"{INPUT_NAME}/{name}"


def _front(spec: InputSpec, constant: _Added, target: str) -> Iterator[onnx.NodeProto]:
    """Nodes from the photo to the file's input tensor ``target``."""
    steps: list[Step] = []
    if spec.channels == "bgr":
        steps.append(("Gather", [constant("order", [2, 1, 0], np.int64)], {"axis": 3}))
    scale, offset = _affine(spec)
    is_float = spec.dtype != "uint8" or spec.channels == "grey" or bool((scale != 1).any() or offset.any())
    if is_float:
        steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
    if spec.channels == "grey":
        steps += [
            ("Mul", [constant("luma", _LUMA)], {}),
            ("ReduceSum", [constant("axis", [3], np.int64)], {"keepdims": 1}),
            ("Add", [constant("half", np.float32(0x8000))], {}),
            ("Mul", [constant("shift", np.float32(1 / 65536))], {}),
            ("Floor", [], {}),
        ]
    axes = (1, 1, 1, spec.depth)
    if spec.layout == "nchw":
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2]}))
        axes = (1, spec.depth, 1, 1)
    if (scale != 1).any():
        steps.append(("Mul", [constant("scale", _reduced(scale, axes))], {}))
    if offset.any():
        steps.append(("Add", [constant("offset", _reduced(offset, axes))], {}))
    final = {"uint8": TensorProto.UINT8, "int8": TensorProto.INT8, "float16": TensorProto.FLOAT16}.get(spec.dtype)
    if is_float and final:
        steps.append(("Cast", [], {"to": final}))
    yield from _chain(steps, INPUT_NAME, target)


def _affine(spec: InputSpec) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Factor and summand of each channel that make a byte the value in the input tensor."""
    low, high = spec.range
    std = np.array(spec.std or np.ones(spec.depth))
    return (high - low) / 255 / std, (low - np.array(spec.mean or np.zeros(spec.depth))) / std


def _reduced(values: npt.NDArray[np.float64], axes: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """One value where all channels have the same, else one a channel."""
    return values[0] if (values == values[0]).all() else values.reshape(axes)


def _back(spec: ModelSpec, constant: _Added, source: Any) -> Iterator[onnx.NodeProto]:
    """Nodes from the file's output ``source`` to probabilities."""
    result, classes = spec.output, len(spec.classes)
    size = [result.height, result.width]
    kind = source.type.tensor_type
    steps: list[Step] = []
    if kind.elem_type != TensorProto.FLOAT:
        steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
    if result.kind == "labels":
        steps += [
            ("Reshape", [constant("map", [-1, *size, 1], np.int64)], {}),
            ("Equal", [constant("ids", np.arange(classes, dtype=np.float32).reshape(1, 1, 1, classes))], {}),
            ("Cast", [], {"to": TensorProto.FLOAT}),
        ]
        yield from _chain(steps, source.name, OUTPUT_NAME)
        return
    depth = 1 if result.kind == "mask" else classes
    axes = [depth, *size] if result.layout == "nchw" else [*size, depth]
    if len(kind.shape.dim) != 1 + len(axes):
        steps.append(("Reshape", [constant("map", [-1, *axes], np.int64)], {}))
    if result.layout == "nchw":
        steps.append(("Transpose", [], {"perm": [0, 2, 3, 1]}))
    end = [_ACTIVATIONS[result.activation]] if result.logits else []
    if result.kind == "classes":
        yield from _chain([*steps, *end], source.name, OUTPUT_NAME)
        return
    one = [*steps, ("Identity", [], {})]
    yield from _chain(one, source.name, _MASK)
    rest: Step = ("Neg", [], {}) if result.logits else ("Sub", [constant("one", np.float32(1))], {})
    (node,) = _chain([rest], _MASK, _REST)
    if node.op_type == "Sub":
        node.input[:] = reversed(node.input)
    yield node
    yield from _chain([("Concat", [_MASK], {"axis": 3}), *end], _REST, OUTPUT_NAME)


def _chain(steps: Sequence[Step], source: str, target: str) -> Iterator[onnx.NodeProto]:
    """Nodes one behind the other; each takes the one before it and constants."""
    tensor = source
    for index, (kind, inputs, attributes) in enumerate(steps or [("Identity", [], {})]):
        result = target if index >= len(steps) - 1 else f"{target}/{index}"
        yield helper.make_node(kind, [tensor, *inputs], [result], name="", **attributes)
        tensor = result

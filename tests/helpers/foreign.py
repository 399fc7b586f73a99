"""Small models as other tools write them, and what they must give: one 1x1 convolution, whose result NumPy knows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from unet_runtime.core.datasets.classes import named_classes
from unet_runtime.core.spec import InputSpec, ModelSpec, OutputSpec

SIDE = 32

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

_TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


@dataclass(frozen=True)
class Network:
    """What such a model is."""

    layout: str = "nchw"
    dtype: str = "float32"
    depth: int = 3
    channels: int = 3
    """Channels of the output, before an argmax."""
    activation: str = ""
    """``softmax``, ``sigmoid``, ``argmax`` or nothing: logits."""
    pool: int = 1
    """Factor by which the output is smaller."""
    enlarge: int = 1
    """Factor by which it is larger."""
    batch: int | str = "batch"
    size: tuple[int | str, int | str] = (SIDE, SIDE)
    second: bool = False
    """Whether another output comes first."""
    keepdims: bool = False
    """Whether an argmax keeps its axis."""

    def weights(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """(channels, depth) and (channels,)."""
        rng = np.random.default_rng(self.channels * 10 + self.depth)
        return rng.normal(0, 2, (self.channels, self.depth)).astype(np.float32), rng.normal(0, 1, self.channels).astype(
            np.float32
        )

    def onnx(self) -> bytes:
        """The model as ONNX, without any metadata."""
        kernel, bias = self.weights()
        nodes: list[onnx.NodeProto] = []
        tensor = "pixels"

        def add(kind: str, *inputs: str, to: str = "", **attributes: Any) -> str:
            result = to or f"{kind.lower()}{len(nodes)}"
            nodes.append(helper.make_node(kind, inputs, [result], name=f"/net/{kind}{len(nodes)}", **attributes))
            return result

        if self.dtype == "uint8":
            tensor = add("Cast", tensor, to="floats")
            nodes[-1].attribute.append(helper.make_attribute("to", TensorProto.FLOAT))
        if self.layout == "nhwc":
            tensor = add("Transpose", tensor, perm=[0, 3, 1, 2])
        tensor = add("Conv", tensor, "kernel", "bias")
        if self.pool > 1:
            tensor = add("AveragePool", tensor, kernel_shape=[self.pool] * 2, strides=[self.pool] * 2)
        if self.enlarge > 1:
            tensor = add("Resize", tensor, "", "scales", mode="nearest")
        logits = tensor
        if self.layout == "nhwc":
            tensor = add("Transpose", tensor, perm=[0, 2, 3, 1])
        axis = 3 if self.layout == "nhwc" else 1
        if self.activation == "argmax":
            tensor = add("ArgMax", tensor, axis=axis, keepdims=int(self.keepdims))
        elif self.activation:
            settings: dict[str, Any] = {"axis": axis} if self.activation == "softmax" else {}
            tensor = add(self.activation.capitalize(), tensor, **settings)
        add("Identity", tensor, to="out")
        float_type = _TYPES["float16" if self.dtype == "float16" else "float32"]
        depths = [self.depth, *self.size] if self.layout == "nchw" else [*self.size, self.depth]
        outputs = [self._output("out", float_type)]
        if self.second:
            add("Identity", logits, to="aux")
            outputs.insert(0, self._output("aux", float_type))
        number = np.float16 if self.dtype == "float16" else np.float32
        constants = [
            numpy_helper.from_array(kernel.reshape(*kernel.shape, 1, 1).astype(number), "kernel"),
            numpy_helper.from_array(bias.astype(number), "bias"),
            numpy_helper.from_array(np.array([1, 1, self.enlarge, self.enlarge], np.float32), "scales"),
        ]
        source = helper.make_tensor_value_info("pixels", _TYPES[self.dtype], [self.batch, *depths])
        graph = helper.make_graph(nodes, "theirs", [source], outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.checker.check_model(model)
        content: bytes = model.SerializeToString()
        return content

    def _output(self, name: str, float_type: int) -> Any:
        sizes: list[int | str | None] = []
        for size in self.size:
            sizes.append(size * self.enlarge // self.pool if isinstance(size, int) else None)
        if self.activation == "argmax":
            if self.keepdims:
                sizes.insert(0 if self.layout == "nchw" else 2, 1)
            return helper.make_tensor_value_info(name, TensorProto.INT64, [self.batch, *sizes])
        sizes.insert(0 if self.layout == "nchw" else 2, self.channels)
        return helper.make_tensor_value_info(name, float_type, [self.batch, *sizes])

    def expected(self, images: npt.NDArray[np.uint8], source: InputSpec) -> npt.NDArray[np.float64]:
        """What the model says of uint8 (n, h, w, 3) RGB, in float64: (n, h', w', classes), each by definition."""
        low, high = source.range
        x = images.astype(np.float64)
        if source.channels == "bgr":
            x = x[..., ::-1]
        if source.channels == "grey":
            x = np.floor(x @ np.array([19595, 38470, 7471]) / 65536 + 0.5)[..., np.newaxis]
        x = low + x / 255 * (high - low)
        x = (x - np.array(source.mean or 0)) / np.array(source.std or 1)
        kernel, bias = self.weights()
        z: npt.NDArray[np.float64] = x @ kernel.T.astype(np.float64) + bias
        n, h, w, c = z.shape
        z = z.reshape(n, h // self.pool, self.pool, w // self.pool, self.pool, c).mean(axis=(2, 4))
        z = z.repeat(self.enlarge, axis=1).repeat(self.enlarge, axis=2)
        if self.activation == "argmax":
            one_hot: npt.NDArray[np.float64] = np.eye(c)[z.argmax(axis=-1)]
            return one_hot
        if c == 1:
            z = np.concatenate([-z, z], axis=-1)
        if c == 1 or self.activation == "sigmoid":
            return np.reciprocal(1 + np.exp(-z))
        e = np.exp(z - z.max(axis=-1, keepdims=True))
        return np.divide(e, e.sum(axis=-1, keepdims=True))

    def spec(self, **fields: Any) -> ModelSpec:
        """Spec of the model, for an input as ``fields`` say beside what the network is."""
        height, width = (side if isinstance(side, int) else SIDE for side in self.size)
        kind = {1: "mask"}.get(self.channels, "classes")
        if self.activation == "argmax":
            kind = "labels"
        names = ["background", "pet", "border", "sky"][: max(2, self.channels)]
        return ModelSpec(
            name="theirs",
            architecture="unknown",
            license="unknown",
            input=InputSpec(height, width, dtype=self.dtype, layout=self.layout, **fields),  # type: ignore[arg-type]
            output=OutputSpec(
                height * self.enlarge // self.pool,
                width * self.enlarge // self.pool,
                activation="sigmoid" if kind == "mask" or self.activation == "sigmoid" else "softmax",
                logits=not self.activation,
                kind=kind,  # type: ignore[arg-type]
                layout=self.layout,  # type: ignore[arg-type]
                name="out" if self.second else "",
            ),
            classes=named_classes(names),
        )


class _Flatbuffer:
    """A ``.tflite`` in the making."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema: Any = schema
        self.model, self.graph = schema.ModelT(), schema.SubGraphT()
        self.model.version, self.model.subgraphs, self.model.operatorCodes = 3, [self.graph], []
        self.model.buffers = [schema.BufferT()]
        self.graph.tensors, self.graph.operators = [], []

    def tensor(self, name: str, shape: list[int], kind: str = "FLOAT32", values: Any = None) -> int:
        entry = self.schema.TensorT()
        entry.name, entry.shape, entry.buffer = name.encode(), np.array(shape, np.int32), 0
        entry.type = getattr(self.schema.TensorType, kind)
        if values is not None:
            buffer = self.schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            entry.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(entry)
        return len(self.graph.tensors) - 1

    def operator(self, kind: str, inputs: list[int], output: int, options: str = "", **settings: Any) -> int:
        code, entry = self.schema.OperatorCodeT(), self.schema.OperatorT()
        code.builtinCode = code.deprecatedBuiltinCode = getattr(self.schema.BuiltinOperator, kind)
        code.version = 1
        self.model.operatorCodes.append(code)
        entry.opcodeIndex = len(self.model.operatorCodes) - 1
        entry.inputs, entry.outputs = np.array(inputs, np.int32), np.array([output], np.int32)
        if options:
            entry.builtinOptionsType = getattr(self.schema.BuiltinOptions, options)
            entry.builtinOptions = getattr(self.schema, f"{options}T")()
            for name, value in settings.items():
                setattr(entry.builtinOptions, name, value)
        self.graph.operators.append(entry)
        return output

    def bytes(self, source: int, result: int) -> bytes:
        from ai_edge_litert.tools import flatbuffer_utils

        self.graph.inputs, self.graph.outputs = np.array([source], np.int32), np.array([result], np.int32)
        return bytes(flatbuffer_utils.convert_object_to_bytearray(self.model))


def tflite(network: Network, *, scale: float = 0.0, zero_point: int = 0) -> bytes:
    """A network in NHWC as a ``.tflite``; with ``scale`` its input is uint8 in such steps."""
    file = _Flatbuffer()
    kernel, bias = network.weights()
    shape = [1, *map(int, network.size)]
    source = pixels = file.tensor("pixels", [*shape, network.depth], "UINT8" if scale else "FLOAT32")
    if scale:
        steps = file.schema.QuantizationParametersT()
        steps.scale, steps.zeroPoint = [scale], [zero_point]
        file.graph.tensors[source].quantization = steps
        pixels = file.operator("DEQUANTIZE", [source], file.tensor("floats", [*shape, network.depth]))
    weights = file.tensor("kernel", [len(kernel), 1, 1, network.depth], values=kernel)
    offset = file.tensor("bias", [len(kernel)], values=bias)
    result = file.tensor("logits", [*shape, network.channels])
    ones = dict.fromkeys(("strideW", "strideH", "dilationWFactor", "dilationHFactor"), 1)
    file.operator("CONV_2D", [pixels, weights, offset], result, "Conv2DOptions", padding=1, **ones)
    if network.activation == "argmax":
        axis = file.tensor("axis", [], "INT32", np.array(3, np.int32))
        labels = file.tensor("out", shape, "INT64")
        kind = file.schema.TensorType.INT64
        result = file.operator("ARG_MAX", [result, axis], labels, "ArgMaxOptions", outputType=kind)
    elif network.activation:
        target = file.tensor("out", [*shape, network.channels])
        if network.activation == "softmax":
            result = file.operator("SOFTMAX", [result], target, "SoftmaxOptions", beta=1.0)
        else:
            result = file.operator("LOGISTIC", [result], target)
    return file.bytes(source, result)

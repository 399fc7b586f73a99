"""Two ``.onnx`` files, float32 and int8 (QDQ), with the activations that both have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from unet_export.diagnosis.layer_errors import Grid, Tensor, Values, noise_to_signal, readers_of, upstream
from unet_export.errors import ExportError
from unet_export.formats.onnx_graph import layer_of_node

_KERNELS = {"Conv": 1, "ConvTranspose": 0}
"""Axis of the kernel's input channels."""

_FUSED = ("Relu", "LeakyRelu", "Clip")
"""What engines compute together with the kernel before."""

_CHANNELS_FIRST, _CHANNELS_LAST = 1, -1


class _Graph:
    """One file's graph, by the names of its tensors."""

    def __init__(self, content: bytes) -> None:
        self.model = onnx.load_model_from_string(content)
        self.makers = {tensor: node for node in self.model.graph.node for tensor in node.output}
        self._constants = {entry.name: entry for entry in self.model.graph.initializer}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.model.graph.node:
            for tensor in node.input:
                self._readers.setdefault(tensor, []).append(node)

    def inputs(self, tensor: str) -> list[str]:
        return list(self.makers[tensor].input) if tensor in self.makers else []

    def constant(self, name: str) -> npt.NDArray[Any]:
        """Of a weight, a scale or a zero point."""
        return numpy_helper.to_array(self._constants[name])

    def quantizer(self, tensor: str) -> tuple[Grid, str] | None:
        """How a tensor is rounded, and the name it has afterwards, in float again."""
        for node in self._readers.get(tensor, []):
            if node.op_type != "QuantizeLinear":
                continue
            scale, zero = (self.constant(name) for name in node.input[1:3])
            limits = np.iinfo(zero.dtype)
            for reader in self._readers.get(node.output[0], []):
                if reader.op_type == "DequantizeLinear":
                    grid = Grid(float(scale), int(zero), int(limits.min), int(limits.max))
                    return grid, str(reader.output[0])
        return None

    def weighted(self, tensor: str) -> onnx.NodeProto | None:
        """The node with a kernel that makes a tensor, alone or with an activation behind."""
        node = self.makers.get(tensor)
        while node is not None and node.op_type in _FUSED:
            node = self.makers.get(node.input[0])
        return node if node is not None and node.op_type in _KERNELS else None

    def kernel(self, node: onnx.NodeProto) -> Values:
        """float32, dequantised where it is not."""
        name = node.input[1]
        if name in self._constants:
            return np.asarray(self.constant(name), np.float32)
        source = self.makers[name]
        raw, scale, zero = (self.constant(part).astype(np.float64) for part in source.input)
        axis = next((entry.i for entry in source.attribute if entry.name == "axis"), 1)
        shape = [1] * raw.ndim
        shape[axis if scale.size > 1 else 0] = -1
        return np.asarray((raw - zero.reshape(shape)) * scale.reshape(shape), np.float32)

    def session(self, outputs: Sequence[str]) -> Any:
        """Runs the graph as written: an engine's fusions would hide what is between."""
        import onnxruntime as ort

        copy = onnx.ModelProto()
        copy.CopyFrom(self.model)
        del copy.graph.output[:]
        copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        return ort.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])


class OnnxPair:
    """See ``layer_errors.Pair``."""

    def __init__(self, float_content: bytes, integer_content: bytes, layers: Sequence[str] = ()) -> None:
        self._plain, self._integer = _Graph(float_content), _Graph(integer_content)
        self._layers = layers
        # name -> (grid, name in the integer file), in the order of computation
        self._rounded: dict[str, tuple[Grid | None, str]] = {}
        for tensor in self._plain.makers:
            if (rounding := self._integer.quantizer(tensor)) is not None:
                self._rounded[tensor] = rounding
            elif tensor in self._integer.makers and self._plain.weighted(tensor) is not None:
                self._rounded[tensor] = (None, tensor)
        if not any(grid for grid, _ in self._rounded.values()):
            raise ExportError(
                "the two .onnx files share no activation that one holds in float and the other rounds: expected the "
                "float32 and the int8 file of the same model, from one export"
            )
        tensors = [self._tensor(name) for name in self._rounded]
        self.tensors = [replace(tensor, readers=readers_of(tensors, tensor.name)) for tensor in tensors]
        self._sessions = (
            self._plain.session(list(self._rounded)),
            self._integer.session([name for _, name in self._rounded.values()]),
        )

    def run(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[str, Values, Values]]:
        expected, actual = (session.run(None, {session.get_inputs()[0].name: image}) for session in self._sessions)
        yield from zip(self._rounded, expected, actual, strict=True)

    def _tensor(self, name: str) -> Tensor:
        node = self._plain.weighted(name)
        twin = self._integer.weighted(name)
        noise = None
        if node is not None and twin is not None:
            noise = _kernel_noise(self._plain.kernel(node), self._integer.kernel(twin), _KERNELS[node.op_type])
        maker = self._plain.makers[name]
        axis = _CHANNELS_LAST if maker.op_type == "Transpose" else _CHANNELS_FIRST
        sources = upstream(name, self._plain.inputs, self._rounded)
        return Tensor(name, self._layer(node or maker), sources, (), axis, self._rounded[name][0], noise)

    def _layer(self, node: onnx.NodeProto) -> str:
        layer = layer_of_node(node.name)
        return layer if not self._layers or layer in self._layers else ""


def _kernel_noise(wanted: Values, given: Values, channels: int) -> float:
    axes = tuple(axis for axis in range(wanted.ndim) if axis != channels)
    noise, signal = (np.square(values, dtype=np.float64).sum(axis=axes) for values in (given - wanted, wanted))
    return noise_to_signal(noise, signal)

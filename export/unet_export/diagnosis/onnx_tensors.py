"""Two ``.onnx`` files, float32 and int8 (QDQ), with the activations that both have."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from unet_export.diagnosis.layer_errors import Grid, Tensor, Values, dequantized, kernel_noise, upstream
from unet_export.errors import ExportError
from unet_export.formats.onnx_graph import attribute, initializers, layer_of_node, makers, readers

_KERNELS = {"Conv": 1, "ConvTranspose": 0}
"""Axis of the kernel's input channels."""

_FUSED = ("Relu", "LeakyRelu", "Clip")
"""Activations that engines fuse with the convolution before them."""

_CHANNELS_FIRST, _CHANNELS_LAST = 1, -1


class _Graph:
    """One file's graph, by the names of its tensors."""

    def __init__(self, content: bytes) -> None:
        self.model = onnx.load_model_from_string(content)
        self.makers = makers(self.model.graph)
        self._constants = initializers(self.model.graph)
        self._readers = readers(self.model.graph)

    def inputs(self, tensor: str) -> list[str]:
        return list(self.makers[tensor].input) if tensor in self.makers else []

    def constant(self, name: str) -> npt.NDArray[Any]:
        """Value of a weight, a scale or a zero point."""
        return numpy_helper.to_array(self._constants[name])

    def quantizer(self, tensor: str) -> tuple[Grid, str] | None:
        """The grid that a tensor is rounded to, and its name when it is in float again."""
        for node in self._readers.get(tensor, []):
            if node.op_type != "QuantizeLinear":
                continue
            scale, zero = map(self.constant, node.input[1:3])
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
        """The node's kernel in float32, dequantised where it is integers."""
        name = node.input[1]
        if name in self._constants:
            return np.asarray(self.constant(name), np.float32)
        source = self.makers[name]
        raw, scales, zeros = map(self.constant, source.input)
        return dequantized(raw, scales, zeros, attribute(source, "axis", 1))

    def session(self, outputs: Sequence[str]) -> Any:
        """A session that runs the graph as written: an engine's fusions would hide what is between."""
        import onnxruntime as ort

        model = copy.deepcopy(self.model)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


class OnnxPair:
    """The ``layer_errors.Pair`` of two ``.onnx`` files."""

    def __init__(self, float_content: bytes, integer_content: bytes, layers: Sequence[str]) -> None:
        self._plain, self._integer = _Graph(float_content), _Graph(integer_content)
        self._layers = layers
        # name -> (grid, name in the integer file), in the order of computation
        self._rounded: dict[str, tuple[Grid | None, str]] = {}
        for tensor in self._plain.makers:
            if (rounding := self._integer.quantizer(tensor)) is not None:
                self._rounded[tensor] = rounding
            elif tensor in self._integer.makers and self._plain.weighted(tensor) is not None:
                self._rounded[tensor] = (None, tensor)
        grids, names = zip(*self._rounded.values(), strict=True) if self._rounded else ((), ())
        if not any(grids):
            raise ExportError(
                "the two .onnx files share no activation that one holds in float and the other rounds: expected the "
                "float32 and the int8 file of the same model, from one export"
            )
        self.tensors = list(map(self._tensor, self._rounded))
        self._sessions = self._plain.session(list(self._rounded)), self._integer.session(names)

    def run(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[str, Values, Values]]:
        values = []
        for session in self._sessions:
            values.append(session.run(None, {session.get_inputs()[0].name: image}))
        yield from zip(self._rounded, *values, strict=True)

    def _tensor(self, name: str) -> Tensor:
        node = self._plain.weighted(name)
        rounded = self._integer.weighted(name)
        noise = None
        if node is not None and rounded is not None:
            noise = kernel_noise(self._plain.kernel(node), self._integer.kernel(rounded), _KERNELS[node.op_type])
        maker = self._plain.makers[name]
        axis = _CHANNELS_LAST if maker.op_type == "Transpose" else _CHANNELS_FIRST
        sources = upstream(name, self._plain.inputs, self._rounded)
        return Tensor(name, self._layer(node or maker), sources, axis, self._rounded[name][0], noise)

    def _layer(self, node: onnx.NodeProto) -> str:
        layer = layer_of_node(node.name)
        return layer if layer in self._layers else ""

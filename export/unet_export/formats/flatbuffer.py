"""The ``.tflite`` as what it is: a flatbuffer of tensors and operators, read and written without any engine."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED")
"""Operators with trained weights: their input 1, int8 in every quantised form."""

WEIGHTS = 1

BIAS = {"CONV_2D": 2, "DEPTHWISE_CONV_2D": 2, "FULLY_CONNECTED": 2, "TRANSPOSE_CONV": 3}
"""Place of an operator's bias among its inputs, where it has one: (x, weights, bias), (size, weights, x, bias)."""

LOGITS = "logits"
"""Name of the output of a file that ends before its activation."""

_ALIGNMENT = 16
"""Bytes; what the schema asks of a buffer's data (``force_align``) and Python's packer does not do by itself:
https://github.com/tensorflow/tflite-micro/pull/3177"""

_FLOAT16_VERSION = 3
"""Version of DEQUANTIZE that reads float16."""

_BIASED_TRANSPOSED = "Convolution2DTransposeBias"
"""MediaPipe's own operator: TRANSPOSE_CONV from before LiteRT's took a bias. Inputs (x, weights, bias)."""

_BIASED_INPUTS, _BIASED_OPTIONS = 3, 12
"""How many it has; bytes of its options at least."""

_BIASED_VERSION = 3
"""Version of TRANSPOSE_CONV that takes a bias."""

_SAME = 1
"""``kTfLitePaddingSame`` in the options of ``_BIASED_TRANSPOSED``."""

_REPRODUCIBLE_METADATA = (b"min_runtime_version",)
"""Metadata that is kept; ``CONVERSION_METADATA`` holds a hash of the folder, which differs from run to run."""


class _AlignedBuffer(schema.BufferT):  # type: ignore[misc]  # generated, without type information
    data: Any

    def Pack(self, builder: Any) -> int:  # noqa: N802  # the generated name
        if self.data is not None:
            self.data = np.frombuffer(bytes(self.data), np.uint8)
            builder.Prep(_ALIGNMENT, len(self.data))
        position: int = super().Pack(builder)
        return position


@dataclass(frozen=True)
class Operator:
    """One operator of the main graph; tensors by their index."""

    kind: str
    """Name in the schema, such as ``CONV_2D``; a custom operator's own name."""
    custom: bool
    inputs: tuple[int, ...]
    """Without those left out."""
    outputs: tuple[int, ...]
    fused: bool
    """Whether an activation is fused into it."""


class Flatbuffer:
    """A model's main graph, and the model around it as the generated ``ModelT``."""

    def __init__(self, content: bytes) -> None:
        self.model: Any = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
        self.graph: Any = self.model.subgraphs[0]

    @cached_property
    def operators(self) -> list[Operator]:
        """In the order of execution."""
        return list(map(self._operator, self.graph.operators))

    def _operator(self, entry: Any) -> Operator:
        code = self.model.operatorCodes[entry.opcodeIndex]
        kind = flatbuffer_utils.opcode_to_name(self.model, entry.opcodeIndex)
        name = code.customCode.decode() if code.customCode else kind
        inputs = np.asarray(entry.inputs)
        used = tuple(map(int, inputs[inputs >= 0]))
        fused = bool(getattr(entry.builtinOptions, "fusedActivationFunction", 0))
        return Operator(name, bool(code.customCode), used, tuple(map(int, entry.outputs)), fused)

    @cached_property
    def producers(self) -> dict[int, Operator]:
        """Tensor -> the operator that writes it."""
        return {index: entry for entry in self.operators for index in entry.outputs}

    def type(self, index: int) -> str:
        """``FLOAT32``, ``INT8``, …"""
        return str(flatbuffer_utils.type_to_name(self.graph.tensors[index].type))

    def name(self, index: int) -> str:
        name: str = self.graph.tensors[index].name.decode()
        return name

    def size(self, index: int) -> int:
        """Elements."""
        return int(np.prod(self.graph.tensors[index].shape, dtype=np.int64))

    def constant(self, index: int) -> bool:
        """Whether the file holds its values."""
        return self.model.buffers[self.graph.tensors[index].buffer].data is not None

    def weighted(self) -> list[Operator]:
        """Operators with trained weights."""
        return [entry for entry in self.operators if entry.kind in WEIGHTED]

    def source(self, index: int) -> int:
        """The stored tensor of a constant that is dequantised when it is used; else the tensor itself."""
        maker = self.producers.get(index)
        return maker.inputs[0] if maker is not None and maker.kind == "DEQUANTIZE" else index

    def values(self, index: int, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Values of a constant."""
        tensor = self.graph.tensors[index]
        return np.frombuffer(bytes(self.model.buffers[tensor.buffer].data), dtype).reshape(tensor.shape)

    def set_values(self, index: int, values: npt.NDArray[Any]) -> None:
        """Replace the values of a constant by others of the same type and shape."""
        self.model.buffers[self.graph.tensors[index].buffer].data = np.frombuffer(values.tobytes(), np.uint8)

    def scaling(self, index: int) -> tuple[float, int] | None:
        """(scale, zero point), or None for a tensor that is not quantised as a whole."""
        quantization = self.graph.tensors[index].quantization
        if quantization is None or quantization.scale is None or len(quantization.scale) != 1:
            return None
        return float(quantization.scale[0]), int(quantization.zeroPoint[0])

    def pack(self) -> bytes:
        """The file: equal models give equal bytes, and nothing in them tells where it was made."""
        self.model.metadata = [entry for entry in self.model.metadata or [] if entry.name in _REPRODUCIBLE_METADATA]
        for buffer in self.model.buffers:
            buffer.__class__ = _AlignedBuffer
        return bytes(flatbuffer_utils.convert_object_to_bytearray(self.model))

    def flatten_biases(self) -> bool:
        """Give biases of (1, 1, 1, channels) the shape (channels,), in place; True if there were any.

        A BatchNormalization behind a transposed convolution leaves such a bias. LiteRT reads it alike, but quantisers
        take its first axis for that of the channels.
        """
        changed = False
        for entry in self.weighted():
            place = BIAS[entry.kind]
            if len(entry.inputs) > place and self.constant(entry.inputs[place]):
                tensor = self.graph.tensors[entry.inputs[place]]
                if len(tensor.shape) > 1 and max(tensor.shape) == self.size(entry.inputs[place]):
                    tensor.shape = np.array([max(tensor.shape)], np.int32)
                    tensor.shapeSignature = None
                    changed = True
        return changed

    def replace_custom(self) -> bool:
        """Put LiteRT's operators in place of MediaPipe's that compute the same, in place; True if there were any."""
        changed = False
        for place, known in enumerate(self.operators):
            if known.custom and known.kind == _BIASED_TRANSPOSED and len(known.inputs) == _BIASED_INPUTS:
                custom = self.graph.operators[place]
                if custom.customOptions is not None and len(custom.customOptions) >= _BIASED_OPTIONS:
                    self.graph.operators[place] = self._biased_transposed(custom)
                    changed = True
        if changed:
            del self.operators  # of the graph as it was
        return changed

    def _biased_transposed(self, custom: Any) -> Any:
        """TRANSPOSE_CONV for a ``_BIASED_TRANSPOSED``."""
        source, weights, bias = custom.inputs
        (target,) = custom.outputs
        padding, width, height = np.frombuffer(bytes(custom.customOptions), "<i4", 3)
        options = schema.TransposeConvOptionsT()
        options.padding = schema.Padding.SAME if padding == _SAME else schema.Padding.VALID
        options.strideW, options.strideH = int(width), int(height)
        size = self._constant(b"size_of_" + self.graph.tensors[target].name, self.graph.tensors[target].shape)
        operator = self._new_operator(schema.BuiltinOperator.TRANSPOSE_CONV, _BIASED_VERSION, source, target)
        operator.inputs = [size, weights, source, bias]
        operator.builtinOptionsType = schema.BuiltinOptions.TransposeConvOptions
        operator.builtinOptions = options
        return operator

    def _constant(self, name: bytes, values: Sequence[int]) -> int:
        """A new int32 constant; its tensor."""
        buffer, tensor = schema.BufferT(), schema.TensorT()
        buffer.data = np.frombuffer(np.asarray(values, np.int32).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        tensor.name, tensor.type, tensor.shape = name, schema.TensorType.INT32, [len(values)]
        tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def without_last(self) -> bytes:
        """A file of the same graph without its last operator, whose one input becomes the output."""
        last = self.producers[int(self.graph.outputs[0])]
        (output,) = (index for index in last.inputs if not self.constant(index))
        (dropped,) = last.outputs
        del self.graph.operators[self.operators.index(last)], self.graph.tensors[dropped]
        for entry in self.graph.operators:  # those behind the tensor that is gone move up
            entry.inputs = [index - (index > dropped) for index in entry.inputs]
            entry.outputs = [index - (index > dropped) for index in entry.outputs]
        output -= output > dropped
        self.graph.inputs = [index - (index > dropped) for index in self.graph.inputs]
        self.graph.outputs = [output]
        for signature in self.model.signatureDefs or []:
            for entry in signature.inputs:
                entry.tensorIndex -= entry.tensorIndex > dropped
            for entry in signature.outputs:
                entry.tensorIndex, entry.name = output, LOGITS.encode()
        return self.pack()

    def feed_bytes(self, name: str) -> None:
        """Let a graph with an int16 input of scale 1 take uint8: a CAST in front, exact, and integer throughout.

        LiteRT's QUANTIZE knows no way from uint8 to int16.
        """
        (source,) = self.graph.inputs
        old = self.graph.tensors[source]
        scale = schema.QuantizationParametersT()
        scale.scale, scale.zeroPoint = [1.0], [0]
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.quantization = name.encode(), schema.TensorType.UINT8, scale
        tensor.shape, tensor.shapeSignature, tensor.buffer = old.shape, old.shapeSignature, 0
        self.graph.tensors.append(tensor)
        index = len(self.graph.tensors) - 1
        self.graph.operators.insert(0, self._cast(index, int(source)))
        self.graph.inputs = [index]
        for signature in self.model.signatureDefs or []:
            for entry in signature.inputs:
                entry.tensorIndex = index

    def store_float16(self, constants: Mapping[int, npt.NDArray[np.float16]]) -> None:
        """Store float32 constants, by tensor, as float16, each behind an operator that makes float32 of it."""
        made = {}
        operators = []
        for index, values in constants.items():
            tensor = copy.copy(self.graph.tensors[index])
            tensor.name, tensor.buffer = tensor.name + b"_float32", 0
            self.graph.tensors.append(tensor)
            made[index] = len(self.graph.tensors) - 1
            self.graph.tensors[index].type = schema.TensorType.FLOAT16
            self.set_values(index, values)
            operators.append(
                self._new_operator(schema.BuiltinOperator.DEQUANTIZE, _FLOAT16_VERSION, index, made[index])
            )
        for entry in self.graph.operators:
            entry.inputs = [made.get(int(index), int(index)) for index in entry.inputs]
        self.graph.operators[:0] = operators

    def _cast(self, source: int, target: int) -> Any:
        options = schema.CastOptionsT()
        options.inDataType, options.outDataType = schema.TensorType.UINT8, schema.TensorType.INT16
        operator = self._new_operator(schema.BuiltinOperator.CAST, 1, source, target)
        operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.CastOptions, options
        return operator

    def _new_operator(self, kind: int, version: int, source: int, target: int) -> Any:
        known = [(code.builtinCode, code.version) for code in self.model.operatorCodes]
        if (kind, version) not in known:
            code = schema.OperatorCodeT()
            code.builtinCode = code.deprecatedBuiltinCode = kind
            code.version = version
            self.model.operatorCodes.append(code)
            known.append((kind, version))
        operator = schema.OperatorT()
        operator.opcodeIndex = known.index((kind, version))
        operator.inputs, operator.outputs = [source], [target]
        return operator


def layers_in(text: str, names: Iterable[str]) -> Iterator[str]:
    """Keras layers, of those ``names``, that a tensor's or an MLIR location's name speaks of.

    TensorFlow writes ``unet_1/logits_1/convolution;unet_1/…``: a scope for each layer, numbered when it was called
    before.
    """
    known = set(names)
    for part in re.split(r"[/;@]", text):
        numbered = re.sub(r"_\d+$", "", part)
        if numbered in known or part in known:
            yield numbered if numbered in known else part

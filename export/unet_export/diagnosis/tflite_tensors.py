"""Two ``.tflite`` files, float and integer, with the activations that both have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from unet_export.diagnosis.layer_errors import Grid, Tensor, Values, noise_to_signal, readers_of, upstream
from unet_export.errors import ExportError
from unet_export.formats.flatbuffer import WEIGHTED, WEIGHTS, Flatbuffer, Operator, layers_in

_INPUT_CHANNELS = 3
"""Axis of a kernel (out, h, w, in), and of a depthwise one (1, h, w, channels)."""

_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "CAST")
"""Operators that only one of the files may have."""

_ARITHMETIC = re.compile(r"convolution|conv_transpose|depthwise|MatMul")
"""In the part of a tensor's name that speaks of the layer with the weights."""


class TFLitePair:
    """See ``layer_errors.Pair``."""

    def __init__(self, float_content: bytes, integer_content: bytes, layers: Sequence[str] = ()) -> None:
        self._files = Flatbuffer(float_content), Flatbuffer(integer_content)
        self._runs = _Run(float_content), _Run(integer_content)
        self._matches = _match(*self._files)
        self._layers = layers
        known = {self._files[0].name(one): 0 for one, _ in self._matches}
        tensors = [self._tensor(one, two, known) for one, two in self._matches]
        self.tensors = [replace(tensor, readers=readers_of(tensors, tensor.name)) for tensor in tensors]

    def run(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[str, Values, Values]]:
        for run in self._runs:
            run.invoke(image)
        for one, two in self._matches:
            yield self._files[0].name(one), self._runs[0].values(one), self._runs[1].values(two)

    def _tensor(self, one: int, two: int, known: dict[str, int]) -> Tensor:
        plain, integer = self._files
        name = plain.name(one)
        makers = {plain.name(index): operator for index, operator in plain.producers.items()}

        def inputs(tensor: str) -> list[str]:
            return [plain.name(index) for index in makers[tensor].inputs] if tensor in makers else []

        operator = plain.producers[one]
        noise = None
        if operator.kind in WEIGHTED:
            kernels = (
                self._runs[0].values(operator.inputs[WEIGHTS], constant=True),
                self._runs[1].values(integer.producers[two].inputs[WEIGHTS], constant=True),
            )
            noise = _kernel_noise(*kernels)
        layer = _layer(name, operator, self._layers)
        return Tensor(name, layer, upstream(name, inputs, known), (), -1, _grid(integer, two), noise)


class _Run:
    """One file in LiteRT's plain kernels, which keep every tensor."""

    def __init__(self, content: bytes) -> None:
        self._interpreter: Any = Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        self._interpreter.allocate_tensors()
        self._details = {entry["index"]: entry for entry in self._interpreter.get_tensor_details()}

    def invoke(self, image: npt.NDArray[np.uint8]) -> None:
        """uint8 (1, h, w, 3)"""
        source = self._interpreter.get_input_details()[0]
        self._interpreter.set_tensor(source["index"], image.astype(source["dtype"]))
        self._interpreter.invoke()

    def values(self, index: int, *, constant: bool = False) -> Values:
        """Of a tensor, dequantised by its own scales."""
        raw: Any = self._interpreter.get_tensor(index)
        scaling = self._details[index]["quantization_parameters"]
        if not len(scaling["scales"]):
            return np.asarray(raw, np.float32)
        shape = [1] * raw.ndim
        shape[scaling["quantized_dimension"] if len(scaling["scales"]) > 1 else 0] = -1
        scales, zeros = (np.reshape(scaling[key], shape) for key in ("scales", "zero_points"))
        return np.asarray((raw.astype(np.float64) - zeros) * scales, np.float32)


def _match(plain: Flatbuffer, integer: Flatbuffer) -> list[tuple[int, int]]:
    """Tensors of the two that stand for the same activation: by name, or by the order of equal operators."""
    one, two = ([entry for entry in file.operators if entry.kind not in _CONVERSIONS] for file in (plain, integer))
    names = {integer.name(entry.outputs[0]): entry.outputs[0] for entry in two}
    found = [
        (entry.outputs[0], names[plain.name(entry.outputs[0])])
        for entry in one
        if plain.name(entry.outputs[0]) in names
    ]
    if 2 * len(found) > len(one):
        return found
    if [entry.kind for entry in one] == [entry.kind for entry in two]:
        return [(left.outputs[0], right.outputs[0]) for left, right in zip(one, two, strict=True)]
    raise ExportError(
        f"the two .tflite files share {len(found)} of {len(one)} activations by name, and their operators differ: "
        "expected the float32 and the integer file of the same model, from one export"
    )


def _grid(file: Flatbuffer, index: int) -> Grid | None:
    kind, scaling = file.type(index), file.scaling(index)
    if scaling is None or kind not in ("INT8", "UINT8", "INT16"):
        return None
    limits = np.iinfo(kind.lower())
    return Grid(*scaling, int(limits.min), int(limits.max))


def _kernel_noise(wanted: Values, given: Values) -> float:
    axes = tuple(axis for axis in range(wanted.ndim) if axis != min(_INPUT_CHANNELS, wanted.ndim - 1))
    noise, signal = (np.square(values, dtype=np.float64).sum(axis=axes) for values in (given - wanted, wanted))
    return noise_to_signal(noise, signal)


def _layer(name: str, operator: Operator, layers: Sequence[str]) -> str:
    """``unet_1/a_relu_1/Relu;unet_1/a_conv_1/convolution`` -> ``a_conv``; empty where there is no scope."""
    parts = name.split(";")
    if operator.kind in WEIGHTED:
        parts.sort(key=lambda part: _ARITHMETIC.search(part) is None)
    if layers:
        return next((layer for part in parts for layer in layers_in(part, layers)), "")
    scopes = parts[0].split("/")
    return re.sub(r"_\d+$", "", scopes[-2]) if len(scopes) > 2 else ""

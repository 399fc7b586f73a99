"""Two ``.tflite`` files, float and integer, with the activations that both have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from unet_export.diagnosis.layer_errors import Grid, Tensor, Values, dequantized, kernel_noise, upstream
from unet_export.errors import ExportError
from unet_export.formats.flatbuffer import WEIGHTED, WEIGHTS, Flatbuffer, Operator, layers_in

_INPUT_CHANNELS = 3
"""Axis of a kernel (out, h, w, in), and of a depthwise one (1, h, w, channels)."""

_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "CAST")
"""Operators that only one of the files may have."""

_ARITHMETIC = re.compile(r"convolution|conv_transpose|depthwise|MatMul")
"""Marks the part of a tensor's name that belongs to the layer with the weights."""


class TFLitePair:
    """The ``layer_errors.Pair`` of two ``.tflite`` files."""

    def __init__(self, float_content: bytes, integer_content: bytes, layers: Sequence[str]) -> None:
        self._files = Flatbuffer(float_content), Flatbuffer(integer_content)
        self._runs = _Run(float_content), _Run(integer_content)
        self._matches = _match(*self._files)
        self._layers = layers
        known = dict(self._matches)
        self.tensors = [self._tensor(*match, known) for match in self._matches]

    def run(self, image: npt.NDArray[np.uint8]) -> Iterator[tuple[str, Values, Values]]:
        for run in self._runs:
            run.invoke(image)
        for plain, integer in self._matches:
            yield self._files[0].name(plain), self._runs[0].values(plain), self._runs[1].values(integer)

    def _tensor(self, plain: int, integer: int, known: dict[int, int]) -> Tensor:
        plain_file, integer_file = self._files
        name = plain_file.name(plain)

        def inputs(index: int) -> tuple[int, ...]:
            return plain_file.producers[index].inputs if index in plain_file.producers else ()

        operator = plain_file.producers[plain]
        noise = None
        if operator.kind in WEIGHTED:
            kernel = self._runs[0].values(operator.inputs[WEIGHTS])
            rounded = self._runs[1].values(integer_file.producers[integer].inputs[WEIGHTS])
            noise = kernel_noise(kernel, rounded, min(_INPUT_CHANNELS, kernel.ndim - 1))
        layer = _layer(name, operator, self._layers)
        sources = tuple(map(plain_file.name, upstream(plain, inputs, known)))
        return Tensor(name, layer, sources, -1, _grid(integer_file, integer), noise)


class _Run:
    """One file in LiteRT's reference kernels, with every tensor kept."""

    def __init__(self, content: bytes) -> None:
        self._interpreter: Any = Interpreter(
            model_content=content,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        self._interpreter.allocate_tensors()
        self._details = {entry["index"]: entry for entry in self._interpreter.get_tensor_details()}

    def invoke(self, image: npt.NDArray[np.uint8]) -> None:
        """Run one photo, uint8 (1, h, w, 3)."""
        source = self._interpreter.get_input_details()[0]
        self._interpreter.set_tensor(source["index"], image.astype(source["dtype"]))
        self._interpreter.invoke()

    def values(self, index: int) -> Values:
        """A tensor's values in float32, dequantised by its own scales."""
        raw: Any = self._interpreter.get_tensor(index)
        scaling = self._details[index]["quantization_parameters"]
        if not len(scaling["scales"]):
            return np.asarray(raw, np.float32)
        return dequantized(raw, scaling["scales"], scaling["zero_points"], scaling["quantized_dimension"])


def _match(plain: Flatbuffer, integer: Flatbuffer) -> list[tuple[int, int]]:
    """Tensors of the two that stand for the same activation: by name, or by the order of equal operators."""
    plain_operators, integer_operators = map(_computing, (plain, integer))
    names = {}
    by_name = []
    by_order = []
    for entry in integer_operators:
        names[integer.name(entry.outputs[0])] = entry.outputs[0]
    for entry in plain_operators:
        if (name := plain.name(entry.outputs[0])) in names:
            by_name.append((entry.outputs[0], names[name]))
    if 2 * len(by_name) > len(plain_operators):
        return by_name
    for one, other in zip_longest(plain_operators, integer_operators):
        if one is None or other is None or one.kind != other.kind:
            raise ExportError(
                f"the two .tflite files share {len(by_name)} of {len(plain_operators)} activations by name, and their "
                "operators differ: expected the float32 and the integer file of the same model, from one export"
            )
        by_order.append((one.outputs[0], other.outputs[0]))
    return by_order


def _computing(file: Flatbuffer) -> list[Operator]:
    """The operators that are more than a conversion."""
    return [operator for operator in file.operators if operator.kind not in _CONVERSIONS]


def _grid(file: Flatbuffer, index: int) -> Grid | None:
    kind, scaling = file.type(index), file.scaling(index)
    if scaling is None or kind not in ("INT8", "UINT8", "INT16"):
        return None
    limits = np.iinfo(kind.lower())
    return Grid(*scaling, int(limits.min), int(limits.max))


def _layer(name: str, operator: Operator, layers: Sequence[str]) -> str:
    """``unet_1/a_relu_1/Relu;unet_1/a_conv_1/convolution`` -> ``a_conv``; empty where no layer is named."""
    parts = name.split(";")
    if operator.kind in WEIGHTED:
        parts.sort(key=lambda part: _ARITHMETIC.search(part) is None)
    return next(chain.from_iterable(layers_in(part, layers) for part in parts), "")

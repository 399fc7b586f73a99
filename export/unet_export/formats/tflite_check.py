"""What a ``.tflite`` really contains: an engine would run a float operator in a file named int8 without a word."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from unet_export.errors import ExportError
from unet_export.formats.base import NotIntegerError
from unet_export.formats.flatbuffer import WEIGHTS, Flatbuffer, Operator
from unet_export.transforms.rounding import SHARE_OF_FLOAT32

_INDICES = ("INT32", "INT64", "BOOL")
"""Types of shapes, positions and biases, which every file has."""

SMALL = 1024
"""Weights of fewer elements stay float32 in a dynamic-range file: TensorFlow's own bound."""


@dataclass(frozen=True)
class _Contents:
    """Types that a precision allows."""

    tensors: tuple[str, ...]
    """Types of all tensors but the photo."""
    family: str
    """What these are, in words."""
    weights: str = ""
    """Type of the weights; empty: any of ``tensors``."""
    smallest: int = 0
    """Elements of the smallest weights that must have it."""
    exempt: float = 0.0
    """Share of all weights, 0..1, that may have another type."""
    activations: tuple[str, ...] = ("FLOAT32",)
    """What operators with weights write."""
    output: tuple[str, ...] = ("FLOAT32",)


_CONTENTS = {
    "float32": _Contents(("FLOAT32", *_INDICES), "float32"),
    "float16": _Contents(
        ("FLOAT32", "FLOAT16", *_INDICES), "float32 or float16", "FLOAT16", 0, exempt=SHARE_OF_FLOAT32
    ),
    "dynamic-range": _Contents(("FLOAT32", "INT8", *_INDICES), "float32 or int8", "INT8", SMALL),
    "int8": _Contents(("UINT8", "INT8", *_INDICES), "8-bit integers", "INT8", activations=("INT8",), output=("INT8",)),
    "mixed": _Contents(
        ("UINT8", "INT8", "FLOAT32", *_INDICES),
        "8-bit integers or float32",
        "INT8",
        exempt=0.5,
        activations=("INT8", "FLOAT32"),
        output=("INT8", "FLOAT32"),
    ),
    "int16x8": _Contents(
        ("UINT8", "INT8", "INT16", *_INDICES), "integer", "INT8", activations=("INT16",), output=("INT16",)
    ),
}
"""Contents by precision. Every file takes the photo as uint8."""

_PARTLY_WIDE = _Contents(
    ("UINT8", "INT8", "INT16", *_INDICES), "integer", "INT8", activations=("INT8", "INT16"), output=("INT8", "INT16")
)
"""Contents of an int8 file with a finer head, or with layers that are to be precise."""


def check(content: bytes, precision: str, *, wide: bool = False) -> None:
    """Raise ExportError with all that contradicts the precision a file claims, by tensor or operator.

    Raise NotIntegerError where that is operators which have no int8 kernel.

    Besides the types of ``_CONTENTS``: an integer file takes the photo's bytes with scale 1 and zero point 0, an int8
    file has int8 activations, an int16x8 file none, and no file has an operator from outside LiteRT (Flex, custom).

    Args:
        content: the file.
        precision: what it claims.
        wide: whether an int8 file may have int16 activations as well.
    """
    flatbuffer = Flatbuffer(content)
    if precision == "int8":
        _check_islands(flatbuffer)
    allowed = _PARTLY_WIDE if wide and precision == "int8" else _CONTENTS[precision]
    problems = [
        *_operators(flatbuffer),
        *_tensors(flatbuffer, allowed),
        *_weights(flatbuffer, allowed),
        *_activations(flatbuffer, allowed),
        *_ends(flatbuffer, allowed),
    ]
    narrow = [index for index in flatbuffer.producers if flatbuffer.type(index) == "INT8"]
    if precision == "int8" and not narrow:
        problems.append("no activation is INT8: that is int16x8")
    if precision == "int16x8" and narrow:
        problems.append(f"{len(narrow)} activations are INT8, the first: {_describe(flatbuffer, narrow[0])}")
    if problems:
        raise ExportError(f"the .tflite is not {precision}: {'; '.join(problems)}")


def _check_islands(flatbuffer: Flatbuffer) -> None:
    """Raise NotIntegerError where some operators compute in float.

    Where all do, or LiteRT has not all of them, the file is none that a mixed one could take the place of.
    """
    islands = float_operators(flatbuffer)
    count = len(list(filter(_computes, flatbuffer.operators)))
    if not islands or sum(islands.values()) == count or any(entry.custom for entry in flatbuffer.operators):
        return
    kinds = ", ".join(f"{kind} ({number})" for kind, number in islands.items())
    raise NotIntegerError(
        f"the .tflite is not int8: no int8 kernel for {kinds}: {sum(islands.values())} of {count} operators compute in "
        "float"
    )


_CONVERSIONS = ("QUANTIZE", "DEQUANTIZE", "CAST")


def _computes(entry: Operator) -> bool:
    return entry.kind not in _CONVERSIONS


def float_operators(flatbuffer: Flatbuffer) -> dict[str, int]:
    """How many operators of each kind compute in float, the most frequent first."""
    found: Counter[str] = Counter()
    for entry in filter(_computes, flatbuffer.operators):
        if any(flatbuffer.type(index) == "FLOAT32" for index in (*entry.inputs, *entry.outputs)):
            found[entry.kind] += 1
    return dict(found.most_common())


def _operators(flatbuffer: Flatbuffer) -> Iterator[str]:
    if custom := sorted({entry.kind for entry in flatbuffer.operators if entry.custom}):
        yield f"operators that LiteRT does not have: {', '.join(custom)}"
    if len(flatbuffer.model.subgraphs) > 1:
        yield f"{len(flatbuffer.model.subgraphs)} graphs (control flow), expected 1"


def _tensors(flatbuffer: Flatbuffer, allowed: _Contents) -> Iterator[str]:
    """Tensors of another type; the photo itself is uint8 in every file."""
    count = len(flatbuffer.graph.tensors)
    other = []
    for index in range(count):
        if index not in flatbuffer.graph.inputs and flatbuffer.type(index) not in allowed.tensors:
            other.append(_describe(flatbuffer, index))
    if other:
        first = ", ".join(other[:3])
        yield f"{len(other)} of {count} tensors are not {allowed.family}, the first: {first}"


def _weights(flatbuffer: Flatbuffer, allowed: _Contents) -> Iterator[str]:
    if not allowed.weights:
        return
    large = elements = differing = 0
    other = []
    for entry in flatbuffer.weighted():
        index = flatbuffer.source(entry.inputs[min(WEIGHTS, len(entry.inputs) - 1)])
        if flatbuffer.size(index) >= allowed.smallest:
            large += 1
            elements += flatbuffer.size(index)
            if flatbuffer.type(index) != allowed.weights:
                differing += flatbuffer.size(index)
                other.append(f"{_describe(flatbuffer, entry.outputs[0])}: {flatbuffer.type(index)}")
    if differing > allowed.exempt * elements:
        yield f"{len(other)} of {large} weights are not {allowed.weights}, the first those of {other[0]}"
    elif not large:
        yield f"no weights of {allowed.smallest} elements or more, so none is {allowed.weights}"


def _activations(flatbuffer: Flatbuffer, allowed: _Contents) -> Iterator[str]:
    """The first operator with weights whose activations have another type."""
    for entry in flatbuffer.weighted():
        for index in (*entry.outputs, *entry.inputs):
            is_weight = flatbuffer.constant(index) or flatbuffer.source(index) != index
            if not is_weight and flatbuffer.type(index) not in (*allowed.activations, *_INDICES):
                yield f"{_describe(flatbuffer, index)}, expected activations in {' or '.join(allowed.activations)}"
                return


def _ends(flatbuffer: Flatbuffer, allowed: _Contents) -> Iterator[str]:
    for index in flatbuffer.graph.inputs:
        if flatbuffer.type(index) != "UINT8":
            yield f"input is {flatbuffer.type(index)}, expected UINT8"
        elif "integer" in allowed.family and (scaling := flatbuffer.scaling(index)) != (1.0, 0):
            yield f"input has (scale, zero point) {scaling}, expected (1.0, 0)"
    for index in flatbuffer.graph.outputs:
        if flatbuffer.type(index) not in allowed.output:
            yield f"output is {flatbuffer.type(index)}, expected {' or '.join(allowed.output)}"


def _describe(flatbuffer: Flatbuffer, index: int) -> str:
    """``unet_1/logits_1/BiasAdd (FLOAT32 of CONV_2D)``: the last name of a fused operator, the layer's own."""
    producer = flatbuffer.producers.get(index)
    kind = f" of {producer.kind}" if producer else ""
    return f"{flatbuffer.name(index).split(';')[0]} ({flatbuffer.type(index)}{kind})"

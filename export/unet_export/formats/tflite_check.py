"""What a ``.tflite`` really contains: an engine would run a float operator in a file named int8 without a word."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from unet_export.errors import ExportError
from unet_export.formats.flatbuffer import WEIGHTED, WEIGHTS, Flatbuffer, Operator

_INTEGERS = ("UINT8", "INT8", "INT16", "INT32", "INT64", "BOOL")
"""Tensor types of a full-integer file: activations, weights, biases, shapes."""

_INDICES = ("INT32", "INT64", "BOOL")
"""Shapes and positions, which a float file has as well."""

SMALL = 1024
"""Weights of fewer elements stay float32 in a dynamic-range file: TensorFlow's own bound."""


def check(content: bytes, precision: str) -> None:
    """Read the flatbuffer and compare it with the precision it claims.

    int8 and int16x8: integers throughout, uint8 in with scale 1 and zero point 0, int8 weights; an int16x8 file's
    weighted operators work on int16, an int8 file's on int8 or int16. dynamic-range: every matrix of weights of
    ``SMALL`` elements or more int8, activations float32. float16: those weights float16. float32: nothing else. The
    last three take uint8 and answer float32.

    Raises:
        ExportError: something that does not belong, by tensor or operator; also an operator from outside LiteRT
            (Flex, custom).
    """
    flatbuffer = Flatbuffer(content)
    problems = [*_foreign(flatbuffer), *_RULES[precision](flatbuffer)]
    if problems:
        raise ExportError(f"the .tflite is not {precision}: {'; '.join(problems)}")


def _foreign(flatbuffer: Flatbuffer) -> Iterator[str]:
    if custom := sorted({entry.kind for entry in flatbuffer.operators if entry.custom}):
        yield f"operators that LiteRT does not have: {', '.join(custom)}"
    if len(flatbuffer.model.subgraphs) > 1:
        yield f"{len(flatbuffer.model.subgraphs)} graphs (control flow), expected 1"


def _int8(flatbuffer: Flatbuffer) -> Iterator[str]:
    yield from _full_integer(flatbuffer, inside=("INT8", "INT16"), outside=("UINT8", "INT16"))
    if not _int8_activations(flatbuffer):
        yield "no activation is INT8: that is int16x8"


def _int16x8(flatbuffer: Flatbuffer) -> Iterator[str]:
    yield from _full_integer(flatbuffer, inside=("INT16",), outside=("INT16",))
    if found := _int8_activations(flatbuffer):
        yield f"{len(found)} activations are INT8, the first: {_describe(flatbuffer, found[0])}"


def _int8_activations(flatbuffer: Flatbuffer) -> list[int]:
    return [index for index in flatbuffer.producers if flatbuffer.type(index) == "INT8"]


def _full_integer(flatbuffer: Flatbuffer, inside: tuple[str, ...], outside: tuple[str, ...]) -> Iterator[str]:
    yield from _strangers(flatbuffer, _INTEGERS, "integer")
    yield from _weights(flatbuffer, "INT8", smallest=0)
    for entry in _weighted(flatbuffer):
        if flatbuffer.type(entry.outputs[0]) not in inside:
            yield f"{_describe(flatbuffer, entry.outputs[0])}, expected activations in {' or '.join(inside)}"
            break
    for index in flatbuffer.graph.inputs:
        if flatbuffer.type(index) != "UINT8":
            yield f"input is {flatbuffer.type(index)}, expected UINT8"
        elif (scaling := flatbuffer.scaling(index)) != (1.0, 0):
            yield f"input has (scale, zero point) {scaling}, expected (1.0, 0)"
    yield from _answer(flatbuffer, outside)


def _dynamic_range(flatbuffer: Flatbuffer) -> Iterator[str]:
    yield from _float_boundary(flatbuffer)
    yield from _activations(flatbuffer)
    yield from _strangers(flatbuffer, ("FLOAT32", "INT8", *_INDICES), "float32 or int8")
    yield from _weights(flatbuffer, "INT8", smallest=SMALL)


def _float16(flatbuffer: Flatbuffer) -> Iterator[str]:
    yield from _float_boundary(flatbuffer)
    yield from _activations(flatbuffer)
    yield from _strangers(flatbuffer, ("FLOAT32", "FLOAT16", *_INDICES), "float32 or float16")
    yield from _weights(flatbuffer, "FLOAT16", smallest=0)


def _float32(flatbuffer: Flatbuffer) -> Iterator[str]:
    yield from _float_boundary(flatbuffer)
    yield from _strangers(flatbuffer, ("FLOAT32", *_INDICES), "float32")


_RULES: dict[str, Callable[[Flatbuffer], Iterator[str]]] = {
    "float32": _float32,
    "float16": _float16,
    "dynamic-range": _dynamic_range,
    "int8": _int8,
    "int16x8": _int16x8,
}


def _strangers(flatbuffer: Flatbuffer, allowed: tuple[str, ...], expected: str) -> Iterator[str]:
    """Tensors of another type; the photo itself is uint8 in every file."""
    count = len(flatbuffer.graph.tensors)
    inputs = set(map(int, flatbuffer.graph.inputs))
    other = [index for index in range(count) if index not in inputs and flatbuffer.type(index) not in allowed]
    if other:
        first = ", ".join(_describe(flatbuffer, index) for index in other[:3])
        yield f"{len(other)} of {count} tensors are not {expected}, the first: {first}"


def _activations(flatbuffer: Flatbuffer) -> Iterator[str]:
    """Every weighted operator computes in float32."""
    for entry in _weighted(flatbuffer):
        for index in (*entry.inputs, *entry.outputs):
            if not flatbuffer.constant(index) and flatbuffer.type(index) in ("INT8", "UINT8", "INT16", "FLOAT16"):
                if _origin(flatbuffer, index) != index:
                    continue  # weights on their way to float32
                yield f"{_describe(flatbuffer, index)}, expected float32 activations"
                return


def _weights(flatbuffer: Flatbuffer, expected: str, smallest: int) -> Iterator[str]:
    """Of ``smallest`` elements or more."""
    found = [(entry, _origin(flatbuffer, entry.inputs[_position(entry)])) for entry in _weighted(flatbuffer)]
    large = [(entry, index) for entry, index in found if flatbuffer.size(index) >= smallest]
    other = [(entry, index) for entry, index in large if flatbuffer.type(index) != expected]
    if other:
        entry, index = other[0]
        yield (
            f"{len(other)} of {len(large)} weights are not {expected}, the first those of "
            f"{_describe(flatbuffer, entry.outputs[0])}: {flatbuffer.type(index)}"
        )
    elif not large:
        yield f"no weights of {smallest} elements or more, so none is {expected}"


def _position(entry: Operator) -> int:
    return min(WEIGHTS, len(entry.inputs) - 1)


def _origin(flatbuffer: Flatbuffer, index: int) -> int:
    """The constant that a tensor of weights is dequantised from, or itself."""
    producer = flatbuffer.producers.get(index)
    if producer is not None and producer.kind == "DEQUANTIZE" and flatbuffer.constant(producer.inputs[0]):
        return producer.inputs[0]
    return index


def _float_boundary(flatbuffer: Flatbuffer) -> Iterator[str]:
    for index in flatbuffer.graph.inputs:
        if flatbuffer.type(index) != "UINT8":
            yield f"input is {flatbuffer.type(index)}, expected UINT8"
    yield from _answer(flatbuffer, ("FLOAT32",))


def _answer(flatbuffer: Flatbuffer, allowed: tuple[str, ...]) -> Iterator[str]:
    for index in flatbuffer.graph.outputs:
        if flatbuffer.type(index) not in allowed:
            yield f"output is {flatbuffer.type(index)}, expected {' or '.join(allowed)}"


def _weighted(flatbuffer: Flatbuffer) -> list[Operator]:
    return [entry for entry in flatbuffer.operators if entry.kind in WEIGHTED]


def _describe(flatbuffer: Flatbuffer, index: int) -> str:
    """``unet_1/logits_1/BiasAdd (FLOAT32 of CONV_2D)``: of a fused operator the last name, the layer's own."""
    producer = flatbuffer.producers.get(index)
    kind = f" of {producer.kind}" if producer else ""
    return f"{flatbuffer.name(index).split(';')[0]} ({flatbuffer.type(index)}{kind})"

"""Protobuf messages, walked without their schema: just what a check of an ONNX file needs.

Every number, length and depth is bounded: a file may say anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from unet_runtime.core.errors import ModelFileError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_VARINT_BYTES = 10  # 64 bits
_MAX_DEPTH = 100
_MAX_FIELDS = 2_000_000

_SEARCHED = 1 << 16
"""Bytes of a message that is searched before it is walked; a search through all weights would take longer."""

_LOCATION = b"location"
"""Key of the entry that names the other file; without it no engine reads external data."""

_DATA_LOCATION, _EXTERNAL = 14, 1
"""``TensorProto.data_location`` and its value for a tensor whose values are elsewhere."""

_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse tensor"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse tensor", 23: "sparse tensor"},
    "sparse tensor": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
"""Message -> number of a field -> the message in it, for all in which a tensor may lie (onnx/onnx.proto)."""


def messages(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, payload) of each length-delimited field; all others are passed over.

    Raises:
        ModelFileError: no protobuf message.
    """
    for number, value in _fields(message):
        if isinstance(value, memoryview):
            yield number, value


def has_external_tensors(model: memoryview) -> bool:
    """Whether a serialised ModelProto has a tensor whose values are in another file.

    Raises:
        ModelFileError: no protobuf message, or one that is nested deeper, or has more fields, than any model.
    """
    waiting = [("model", model, 0)]
    count = 0
    while waiting:
        kind, message, depth = waiting.pop()
        if len(message) < _SEARCHED and _LOCATION not in bytes(message):  # quicker than its fields
            continue
        if depth > _MAX_DEPTH:
            raise ModelFileError(f"not an ONNX model: its graphs are nested deeper than {_MAX_DEPTH}")
        for number, value in _fields(message):
            count += 1
            if count > _MAX_FIELDS:
                raise ModelFileError(f"not an ONNX model: it has more than {_MAX_FIELDS:,} fields")
            if isinstance(value, int):
                if (kind, number) == ("tensor", _DATA_LOCATION) and value == _EXTERNAL:
                    return True
            elif number in _INSIDE[kind]:
                waiting.append((_INSIDE[kind][number], value, depth + 1))
    return False


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(number, value) of each field: an integer, or the bytes of a length-delimited one; fixed ones are passed over."""
    position = 0
    while position < len(message):
        tag, position = _read_varint(message, position)
        wire_type, number = tag & 7, tag >> 3
        if wire_type in (_VARINT, _BYTES):
            value, position = _read_varint(message, position)
            if wire_type == _VARINT:
                yield number, value
                continue
            if value > len(message) - position:
                raise ModelFileError("not an ONNX model: a protobuf field is longer than the file")
            yield number, message[position : position + value]
            position += value
        elif wire_type in (_FIXED32, _FIXED64):
            position += 4 if wire_type == _FIXED32 else 8
        else:
            raise ModelFileError(f"not an ONNX model: protobuf wire type {wire_type}")


def _read_varint(message: memoryview, position: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[position : position + _VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise ModelFileError("not an ONNX model: it ends inside a protobuf number, or has one of more than 64 bits")

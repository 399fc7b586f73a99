"""Requests and responses of the Open Inference Protocol v2: JSON, with tensors in it or, binary, behind it.

https://github.com/kserve/open-inference-protocol and, for the binary form,
https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_binary_data.html
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unet_runtime.core.text import one_line
from unet_runtime.serve.refusals import BAD_REQUEST, RefusalError

HEADER = "Inference-Header-Content-Length"

_LENGTH = struct.Struct("<I")
_DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}
_MAX_OUTPUTS = 16
_MAX_ID = 1000


class Asked(NamedTuple):
    """An output that a client asks for."""

    name: str
    is_binary: bool


class Request(NamedTuple):
    """What a client sent."""

    id: str
    images: npt.NDArray[np.uint8] | None
    """uint8 (n, h, w, 3); None where there are photos."""
    photos: list[bytes]
    """Encoded photos."""
    outputs: list[Asked]
    """Empty: all."""
    is_binary: bool
    """Form of the outputs that the client does not list."""


class Output(NamedTuple):
    """One output, of a response."""

    name: str
    values: npt.NDArray[Any] | list[bytes]
    """A tensor of uint8 or float32, or the files of n photos."""
    is_binary: bool


def read_request(body: bytes, header_length: str | None, size: tuple[int, int], most: int) -> Request:
    """Read the body of an inference.

    Args:
        body: all of it.
        header_length: the header ``Inference-Header-Content-Length``: bytes of JSON before the binary data.
        size: (height, width) of the model's input.
        most: photos of a request.

    Raises:
        RefusalError: not what the protocol or the model expects.
    """
    text, rest = _parts(body, header_length)
    try:
        content = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise _refuse(f"a request that is no JSON ({one_line(error, 100)})") from error
    if not isinstance(content, dict):
        raise _refuse("a request that is no JSON object")
    identifier = content.get("id", "")
    if not isinstance(identifier, str) or len(identifier) > _MAX_ID:
        raise _refuse("an id that is no text")
    inputs = content.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise _refuse('no list of one input, expected "inputs": [{"name": "image", ...}]')
    parameters = _parameters(content)
    images, photos = _input(inputs[0], rest, size, most)
    return Request(identifier, images, photos, _outputs(content), parameters.get("binary_data_output") is True)


def _refuse(message: str) -> RefusalError:
    return RefusalError(BAD_REQUEST, message)


def _refuse_constant(word: str) -> float:
    raise ValueError(f"{word} is no JSON number")


def _parts(body: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    if header_length is None:
        return body, b""
    length = header_length.strip()
    if not (length.isascii() and length.isdecimal() and len(length) < 16 and int(length) <= len(body)):
        raise _refuse(f"{HEADER}: {length[:30]!r}, expected at most the body's {len(body)} bytes")
    return body[: int(length)], body[int(length) :]


def _parameters(entry: dict[str, Any]) -> dict[str, Any]:
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict):
        raise _refuse("parameters that are no JSON object")
    for name in parameters:
        if name.startswith("shared_memory"):
            raise _refuse("a tensor in shared memory: send it in the request")
    return parameters


def _outputs(content: dict[str, Any]) -> list[Asked]:
    entries = content.get("outputs", [])
    if not isinstance(entries, list) or len(entries) > _MAX_OUTPUTS:
        raise _refuse(f"outputs that are no list of at most {_MAX_OUTPUTS}")
    default = _parameters(content).get("binary_data_output") is True
    asked = []
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise _refuse("an output without a name")
        parameters = _parameters(entry)
        if parameters.get("classification"):
            raise _refuse("an output as classification, which no segmentation has: ask for the tensor")
        asked.append(Asked(entry["name"], parameters.get("binary_data", default) is True))
    return asked


def _input(
    entry: dict[str, Any], rest: bytes, size: tuple[int, int], most: int
) -> tuple[npt.NDArray[np.uint8] | None, list[bytes]]:
    """(images, photos): one of the two."""
    name, kind, shape = entry.get("name"), entry.get("datatype"), entry.get("shape")
    if name != "image":
        raise _refuse(f"input {str(name)[:40]!r}, expected 'image'")
    is_shape = isinstance(shape, list) and all(type(side) is int and 0 < side < 1 << 31 for side in shape)
    if not is_shape or not shape:
        raise _refuse("an input without a shape of whole numbers above 0")
    binary_size = _parameters(entry).get("binary_data_size")
    if binary_size is not None:
        if type(binary_size) is not int or binary_size != len(rest):
            raise _refuse(f"binary_data_size {str(binary_size)[:20]}, but {len(rest)} bytes behind the JSON")
    elif rest:
        raise _refuse(f"{len(rest)} bytes behind the JSON, of an input without binary_data_size")
    data = entry.get("data") if binary_size is None else None
    if kind == "BYTES":
        return None, _photos(shape, data, rest, most)
    if kind != "UINT8":
        raise _refuse(
            f"datatype {str(kind)[:20]!r}, expected UINT8 (RGB, 0 to 255, as the model takes it) or BYTES (encoded "
            "photos)"
        )
    expected = [-1, *size, 3]
    if len(shape) != 4 or shape[1:] != expected[1:]:
        raise _refuse(f"shape {str(shape)[:60]}, expected {expected}, or BYTES for photos of other sizes")
    if shape[0] > most:
        raise _refuse(f"a batch of {shape[0]}, at most {most} are taken")
    return _images(shape, data, rest), []


def _images(shape: list[int], data: Any, rest: bytes) -> npt.NDArray[np.uint8]:
    count = math.prod(shape)
    if data is None:
        if len(rest) != count:
            raise _refuse(f"{len(rest)} bytes of tensor, its shape has {count}")
        return np.frombuffer(rest, np.uint8).reshape(shape)
    try:
        values = np.asarray(data)
    except (ValueError, OverflowError, RecursionError) as error:
        raise _refuse(f"data that is no tensor ({one_line(error, 100)})") from error
    if values.dtype.kind not in "iu" or values.size != count:
        raise _refuse(f"data of {values.size} values of type {values.dtype}, expected {count} whole numbers")
    if values.min() < 0 or values.max() > 255:
        raise _refuse(f"data in {values.min()}..{values.max()}, expected 0..255")
    return values.astype(np.uint8).reshape(shape)


def _photos(shape: list[int], data: Any, rest: bytes, most: int) -> list[bytes]:
    count = math.prod(shape)
    if count > most:
        raise _refuse(f"{count} photos in one request, at most {most} are taken")
    photos = _split(rest) if data is None else _decode(data)
    if len(photos) != count:
        raise _refuse(f"{len(photos)} photos, the shape says {count}")
    return photos


def _split(rest: bytes) -> list[bytes]:
    """Elements of a binary tensor of BYTES: each has its length before it."""
    found, position = [], 0
    while position < len(rest):
        start = position + _LENGTH.size
        if start > len(rest):
            raise _refuse("a tensor of BYTES that is cut off")
        position = start + _LENGTH.unpack_from(rest, position)[0]
        if position > len(rest):
            raise _refuse("a tensor of BYTES whose lengths do not fit its size")
        found.append(rest[start:position])
    return found


def _decode(data: Any) -> list[bytes]:
    """Elements of a JSON tensor of BYTES: JSON holds no bytes, so they are base64."""
    if not isinstance(data, list):
        raise _refuse("data that is no list")
    found = []
    for entry in data:
        try:
            found.append(base64.b64decode(entry, validate=True))
        except (binascii.Error, TypeError, ValueError) as error:
            raise _refuse(f"a photo that is no base64 ({one_line(error, 80)}): or send it as binary data") from error
    return found


def write_response(
    model: str, version: str, identifier: str, outputs: list[Output]
) -> tuple[bytes, str, dict[str, str]]:
    """(body, media type, headers) of a response."""
    entries = []
    behind = []
    for output in outputs:
        entry, content = _entry(output)
        entries.append(entry)
        behind.append(content)
    answer: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": entries}
    if identifier:
        answer["id"] = identifier
    text = json.dumps(answer, separators=(",", ":")).encode()
    if not any(output.is_binary for output in outputs):
        return text, "application/json", {}
    return b"".join((text, *behind)), "application/octet-stream", {HEADER: str(len(text))}


def _entry(output: Output) -> tuple[dict[str, Any], bytes]:
    """(what the JSON says of an output, what stands behind the JSON)."""
    values = output.values
    if isinstance(values, list):
        entry: dict[str, Any] = {"name": output.name, "datatype": "BYTES", "shape": [len(values)]}
        content = b"".join(_LENGTH.pack(len(value)) + value for value in values)
        data: list[Any] = [base64.b64encode(value).decode("ascii") for value in values]
    else:
        kind = "UINT8" if values.dtype == np.uint8 else "FP32"
        entry = {"name": output.name, "datatype": kind, "shape": list(values.shape)}
        content = values.astype(_DTYPES[kind], copy=False).tobytes() if output.is_binary else b""
        data = [] if output.is_binary else values.ravel().tolist()
    if output.is_binary:
        entry["parameters"] = {"binary_data_size": len(content)}
        return entry, content
    entry["data"] = data
    return entry, b""

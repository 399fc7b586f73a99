"""A foreign ``.tflite`` file, read: its tensors, how its outputs end, and its metadata.

TensorFlow Lite's metadata, which MediaPipe and others write, are a flatbuffer inside the flatbuffer, and label files
in a zip behind it.
"""

from __future__ import annotations

import io
import logging
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unet_export.adopt.beside import hugging_face, lines, literal, ultralytics
from unet_export.adopt.facts import Facts, Said, Tensor
from unet_export.errors import ExportError
from unet_runtime.core.artifact import SPEC_NAME, read_entry, read_model
from unet_runtime.core.errors import ModelFileError
from unet_runtime.core.spec import Precision
from unet_runtime.core.text import one_line

logger = logging.getLogger(__name__)

_METADATA_BUFFER = b"TFLITE_METADATA"
_SOURCE = "metadata of the .tflite"
_FLEX = "Flex"
_FLEX_REMEDY = "convert it with TensorFlow Lite's own operators (without SELECT_TF_OPS)"
_LABEL_BYTES = 1 << 20
_PASSING = ("RESHAPE", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR", "DEQUANTIZE", "QUANTIZE", "CAST", "SQUEEZE")
_ACTIVATIONS = {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid", "ARG_MAX": "labels", "LOG_SOFTMAX": "logits"}
_LINEAR = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "ADD", "BATCH_MATMUL")


def read(path: Path) -> Facts:
    """See ``reader.read``."""
    content = model_of(path)
    flatbuffer = _parsed(path, content)
    said = {**hugging_face(path), **_metadata(content, flatbuffer)}
    if flatbuffer.replace_custom():
        logger.info("%s: LiteRT's TRANSPOSE_CONV in place of MediaPipe's custom operator", path.name)
        content = flatbuffer.pack()
    custom = sorted({entry.kind for entry in flatbuffer.operators if entry.custom})
    if flex := [kind for kind in custom if kind.startswith(_FLEX)]:
        raise ExportError(f"{path}: Flex operators {', '.join(flex)}, which need TensorFlow itself: {_FLEX_REMEDY}")
    if custom:
        raise ExportError(
            f"{path}: custom operators {', '.join(custom)}, which LiteRT has not: convert it with TensorFlow Lite's "
            "own operators, or take another file of this model"
        )
    from ai_edge_litert.interpreter import Interpreter

    try:
        interpreter: Any = Interpreter(model_content=content)
        inputs = [_tensor(entry) for entry in interpreter.get_input_details()]
        outputs = [_tensor(entry) for entry in interpreter.get_output_details()]
    except (ValueError, RuntimeError) as error:
        raise ExportError(f"{path}: LiteRT refuses it ({one_line(error)}): convert it again") from error
    indices = map(int, flatbuffer.graph.outputs)
    outputs = [entry._replace(ends=_ends(flatbuffer, index)) for entry, index in zip(outputs, indices, strict=True)]
    return Facts(path, content, inputs, outputs, _precision(flatbuffer), said)


def model_of(path: Path) -> bytes:
    """The file without spec and digest of an earlier export.

    Raises:
        ModelFileError: it cannot be read.
    """
    content = read_model(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if SPEC_NAME not in archive.namelist():
                return content
            first = min(entry.header_offset for entry in archive.infolist())
            rest = [(entry, archive.read(entry)) for entry in archive.infolist() if entry.filename != SPEC_NAME]
    except (zipfile.BadZipFile, OSError, RuntimeError):  # no zip behind it, or none that can be read
        return content
    buffer = io.BytesIO(content[:first])
    if rest:
        with zipfile.ZipFile(buffer, "a") as archive:
            for entry, data in rest:
                archive.writestr(entry, data)
    return buffer.getvalue()


def _parsed(path: Path, content: bytes) -> Any:
    from unet_export.formats.flatbuffer import Flatbuffer

    if content[4:8] != b"TFL3":
        raise ExportError(f"{path}: no TensorFlow Lite model: it has no TFL3 in front: copy or convert it again")
    try:
        flatbuffer = Flatbuffer(content)
        _ = flatbuffer.operators
    except Exception as error:  # a damaged flatbuffer raises anything
        raise ExportError(f"{path}: no TensorFlow Lite model ({one_line(error)}): copy or convert it again") from error
    return flatbuffer


def _tensor(entry: Any) -> Tensor:
    sizes = [size if size > 0 else None for size in entry["shape_signature"].tolist()]
    if not sizes:
        sizes = entry["shape"].tolist()
    scale, zero_point = entry["quantization"]
    return Tensor(entry["name"], np.dtype(entry["dtype"]).name, tuple(sizes), (float(scale), int(zero_point)))


def _ends(flatbuffer: Any, index: int) -> str:
    operator = flatbuffer.producers.get(index)
    while operator is not None and operator.kind in _PASSING:
        operator = flatbuffer.producers.get(operator.inputs[0])
    if operator is None:
        return ""
    is_open = operator.kind in _LINEAR and not operator.fused
    return _ACTIVATIONS.get(operator.kind, "logits" if is_open else "")


def _precision(flatbuffer: Any) -> Precision:
    kinds = {flatbuffer.type(flatbuffer.source(entry.inputs[1])) for entry in flatbuffer.weighted()}
    activations = {
        flatbuffer.type(entry.inputs[-1 if entry.kind == "TRANSPOSE_CONV" else 0]) for entry in flatbuffer.weighted()
    }
    if "INT8" in kinds or "UINT8" in kinds:
        if "INT16" in activations:
            return "int16x8"
        return "int8" if activations & {"INT8", "UINT8"} else "dynamic-range"
    return "float16" if "FLOAT16" in kinds else "float32"


# --- metadata --------------------------------------------------------------------------------------


class _Table:
    """A table of a flatbuffer, read by the numbers of its fields (tensorflow/lite metadata_schema.fbs)."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data, self._position = data, position
        self._vtable = position - struct.unpack_from("<i", data, position)[0]
        self._size = struct.unpack_from("<H", data, self._vtable)[0]

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, struct.unpack_from("<I", data, 0)[0])

    def _field(self, number: int) -> int | None:
        place = 4 + 2 * number
        if place + 2 > self._size:
            return None
        offset = struct.unpack_from("<H", self._data, self._vtable + place)[0]
        return self._position + offset if offset else None

    def _target(self, number: int) -> int | None:
        place = self._field(number)
        return None if place is None else place + struct.unpack_from("<I", self._data, place)[0]

    def byte(self, number: int) -> int:
        place = self._field(number)
        return 0 if place is None else self._data[place]

    def table(self, number: int) -> _Table | None:
        target = self._target(number)
        return None if target is None else _Table(self._data, target)

    def raw(self, number: int) -> bytes:
        """A string, or a vector of bytes."""
        target = self._target(number)
        if target is None:
            return b""
        length = struct.unpack_from("<I", self._data, target)[0]
        return self._data[target + 4 : target + 4 + length]

    def text(self, number: int) -> str:
        return self.raw(number).decode("utf-8", "replace")

    def floats(self, number: int) -> tuple[float, ...]:
        target = self._target(number)
        if target is None:
            return ()
        length = struct.unpack_from("<I", self._data, target)[0]
        return struct.unpack_from(f"<{length}f", self._data, target + 4)

    def tables(self, number: int) -> Iterator[_Table]:
        target = self._target(number)
        if target is None:
            return
        length = struct.unpack_from("<I", self._data, target)[0]
        for index in range(length):
            place = target + 4 + 4 * index
            yield _Table(self._data, place + struct.unpack_from("<I", self._data, place)[0])


def _metadata(content: bytes, flatbuffer: Any) -> dict[str, Said]:
    said: dict[str, Said] = {}
    files = _files(content)
    for name in ("temp_meta.txt", "metadata.json"):  # ultralytics'
        if name in files:
            said |= _of_ultralytics(files[name])
    for entry in flatbuffer.model.metadata or []:
        if entry.name == _METADATA_BUFFER:
            try:
                said |= _of_tflite(bytes(flatbuffer.model.buffers[entry.buffer].data), files)
            except (struct.error, TypeError, ValueError, IndexError):  # damaged: what is not read is asked for
                continue
    return said


def _files(content: bytes) -> dict[str, bytes]:
    """Files of the zip behind the flatbuffer."""
    found = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist()[:20]:
                found[name] = read_entry(archive, name, _LABEL_BYTES)
    except (zipfile.BadZipFile, ModelFileError, KeyError, OSError, RuntimeError):
        return found
    return found


def _of_ultralytics(content: bytes) -> dict[str, Said]:

    entries = literal(content.decode("utf-8", "replace"))
    if not isinstance(entries, dict):
        return {}
    return ultralytics({str(key): str(value) for key, value in entries.items()})


def _of_tflite(data: bytes, files: dict[str, bytes]) -> dict[str, Said]:
    model = _Table.root(data)
    said: dict[str, Said] = {}
    if license_text := model.text(5):
        said["license"] = Said(license_text, _SOURCE)
    for graph in model.tables(3):
        for tensor in graph.tables(2):
            said |= _of_input(tensor)
        for tensor in graph.tables(3):
            said |= _of_output(tensor, files)
        for custom in graph.tables(9):
            activation = _of_segmenter(custom)
            if activation:
                said["activation"] = Said(activation, _SOURCE)
        break
    return said


def _of_input(tensor: _Table) -> dict[str, Said]:
    said: dict[str, Said] = {}
    content = tensor.table(3)
    if content is not None and content.byte(0) == 2:  # ImageProperties
        image = content.table(1)
        colour = {1: "rgb", 2: "grey"}.get(image.byte(0) if image is not None else 0)
        if colour:
            said["channels"] = Said(colour, _SOURCE)
    for unit in tensor.tables(4):
        options = unit.table(1)
        if unit.byte(0) != 1 or options is None:  # NormalizationOptions: (byte - mean) / std
            continue
        mean, std = options.floats(0), options.floats(1)
        if mean and len(mean) == len(std) and min(std) > 0:
            if len(set(mean)) == len(set(std)) == 1:
                low = -mean[0] / std[0]
                said["range"] = Said((low, low + 255 / std[0]), _SOURCE)
            else:
                said["range"] = Said((0.0, 255.0), _SOURCE)
                said["mean"], said["std"] = Said(mean, _SOURCE), Said(std, _SOURCE)
    return said


def _of_output(tensor: _Table, files: dict[str, bytes]) -> dict[str, Said]:
    for file in tensor.tables(6):
        if file.byte(2) in (2, 3) and (names := lines(files.get(file.text(0), b""))):  # labels
            return {"classes": Said(names, f"{file.text(0)} in the .tflite")}
    return {}


def _of_segmenter(custom: _Table) -> str:
    """What MediaPipe's ImageSegmenterOptions says is still to be applied to the output."""
    if "SEGMENTER" not in custom.text(0).upper():
        return ""
    options = _Table.root(custom.raw(1))
    return {1: "sigmoid-logits", 2: "logits"}.get(options.byte(0), "")

"""Model files that describe themselves: write and read the spec, refuse a damaged file.

One rule for every format: the file's last 64 bytes are the SHA-256, in lower-case hex, of all bytes before them. So
damage anywhere is found before an engine sees the file, with the standard library alone, and the file stays valid in
its own format:

    .onnx     a protobuf message: fields may be appended. Spec and digest are its last two ``metadata_props``.
    .tflite   a flatbuffer ignores what follows it: a zip with the spec as its entry and the digest as its comment.
    .keras    a zip already: the spec is one more entry, the digest its comment.

A SavedModel is a folder: ``assets.extra/`` holds the spec and the SHA-256 of every other file. A digest finds damage;
it does not prove who made the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unet_runtime.core.errors import ModelFileError
from unet_runtime.core.files import read_regular, temporary_sibling, write_bytes, write_text
from unet_runtime.core.spec import MAX_BYTES as SPEC_BYTES
from unet_runtime.core.spec import ModelSpec
from unet_runtime.core.text import one_line

if TYPE_CHECKING:
    import zipfile

SPEC_NAME = "unet_edge.json"
"""Name of the spec: zip entry, file in assets.extra, and (less ``.json``) metadata key."""

SPEC_MARKS = (b"unet_edge.sha256", SPEC_NAME.encode())
"""What stands near the end of a model file with a spec, damaged or not."""

SAVED_MODEL_SPEC = f"assets.extra/{SPEC_NAME}"
"""The spec's file in a SavedModel."""

MAX_BYTES = 2**31
"""A model file has fewer: neither a protobuf message nor a flatbuffer can be longer."""

_SHOWN = 5  # names in a message
_ONNX_SPEC_KEY = "unet_edge"
_ONNX_DIGEST_KEY = "unet_edge.sha256"
_ONNX_METADATA_FIELD = 14  # ModelProto.metadata_props, repeated StringStringEntryProto {key = 1, value = 2}
_DIGEST_LENGTH = 64
_SUMS_NAME = "SHA256SUMS"
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # zip's earliest: the same input gives the same bytes


class Artifact(NamedTuple):  # not a dataclass: half a millisecond of a cold start
    """A model file that was read whole and found undamaged."""

    path: Path
    spec: ModelSpec
    content: bytes
    """The whole file, as the engine takes it."""

    def __repr__(self) -> str:
        return f"Artifact({str(self.path)!r}, {self.spec!r}, {len(self.content)} bytes)"

    @property
    def digest(self) -> str:
        """SHA-256 of the file less its last 64 bytes, which hold it; 64 hex digits."""
        return self.content[-_DIGEST_LENGTH:].decode()


def read_artifact(path: str | os.PathLike[str]) -> Artifact:
    """Read a ``.onnx``, ``.tflite`` or ``.keras`` file and verify its digest.

    Raises:
        ModelFileError: missing, unreadable, of another suffix, damaged, or without a spec.

    Example:
        >>> from unet_runtime.engines import ENGINES
        >>> read_artifact(ENGINES["tflite"].default_model).spec.precision
        'int8'
    """
    path = Path(path)
    content = read_model(path)
    if path.suffix not in _SPEC_READERS:
        raise ModelFileError(f"{path}: suffix {path.suffix!r}, expected one of {', '.join(_SPEC_READERS)}")
    _verify(path, content)
    try:
        text = _SPEC_READERS[path.suffix](content)
        spec = None if text is None else ModelSpec.from_json(text)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}") from error
    except Exception as error:  # its digest is right, its container is not: zipfile raises what it stumbles over
        raise ModelFileError(
            f"{path}: its spec cannot be read ({type(error).__name__}: {error}): export it with unet-export"
        ) from error
    if spec is None:
        raise _without_spec(path, "carries no model spec, was not made by unet-export")
    return Artifact(path, spec, content)


def read_model(path: Path) -> bytes:
    """The bytes of a model file, of ours or of another tool.

    Raises:
        ModelFileError: there is no such file, or it cannot be read or held in memory.
    """
    try:
        return read_regular(path, MAX_BYTES)
    except FileNotFoundError as error:
        raise ModelFileError(f"{path}: no such model file, expected .onnx or .tflite") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelFileError(f"{path}: model file cannot be read ({reason})") from error
    except MemoryError as error:
        raise ModelFileError(f"{path}: model file is too large for this machine's memory") from error


def _verify(path: Path, content: bytes) -> None:
    recorded = content[-_DIGEST_LENGTH:]
    if len(recorded) < _DIGEST_LENGTH or not all(byte in b"0123456789abcdef" for byte in recorded):
        raise _without_spec(
            path,
            f"{len(content)} bytes that do not end in a SHA-256 digest: the file is truncated, or was not made by "
            "unet-export",
        )
    actual = _hex_digest(memoryview(content)[:-_DIGEST_LENGTH])
    if actual != recorded:
        raise ModelFileError(
            f"{path}: damaged: its bytes have SHA-256 {actual[:12].decode()}..., recorded is "
            f"{recorded[:12].decode()}...: copy the file again"
        )


def _without_spec(path: Path, found: str) -> ModelFileError:
    """The error for a file that does not say how it is used, with what to type."""
    if path.suffix == ".keras":
        return ModelFileError(f"{path}: {found}: export it with unet-export")
    import shlex  # what only an error needs

    error = ModelFileError(f"{path}: {found}. If another tool made it, give it a spec first:")
    name = shlex.quote(str(path))
    error.hint = f"unet-export adopt {name} --classes background,NAME   # asks for what else the file does not say"
    return error


def _hex_digest(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def append_to_onnx(model: bytes, spec: ModelSpec) -> bytes:
    """A serialised ONNX ModelProto with spec and digest as its last two ``metadata_props``."""
    content = model + _metadata_entry(_ONNX_SPEC_KEY, spec.to_json().encode())
    # The digest's value is the last thing in the file: everything before it is covered, its key too.
    content += _metadata_entry(_ONNX_DIGEST_KEY, bytes(_DIGEST_LENGTH))[:-_DIGEST_LENGTH]
    return content + _hex_digest(content)


def _metadata_entry(key: str, value: bytes) -> bytes:
    return _field(_ONNX_METADATA_FIELD, _field(1, key.encode()) + _field(2, value))


def _field(number: int, payload: bytes) -> bytes:
    """One length-delimited protobuf field."""
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _onnx_spec(content: bytes) -> bytes | None:
    """Walk the message's top level (a dozen fields; the graph is skipped by its length).

    Raises:
        ModelFileError: no protobuf message, or one that refers to other files.
    """
    from unet_runtime.core import protobuf

    message = memoryview(content)
    if protobuf.has_external_tensors(message):
        raise ModelFileError(
            "its weights are in another file (external data), which its digest does not cover: save it as one file"
        )
    for number, payload in protobuf.messages(message):
        if number == _ONNX_METADATA_FIELD:
            entry = dict(protobuf.messages(payload))
            if bytes(entry.get(1, b"")) == _ONNX_SPEC_KEY.encode():
                return bytes(entry.get(2, b""))
    return None


def append_to_tflite(model: bytes, spec: ModelSpec) -> bytes:
    """A flatbuffer followed by a zip with the spec; the zip's comment is the digest of all before it."""
    return _with_zip_entry(model, spec)


def _with_zip_entry(content: bytes, spec: ModelSpec) -> bytes:
    import zipfile

    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        entry = zipfile.ZipInfo(SPEC_NAME, _ZIP_TIME)
        archive.writestr(entry, spec.to_json())
        archive.comment = bytes(_DIGEST_LENGTH)  # reserves the place
    covered = buffer.getvalue()[:-_DIGEST_LENGTH]
    return covered + _hex_digest(covered)


def _zip_spec(content: bytes) -> bytes | None:
    import zipfile  # 10 ms that a .onnx does not need

    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return read_entry(archive, SPEC_NAME, SPEC_BYTES)
    except (KeyError, zipfile.BadZipFile):
        return None


def read_entry(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """An entry of a zip, read only as far as it is allowed to be long: a small file may hold gigabytes of zeros.

    Raises:
        KeyError: there is no such entry.
        ModelFileError: it is longer than ``limit`` bytes.
        zipfile.BadZipFile: it is damaged.
    """
    with archive.open(name) as entry:
        content = entry.read(limit + 1)
    if len(content) > limit:
        raise ModelFileError(f"its entry {name} has more than {limit:,} bytes")
    return content


def write_keras(save: Callable[[str], object], path: Path, spec: ModelSpec) -> None:
    """Write a ``.keras`` file with ``save(path)`` (Keras' own ``Model.save``), compress it, put spec and digest in.

    Raises:
        OutputError: the file cannot be written; whatever ``save`` raises. The file appears whole or not at all.
    """
    temporary = temporary_sibling(path, ".keras")
    try:
        save(os.fspath(temporary))
        write_bytes(path, _with_zip_entry(_deflated(temporary), spec))
    finally:
        temporary.unlink(missing_ok=True)


def _deflated(path: Path) -> bytes:
    """A zip with its entries compressed, which Keras stores as they are, and no time of day."""
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            entry = zipfile.ZipInfo(name, _ZIP_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(entry, source.read(name))
    return buffer.getvalue()


_SPEC_READERS: dict[str, Callable[[bytes], bytes | None]] = {
    ".onnx": _onnx_spec,
    ".tflite": _zip_spec,
    ".keras": _zip_spec,
}


def write_saved_model_spec(folder: Path, spec: ModelSpec) -> None:
    """Put the spec and the SHA-256 of every file into ``folder/assets.extra``.

    Raises:
        OutputError: one of the two cannot be written.
    """
    extra = folder / "assets.extra"
    write_text(extra / SPEC_NAME, spec.to_json())
    write_text(extra / _SUMS_NAME, json.dumps(_sums(folder), indent=1))


def read_saved_model_spec(folder: str | os.PathLike[str]) -> ModelSpec:
    """Verify a SavedModel's files and return its spec.

    Raises:
        ModelFileError: no SavedModel of unet-export, or a file of it is missing, new or damaged.
    """
    folder = Path(folder)
    extra = folder / "assets.extra"
    try:
        recorded = json.loads(read_regular(extra / _SUMS_NAME, SPEC_BYTES))
        text = read_regular(extra / SPEC_NAME, SPEC_BYTES)
        if not isinstance(recorded, dict):
            raise ValueError(f"{_SUMS_NAME} holds no object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{folder}: no SavedModel made by unet-export ({one_line(error)})") from error
    try:
        actual = _sums(folder)
    except OSError as error:
        raise ModelFileError(f"{folder}: cannot be read ({error})") from error
    differing = sorted(name for name in {*recorded, *actual} if recorded.get(name) != actual.get(name))
    if differing:
        shown = ", ".join(differing[:_SHOWN]) + (f" and {len(differing) - _SHOWN} more" if differing[_SHOWN:] else "")
        raise ModelFileError(f"{folder}: damaged: {shown}: copy the folder again")
    try:
        return ModelSpec.from_json(text)
    except ModelFileError as error:
        raise ModelFileError(f"{folder}: {error}") from error


def _sums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file; of what is none (a pipe, a device), a text that no file has."""
    sums = {}
    for path in sorted(folder.rglob("*")):
        if path.name == _SUMS_NAME or path.is_dir():
            continue
        name = path.relative_to(folder).as_posix()
        if not path.is_file():
            sums[name] = "no file"
            continue
        with path.open("rb") as file:
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums

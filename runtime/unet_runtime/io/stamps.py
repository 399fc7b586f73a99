"""The stamp: how a result file shows that it is one of ours, and of which model and options it was made.

Every format has a place for it that readers ignore: a text chunk of a PNG, the first key of a JSON object, the comment
of an archive or a JPEG, the software tag of a TIFF or WebP, a padding element at the end of a video, a comment that a
page begins with. A model's is its spec. Reports have the name of the command that made them in place of the digest.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Sequence
from pathlib import Path

from unet_runtime.core.artifact import SAVED_MODEL_SPEC, SPEC_MARKS
from unet_runtime.io.kind import STAMP_KEY

STAMP_REACH = 512
"""Bytes at a file's beginning and at its end among which its stamp is."""

_RESULTS_VERSION = 4
"""Changes when the same model and options give other files: 2 has greyscale masks and COCO ids from 1, 3 cut-outs
without veil and photo behind them, 4 takes the model's input of large photos from reduced ones."""

RESULTS = "unet-run"
"""Command whose files have a digest for their stamp."""

_KEY = STAMP_KEY.encode()
_MARK = _KEY + b"\0"  # no text file has a NUL: a label tool's may well name a folder "unet-edge"
_BEGINNING = re.compile(
    rb'\{\n? ?"' + _KEY + rb'": ?"(?P<json>[\w-]*)'  # of one line, and indented
    rb"|<!-- " + _KEY + rb": (?P<page>[\w-]+) -->"
    rb"|---\n# " + _KEY + rb": (?P<card>[\w-]+)\n"  # front matter of Markdown
)
_COMMAND = re.compile(rb"unet-(?:bench|export|info|run|train)")  # anything may follow it
_TEXT_MARK = b"unet-edge-runtime "  # with which unet-info's text begins
_EXPORT = "unet-export"
_ARTIFACTS = {".onnx": _EXPORT, ".tflite": _EXPORT, ".gz": _EXPORT, ".keras": "unet-train"}
"""Suffixes of files that one command alone writes: their stamps name none."""
_ENDS = {".png": b"IEND\xaeB`\x82", ".json": b"}\n"}  # a power failure may leave the beginning of a file alone
_BLOCK = 1 << 20

_MP4, _MKV, _AVI = "mp4", "mkv", "avi"
_CONTAINERS = {".mp4": _MP4, ".m4v": _MP4, ".mov": _MP4, ".mkv": _MKV, ".avi": _AVI}


def stamp(spec_json: str, **options: object) -> str:
    """16 hexadecimal digits that change with the model (its spec names its weights) or an option."""
    import hashlib  # imported already where a model has been read

    lines = [spec_json, f"results={_RESULTS_VERSION}"]
    for name in sorted(options):
        lines.append(f"{name}={options[name]}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def mark(stamp: str) -> bytes:
    """The bytes that a result file holds somewhere near its beginning or end; JSON has the stamp as its first key."""
    return _MARK + stamp.encode("ascii")


def mark_video(path: Path, stamp: str) -> None:
    """Append the mark to a finished video, as an element that its container's readers skip.

    Raises:
        OSError: the file cannot be written.
    """
    content = mark(stamp)
    container = _CONTAINERS[path.suffix.lower()]
    if container == _MP4:
        element = struct.pack(">I", 8 + len(content)) + b"free" + content
    elif container == _MKV:
        element = b"\xec" + struct.pack(">Q", 1 << 56 | len(content)) + content  # Void
    else:
        content += b"\0" * (len(content) % 2)
        element = b"JUNK" + struct.pack("<I", len(content)) + content
    with path.open("ab") as file:
        file.write(element)


def page_mark(command: str) -> str:
    """The line that a page of HTML or Markdown begins with."""
    return f"<!-- {STAMP_KEY}: {command} -->\n"


def is_ours(path: Path, command: str = "") -> bool:
    """Whether a file was made by one of our commands, or holds nothing, as after a power failure.

    Args:
        path: a file, or a folder: a SavedModel may be ours.
        command: that must have made it; empty for any.

    Raises:
        OSError: it cannot be read.
    """
    if path.is_dir():
        maker = _EXPORT if (path / SAVED_MODEL_SPEC).is_file() else ""
    else:
        ends = _ends(path)
        if not ends.strip(b"\0\n"):
            return _is_blank(path)
        maker = _made_by(ends, path.suffix.lower())
    return bool(maker) and command in ("", maker)


def _made_by(ends: bytes, suffix: str) -> str:
    """The command that a file's stamp names; empty where there is none."""
    if suffix in _ARTIFACTS:
        return _ARTIFACTS[suffix] if any(known in ends for known in (_MARK, *SPEC_MARKS)) else ""
    if found := _BEGINNING.match(ends):
        name = found["json"] or found["page"] or found["card"] or b""
    elif _MARK in ends:
        name = ends[ends.index(_MARK) + len(_MARK) :]
    else:
        return "unet-info" if ends.startswith(_TEXT_MARK) else ""
    named = _COMMAND.match(name)
    return named.group().decode() if named else RESULTS


def is_current(photo: Path, paths: Sequence[Path], stamp: str) -> bool:
    """Whether every result is there, whole, not older than the photo, and carries this stamp."""
    try:
        changed = photo.stat().st_mtime_ns
        return all(path.stat().st_mtime_ns >= changed and _carries(path, stamp) for path in paths)
    except OSError:  # missing or unreadable: to be made
        return False


def _carries(path: Path, stamp: str) -> bool:
    ends = _ends(path)
    return stamp.encode() in ends and ends.endswith(_ENDS.get(path.suffix.lower(), b""))


def _ends(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(STAMP_REACH)
        file.seek(max(0, file.seek(0, os.SEEK_END) - STAMP_REACH))
        return head + b"\n" + file.read()


def _is_blank(path: Path) -> bool:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            if block.strip(b"\0"):
                return False
    return True

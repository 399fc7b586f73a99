"""The stamp: how a result file shows that it is one of ours, and of which model and options it was made.

Every format has a place for it that readers ignore: a text chunk of a PNG, the first key of a JSON object, the comment
of an archive or a JPEG, the software tag of a TIFF or WebP, a padding element at the end of a video.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

from unet_runtime.io.kind import STAMP_KEY

STAMP_REACH = 512
"""Bytes at a file's beginning and at its end among which its stamp is."""

_RESULTS_VERSION = 4
"""Changes when the same model and options give other files: 2 has greyscale masks and COCO ids from 1, 3 cut-outs
without veil and photo behind them, 4 takes the model's input of large photos from reduced ones."""

_MARK = STAMP_KEY.encode() + b"\0"  # no text file has a NUL: a label tool's may well name a folder "unet-edge"
_JSON_MARKS = (f'{{"{STAMP_KEY}":'.encode(), f'{{\n "{STAMP_KEY}":'.encode())  # of one line, and indented
_TEXT_MARK = b"unet-edge-runtime "  # with which unet-info's text begins
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


def is_ours(path: Path) -> bool:
    """Whether a regular file is a result of ours, or holds nothing, as after a power failure.

    Raises:
        OSError: it cannot be read.
    """
    ends = _ends(path)
    return _MARK in ends or ends.startswith((*_JSON_MARKS, _TEXT_MARK)) or (not ends.strip(b"\0\n") and _is_blank(path))


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

"""Pictures with their times as a Matroska stream of raw video: what a pipe to or from another program needs.

https://www.rfc-editor.org/rfc/rfc9559: an element is its id, its size and its content.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

_UNKNOWN_SIZE = b"\x01" + b"\xff" * 7
_MICROSECOND = 1000  # nanoseconds
_RGB24 = b"RGB\x18"  # FFmpeg's code

_SEGMENT, _CLUSTER, _TRACKS, _TRACK = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\x16\x54\xae\x6b", b"\xae"
_VIDEO, _WIDTH, _HEIGHT, _TIME, _BLOCK_GROUP, _BLOCK, _SIMPLE_BLOCK = (
    b"\xe0",
    b"\xb0",
    b"\xba",
    b"\xe7",
    b"\xa0",
    b"\xa1",
    b"\xa3",
)
_OPENED = frozenset({_SEGMENT, _CLUSTER, _TRACKS, _TRACK, _VIDEO, _BLOCK_GROUP})
"""Elements whose content is elements that matter here."""
_BLOCK_HEAD = 4  # bytes: track, time after the cluster's in milliseconds (2), flags


def head(size: tuple[int, int], rate: float) -> bytes:
    """The beginning of a stream.

    Args:
        size: (width, height) of the pictures.
        rate: pictures a second, about; each has its own time.
    """
    video = _number(b"\xb0", size[0]) + _number(b"\xba", size[1]) + _element(b"\x2e\xb5\x24", _RGB24)
    track = (
        _number(b"\xd7", 1)
        + _number(b"\x73\xc5", 1)
        + _number(b"\x83", 1)
        + _number(b"\x23\xe3\x83", max(1, round(1e9 / rate)))
        + _element(b"\x86", b"V_UNCOMPRESSED")
        + _element(b"\xe0", video)
    )
    return (
        _element(b"\x1a\x45\xdf\xa3", _element(b"\x42\x82", b"matroska") + _number(b"\x42\x87", 4))
        + b"\x18\x53\x80\x67"
        + _UNKNOWN_SIZE
        + _element(b"\x15\x49\xa9\x66", _number(b"\x2a\xd7\xb1", _MICROSECOND))
        + _element(b"\x16\x54\xae\x6b", _element(b"\xae", track))
    )


def picture_head(seconds: float, size: int) -> bytes:
    """What precedes the RGB bytes, ``size`` of them, of a picture to be seen at a time."""
    time = _number(b"\xe7", round(seconds * 1e6))
    block = b"\x81\0\0\x80"  # track 1, 0 after the cluster's time, a key frame
    length = len(block) + size
    cluster_length = len(time) + 9 + length
    return b"\x1f\x43\xb6\x75" + _size(cluster_length) + time + b"\xa3" + _size(length) + block


def _element(name: bytes, content: bytes) -> bytes:
    return name + _size(len(content)) + content


def _number(name: bytes, value: int) -> bytes:
    return _element(name, value.to_bytes(8, "big"))


def _size(length: int) -> bytes:
    return (1 << 56 | length).to_bytes(8, "big")


def pictures(stream: IO[bytes]) -> Iterator[tuple[float, tuple[int, int], bytes]]:
    """(seconds, (width, height), bytes) of each picture of a stream of one track of raw video, as ffmpeg writes it."""
    width = height = cluster = 0
    while element := _next(stream):
        name, length = element
        if name in _OPENED:
            continue
        content = stream.read(length)
        if name == _WIDTH:
            width = int.from_bytes(content, "big")
        elif name == _HEIGHT:
            height = int.from_bytes(content, "big")
        elif name == _TIME:
            cluster = int.from_bytes(content, "big")
        elif name in (_BLOCK, _SIMPLE_BLOCK):
            after = int.from_bytes(content[1:3], "big", signed=True)
            yield (cluster + after) / 1000, (width, height), content[_BLOCK_HEAD:]


def _next(stream: IO[bytes]) -> tuple[bytes, int] | None:
    """(name, length of the content) of the next element."""
    name = _number_bytes(stream)
    length = _number_bytes(stream)
    if not name or not length:
        return None
    return name, int.from_bytes(length, "big") & ((1 << 7 * len(length)) - 1)


def _number_bytes(stream: IO[bytes]) -> bytes:
    """The bytes of a number whose first bits say how many there are; empty at the stream's end."""
    first = stream.read(1)
    if not first or not first[0]:
        return b""
    return first + stream.read(8 - first[0].bit_length())

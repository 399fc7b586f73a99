"""Sizes of pictures, read from their headers: for formats whose decoders decode the whole picture to tell it."""

from __future__ import annotations

from typing import IO

_MOST_BOXES = 64
_HEADER = 32  # bytes: more than a JPEG XL codestream needs to state its size
_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
_BITS = (9, 13, 18, 30)


def jpeg_xl_size(file: IO[bytes]) -> tuple[int, int]:
    """(width, height) of a JPEG XL file, as stored: before it is turned upright.

    Raises:
        ValueError: not such a file.
    """
    codestream = _codestream(file)
    if codestream[:2] != b"\xff\x0a" or len(codestream) < 6:
        raise ValueError("JPEG XL without a picture")
    bits = _Bits(codestream[2:])
    small = bits.take(1)
    height = _side(bits, small)
    ratio = bits.take(3)
    if ratio == 0:
        return _side(bits, small), height
    numerator, denominator = _RATIOS[ratio - 1]
    return height * numerator // denominator, height


class _Bits:
    """Bits of bytes, the lowest first."""

    def __init__(self, content: bytes) -> None:
        self._rest = int.from_bytes(content, "little")

    def take(self, count: int) -> int:
        value = self._rest & ((1 << count) - 1)
        self._rest >>= count
        return value


def _side(bits: _Bits, small: int) -> int:
    if small:
        return (bits.take(5) + 1) * 8
    return bits.take(_BITS[bits.take(2)]) + 1


def _codestream(file: IO[bytes]) -> bytes:
    """The beginning of the codestream, bare or in its boxes."""
    file.seek(0)
    head = file.read(_HEADER)
    if head[:2] == b"\xff\x0a":
        return head
    place = 0
    for _ in range(_MOST_BOXES):
        file.seek(place)
        head = file.read(16)
        length, kind, start = int.from_bytes(head[:4], "big"), head[4:8], 8
        if length == 1:
            length, start = int.from_bytes(head[8:16], "big"), 16
        if kind in (b"jxlc", b"jxlp"):
            file.seek(place + start + (4 if kind == b"jxlp" else 0))
            return file.read(_HEADER)
        if length < start:
            break
        place += length
    return b""

"""What decoders do not tell of a file, or only when they have decoded it: read from its header."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

_MOST_BOXES = 64
_MOST_PROFILE = 16 << 20
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
    for kind, start, _ in _boxes(file, 0, None):
        if kind in (b"jxlc", b"jxlp"):
            file.seek(start + (4 if kind == b"jxlp" else 0))
            return file.read(_HEADER)
    return b""


def jpeg_2000_profile(file: IO[bytes]) -> bytes:
    """The ICC profile of a JPEG 2000 file; empty where it has none. Pillow's decoder does not look for it."""
    for kind, start, end in _boxes(file, 0, None):
        if kind != b"jp2h":
            continue
        for inner, place, stop in _boxes(file, start, end):
            file.seek(place)
            if inner == b"colr" and file.read(3)[:1] in (b"\x02", b"\x03"):
                return file.read(min(stop - place - 3, _MOST_PROFILE)) if stop is not None else file.read(_MOST_PROFILE)
        break
    return b""


def png_code_points(file: IO[bytes]) -> tuple[int, int] | None:
    """(primaries, transfer) of a PNG's cICP chunk; None where it has none. Pillow does not look for it."""
    place = 8
    for _ in range(_MOST_BOXES):
        file.seek(place)
        head = file.read(12)
        if len(head) < 12 or head[4:8] in (b"IDAT", b"IEND"):
            return None
        if head[4:8] == b"cICP":
            return head[8], head[9]
        place += 12 + int.from_bytes(head[:4], "big")
    return None


def heif_code_points(file: IO[bytes]) -> tuple[int, int] | None:
    """(primaries, transfer) of an AVIF or HEIC file (box colr, nclx); None where it has none."""
    within: tuple[int, int | None] = (0, None)
    for wanted, skipped in ((b"meta", 4), (b"iprp", 0), (b"ipco", 0)):  # the first one is a full box
        for kind, start, end in _boxes(file, *within):
            if kind == wanted:
                within = (start + skipped, end)
                break
        else:
            return None
    for kind, start, _ in _boxes(file, *within):
        file.seek(start)
        if kind == b"colr" and file.read(4) == b"nclx":
            codes = file.read(4)
            return int.from_bytes(codes[:2], "big"), int.from_bytes(codes[2:], "big")
    return None


def _boxes(file: IO[bytes], place: int, end: int | None) -> Iterator[tuple[bytes, int, int | None]]:
    """(kind, start, end) of the boxes of an ISO media file from ``place`` on; an end of None is the file's."""
    for _ in range(_MOST_BOXES):
        if end is not None and place >= end:
            return
        file.seek(place)
        head = file.read(16)
        if len(head) < 8:
            return
        length, kind, start = int.from_bytes(head[:4], "big"), head[4:8], 8
        if length == 1:
            length, start = int.from_bytes(head[8:16], "big"), 16
        if length == 0:
            yield kind, place + start, end
            return
        if length < start:
            return
        yield kind, place + start, place + length
        place += length

"""Picture -> PNG, a band of rows at a time.

Masks that come as runs are compressed as such (runs.py), all other pictures by zlib: three times as fast as Pillow's
encoder at its fastest level, and no larger. Pillow tries five filters for each row, here every row is stored as its
difference to the one above, and runs are all that the compressor looks for. A band is all that is ever held, so a
picture of 100 megapixels needs no memory of its own.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

import numpy as np

from unet_runtime.core.runs import LARGE, Runs

if TYPE_CHECKING:
    import numpy.typing as npt

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _PALETTE, _RGB, _RGBA = 0, 3, 2, 6  # colour types
_COLOUR_TYPES = {1: _GREY, 3: _RGB, 4: _RGBA}
_UP = 2  # filter: minus the row above
_LEVEL, _MEMORY = 1, 9
_IDAT = 1 << 16


def write_png(
    file: BinaryIO,
    size: tuple[int, int],
    bands: Iterable[npt.NDArray[np.uint8] | Runs],
    *,
    palette: bytes = b"",
    text: dict[str, str] | None = None,
) -> None:
    """Write a PNG of 8 bits a channel.

    Args:
        file: takes the bytes.
        size: (width, height) in pixels.
        bands: uint8 (rows, width, channels) from the top down: grey, RGB, RGBA, or with ``palette`` indices. Or all
            of them runs of grey or indices.
        palette: RGB triples, at most 256, that colour one channel.
        text: keyword -> Latin-1 text, kept before the pixels.

    Raises:
        OSError: ``file`` cannot be written.
    """
    file.write(_SIGNATURE)
    compressor: _Compressor | None = None
    waiting = b""
    for band in bands:
        if compressor is None:
            channels = 1 if isinstance(band, Runs) else band.shape[2]
            _write_head(file, size, _PALETTE if palette else _COLOUR_TYPES[channels], palette, text or {})
            compressor = _compressor(band, size)
        waiting += compressor.compress(band)
        if len(waiting) >= _IDAT:
            _write_chunk(file, b"IDAT", waiting)
            waiting = b""
    _write_chunk(file, b"IDAT", waiting + (compressor.flush() if compressor else b""))
    _write_chunk(file, b"IEND", b"")


class _Compressor(Protocol):
    """Makes the content of a PNG's IDAT chunks."""

    def compress(self, band: Any) -> bytes: ...

    def flush(self) -> bytes: ...


def _compressor(band: npt.NDArray[np.uint8] | Runs, size: tuple[int, int]) -> _Compressor:
    if isinstance(band, Runs):
        from unet_runtime.io.runs import RunCompressor  # what few masks need

        return RunCompressor()
    return _Differences(size[0] * size[1])


@functools.cache
def _isal() -> Any:
    """Intel's zlib, of the extra ``fast``: a quarter of the time; None where it is not installed."""
    try:
        from isal import isal_zlib
    except ImportError:
        return None
    return isal_zlib


class _Differences:
    """zlib, over the differences between rows.

    Args:
        pixels: of the picture.
    """

    def __init__(self, pixels: int) -> None:
        isal = _isal() if pixels >= LARGE else None
        if isal is None:
            self._zlib = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, _MEMORY, zlib.Z_RLE)
        else:
            self._zlib = isal.compressobj(_LEVEL)
        self._above: npt.NDArray[np.uint8] | None = None

    def compress(self, band: npt.NDArray[np.uint8]) -> bytes:
        rows = band.reshape(len(band), -1)  # (rows, width * channels)
        above = np.zeros_like(rows[0]) if self._above is None else self._above
        self._above = rows[-1]
        return self._zlib.compress(_filtered(rows, above).data)

    def flush(self) -> bytes:
        return self._zlib.flush()


def _filtered(rows: npt.NDArray[np.uint8], above: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(rows, n) -> (rows, 1 + n): each row's filter, then its difference (modulo 256) to the row above."""
    result = np.empty((rows.shape[0], 1 + rows.shape[1]), np.uint8)
    result[:, 0] = _UP
    np.subtract(rows[0], above, out=result[0, 1:])
    np.subtract(rows[1:], rows[:-1], out=result[1:, 1:])
    return result


def _write_head(file: BinaryIO, size: tuple[int, int], colour: int, palette: bytes, text: dict[str, str]) -> None:
    _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", *size, 8, colour, 0, 0, 0))
    for keyword, value in text.items():
        _write_chunk(file, b"tEXt", keyword.encode("latin-1") + b"\0" + value.encode("latin-1"))
    if palette:
        _write_chunk(file, b"PLTE", palette)


def _write_chunk(file: BinaryIO, kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind)
    file.write(content)
    file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))

"""Class ids -> the compressed pixels of a PNG, by their runs: a mask of 12 megapixels has some ten thousand of them.

A compressor looks at every byte; NumPy finds where the ids change in a tenth of the time, and the rest is a matter of
the runs alone. What is written is a zlib stream (RFC 1950) of one block (RFC 1951): of each run the id as a literal,
then matches at distance 1. The block's codes are the same for all masks, so that nothing has to be counted before: a
match of the greatest length has one bit, ids 0 to 3 have four.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    _Integers = npt.NDArray[np.int64]

_ZLIB_HEAD = b"\x78\x01"
_MODULUS = 65521  # of Adler-32

_LONGEST = 258  # of a match
_SHORTEST = 3
_END, _FIRST_LENGTH, _LONGEST_SYMBOL = 256, 257, 285
_BITS = ((4, 4), (3, 11), (250, 12), (8, 8), (20, 7), (1, 1))
"""(how many symbols, bits of each) from literal 0 to the match of the greatest length. Chosen so that they make a whole
code: the sum of 2 ** -bits is 1."""

_LENGTH_BITS = 4
"""Bits of each entry of the table of code lengths: lengths up to 15, and no repetition."""

_CODE_LENGTHS = 19
_ABBREVIATIONS = 3  # symbols 16, 17 and 18 of the table, which come first in it

_WORD = 32


class _Codes(NamedTuple):
    """Bits of each symbol, as they are written from the lowest bit on."""

    literals: _Integers
    """(256,): of ids."""
    literal_bits: _Integers
    matches: _Integers
    """(259,): of matches by their length, with what follows: further bits of the length, and the distance."""
    match_bits: _Integers
    head: int
    """The beginning of the block."""
    head_bits: int
    end: int
    end_bits: int


class RunCompressor:
    """Compresses the rows of a picture of class ids, each behind the byte of a PNG's row that has no filter."""

    def __init__(self) -> None:
        codes = _codes()
        self._pending = codes.head
        self._pending_bits = codes.head_bits
        self._sums = (1, 0)
        self._is_new = True

    def compress(self, rows: npt.NDArray[np.uint8]) -> bytes:
        """The next bytes of the stream.

        Args:
            rows: uint8 (h, w), class ids.
        """
        ids, lengths = _runs(rows)
        self._add_to_checksum(ids, lengths)
        values, bits = _tokens(ids, lengths)
        head = _ZLIB_HEAD if self._is_new else b""
        self._is_new = False
        return head + self._packed(values, bits)

    def flush(self) -> bytes:
        """The stream's end."""
        codes = _codes()
        rest = self._pending | codes.end << self._pending_bits
        count = self._pending_bits + codes.end_bits
        checksum = self._sums[1] << 16 | self._sums[0]
        return rest.to_bytes((count + 7) // 8, "little") + checksum.to_bytes(4, "big")

    def _packed(self, values: _Integers, bits: _Integers) -> bytes:
        """Whole words of 32 bits; what is left over comes before the next ones."""
        values = np.concatenate([_words(self._pending, self._pending_bits), values])
        bits = np.concatenate([_word_bits(self._pending_bits), bits])
        ends = np.cumsum(bits)
        word, shift = np.divmod(ends - bits, _WORD)
        shifted = values << shift
        starts = np.flatnonzero(np.diff(word, prepend=-1))  # no word is without the beginning of a token
        words = np.bitwise_or.reduceat(shifted & 0xFFFFFFFF, starts)
        last = np.append(starts[1:], len(word)) - 1
        words[1:] |= shifted[last[:-1]] >> _WORD
        total = int(ends[-1])
        content: bytes = words.astype("<u4").tobytes()
        count = total // _WORD
        self._pending_bits = total % _WORD
        self._pending = int(words[count]) if count < len(words) else int(shifted[last[-1]] >> _WORD)
        return content[: 4 * count]

    def _add_to_checksum(self, ids: _Integers, lengths: _Integers) -> None:
        sums = np.cumsum(ids * lengths)
        before = (self._sums[0] + sums - ids * lengths) % _MODULUS
        second = np.sum(lengths * before + ids * (lengths * (lengths + 1) // 2))
        self._sums = ((self._sums[0] + int(sums[-1])) % _MODULUS, (self._sums[1] + int(second)) % _MODULUS)


def _runs(rows: npt.NDArray[np.uint8]) -> tuple[_Integers, _Integers]:
    """(value, length) of each run of the bytes of a PNG's rows: a zero, then a row's ids."""
    height, width = rows.shape
    row, column = np.divmod(np.flatnonzero(rows[:, 1:] != rows[:, :-1]), max(1, width - 1))
    changes = row * (width + 1) + column + 2
    begins = np.arange(height) * (width + 1)
    starts = np.sort(np.concatenate([begins, begins + 1, changes]))
    row, column = np.divmod(starts, width + 1)
    ids = np.where(column == 0, 0, rows[row, column - 1]).astype(np.int64)
    return ids, np.diff(starts, append=height * (width + 1))


def _tokens(ids: _Integers, lengths: _Integers) -> tuple[_Integers, _Integers]:
    """(value, bits) of what is written: of each run its id, matches of the greatest length, and one for the rest."""
    codes = _codes()
    whole, rest = np.divmod(lengths - 1, _LONGEST)
    is_match = rest >= _SHORTEST
    counts = 1 + whole + np.where(is_match, 1, rest)
    ends = np.cumsum(counts)
    values = np.full(int(ends[-1]), codes.matches[_LONGEST])
    bits = np.full(int(ends[-1]), codes.match_bits[_LONGEST])
    values[ends - counts], bits[ends - counts] = codes.literals[ids], codes.literal_bits[ids]
    last = ends[is_match] - 1
    values[last], bits[last] = codes.matches[rest[is_match]], codes.match_bits[rest[is_match]]
    for count in range(1, _SHORTEST):  # too short for a match: the id again
        again = ~is_match & (rest >= count)
        place = ends[again] - count
        values[place], bits[place] = codes.literals[ids[again]], codes.literal_bits[ids[again]]
    return values, bits


def _words(value: int, bits: int) -> _Integers:
    """A number of any length as tokens of at most 31 bits."""
    parts = []
    for start in range(0, bits, _WORD - 1):
        parts.append(value >> start & (1 << min(_WORD - 1, bits - start)) - 1)
    return np.array(parts, np.int64)


def _word_bits(bits: int) -> _Integers:
    return np.array([min(_WORD - 1, bits - start) for start in range(0, bits, _WORD - 1)], np.int64)


@functools.cache
def _codes() -> _Codes:
    lengths = np.repeat([bits for _, bits in _BITS], [count for count, _ in _BITS]).astype(np.int64)
    symbols = _canonical(lengths)
    matches = np.zeros(_LONGEST + 1, np.int64)
    match_bits = np.zeros(_LONGEST + 1, np.int64)
    for length, (symbol, extra, extra_bits) in _length_symbols().items():
        code_bits = int(lengths[symbol])
        matches[length] = symbols[symbol] | extra << code_bits
        match_bits[length] = code_bits + extra_bits + 1  # the only distance has one bit, which is 0
    head, head_bits = _head(lengths)
    return _Codes(
        symbols[:_END], lengths[:_END], matches, match_bits, head, head_bits, int(symbols[_END]), int(lengths[_END])
    )


def _length_symbols() -> dict[int, tuple[int, int, int]]:
    """Length of a match -> (symbol, further bits, how many these are): RFC 1951, 3.2.5."""
    found = {}
    length = _SHORTEST
    for symbol in range(_FIRST_LENGTH, _LONGEST_SYMBOL):
        extra_bits = max(0, (symbol - _FIRST_LENGTH) // 4 - 1)
        for extra in range(1 << extra_bits):
            found[length + extra] = (symbol, extra, extra_bits)
        length += 1 << extra_bits
    found[_LONGEST] = (_LONGEST_SYMBOL, 0, 0)
    return found


def _canonical(lengths: _Integers) -> _Integers:
    """The code of each symbol, its first bit the lowest: shorter ones first, then in the symbols' order."""
    codes = np.zeros(len(lengths), np.int64)
    code = previous = 0
    for symbol in np.argsort(lengths, kind="stable").tolist():
        code <<= int(lengths[symbol]) - previous
        previous = int(lengths[symbol])
        codes[symbol] = int(f"{code:0{previous}b}"[::-1], 2)
        code += 1
    return codes


def _head(lengths: _Integers) -> tuple[int, int]:
    """(bits, how many) of the beginning of the block, its last one: RFC 1951, 3.2.7."""
    head, count = 0, 0

    def put(value: int, bits: int) -> None:
        nonlocal head, count
        head |= value << count
        count += bits

    put(0b101, 3)  # the last block, of codes of its own
    put(_LONGEST_SYMBOL + 1 - _FIRST_LENGTH, 5)
    put(0, 5)  # one distance
    put(_CODE_LENGTHS - 4, 4)
    for index in range(_CODE_LENGTHS):
        put(0 if index < _ABBREVIATIONS else _LENGTH_BITS, 3)
    for length in [*lengths.tolist(), 1]:
        put(int(f"{length:0{_LENGTH_BITS}b}"[::-1], 2), _LENGTH_BITS)
    return head, count

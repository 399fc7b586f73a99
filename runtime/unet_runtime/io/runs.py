"""Runs of class ids -> the compressed pixels of a PNG.

A compressor looks at every byte; here each run is a step. What is written is a zlib stream (RFC 1950) of one block (RFC
1951): of each run the id as a literal, then matches at distance 1. The block's codes are the same for all masks, so
that nothing has to be counted before: a match of the greatest length has one bit, ids 0 to 3 have four.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from unet_runtime.core.runs import Runs

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
_NO_FILTER = 0  # of a PNG's row


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
    """Compresses the runs of a picture of class ids, each row behind the byte of a PNG's row that has no filter."""

    def __init__(self) -> None:
        codes = _codes()
        count = codes.head_bits // 8
        self._head = _ZLIB_HEAD + (codes.head & (1 << 8 * count) - 1).to_bytes(count, "little")
        self._pending = codes.head >> 8 * count
        self._pending_bits = codes.head_bits % 8
        self._sums = (1, 0)

    def compress(self, runs: Runs) -> bytes:
        """The next bytes of the stream."""
        ids, lengths = runs.ids.astype(np.int64), runs.lengths
        ends = np.cumsum(lengths)
        begins_row = ((ends - lengths) % (ends[-1] // runs.height) == 0).astype(np.int64)
        self._add_to_checksum(ids, lengths, begins_row)
        head, self._head = self._head, b""
        return head + self._packed(*_tokens(ids, lengths, begins_row))

    def flush(self) -> bytes:
        """The stream's end."""
        codes = _codes()
        rest = self._pending | codes.end << self._pending_bits
        count = self._pending_bits + codes.end_bits
        checksum = self._sums[1] << 16 | self._sums[0]
        return rest.to_bytes((count + 7) // 8, "little") + checksum.to_bytes(4, "big")

    def _packed(self, values: _Integers, starts: _Integers, total: int) -> bytes:
        """Whole words of 32 bits; what is left over comes before the next ones.

        Args:
            values: (n,) of at most 32 bits.
            starts: (n,) the bit at which each begins; where there is none between them, bits are 0.
            total: bits of all of them.
        """
        starts = starts + self._pending_bits
        total += self._pending_bits
        word = starts // _WORD
        shifted = values << starts % _WORD
        first = np.flatnonzero(np.diff(word, prepend=-1))
        last = np.append(first[1:], len(word)) - 1  # of those that begin in a word: it alone may reach into the next
        words = np.zeros(total // _WORD + 2, np.int64)
        words[0] = self._pending
        words[word[first]] |= np.bitwise_or.reduceat(shifted & 0xFFFFFFFF, first)
        words[word[last] + 1] |= shifted[last] >> _WORD
        count = total // _WORD
        self._pending_bits = total % _WORD
        self._pending = int(words[count])
        content: bytes = words[:count].astype("<u4").tobytes()
        return content

    def _add_to_checksum(self, ids: _Integers, lengths: _Integers, begins_row: _Integers) -> None:
        sums = np.cumsum(ids * lengths)
        before = (self._sums[0] + sums - ids * lengths) % _MODULUS
        second = np.sum((lengths + begins_row) * before + ids * (lengths * (lengths + 1) // 2))
        self._sums = ((self._sums[0] + int(sums[-1])) % _MODULUS, (self._sums[1] + int(second)) % _MODULUS)


def _tokens(ids: _Integers, lengths: _Integers, begins_row: _Integers) -> tuple[_Integers, _Integers, int]:
    """(values, bits at which they begin, bits of all): of each run what comes before its matches of the greatest
    length, and what comes behind them. These matches are bits of 0."""
    codes = _codes()
    whole, rest = np.divmod(lengths - 1, _LONGEST)
    literal, literal_bits = codes.literals[ids], codes.literal_bits[ids]
    filter_bits = begins_row * codes.literal_bits[_NO_FILTER]
    heads = codes.literals[_NO_FILTER] * begins_row | literal << filter_bits
    # Too short for a match: the id again, once or twice.
    again = np.where(rest == _SHORTEST - 1, literal | literal << literal_bits, literal * (rest > 0))
    is_match = rest >= _SHORTEST
    tails = np.where(is_match, codes.matches[rest], again)
    tail_bits = np.where(is_match, codes.match_bits[rest], rest * literal_bits)
    before = filter_bits + literal_bits + whole * codes.match_bits[_LONGEST]
    ends = np.cumsum(before + tail_bits)
    starts = ends - before - tail_bits
    values = np.stack([heads, tails], axis=1).reshape(-1)
    return values, np.stack([starts, starts + before], axis=1).reshape(-1), int(ends[-1])


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

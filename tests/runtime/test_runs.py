"""Masks compressed by their runs are what zlib and every reader of PNG expect."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unet_runtime.core.runs import areas_of, mask_of, runs_of
from unet_runtime.io.png import write_png
from unet_runtime.io.runs import _BITS, RunCompressor


def compressed(mask: np.ndarray, rows: int) -> bytes:
    compressor = RunCompressor()
    content = b""
    for top in range(0, len(mask), rows):
        content += compressor.compress(runs_of(mask[top : top + rows]))
    return content + compressor.flush()


def bytes_of(mask: np.ndarray) -> bytes:
    return np.pad(mask, ((0, 0), (1, 0))).tobytes()


def test_the_code_is_whole() -> None:
    assert sum(count * 2.0**-bits for count, bits in _BITS) == 1
    assert sum(count for count, _ in _BITS) == 286


@given(st.randoms(use_true_random=False), st.integers(1, 40), st.integers(1, 900), st.integers(1, 300))
@settings(max_examples=100, deadline=None)
def test_any_mask(random: object, height: int, width: int, longest: int) -> None:
    generator = np.random.default_rng(random.getrandbits(32))  # type: ignore[attr-defined]
    ids = generator.integers(0, generator.integers(1, 257), (height, width)).astype(np.uint8)
    mask = np.repeat(ids, generator.integers(1, longest + 1), axis=1)[:, :width]
    rows = int(generator.integers(1, height + 1))
    assert zlib.decompress(compressed(mask, rows)) == bytes_of(mask)


@pytest.mark.parametrize("length", range(1, 600))
def test_runs_of_every_length(length: int) -> None:
    mask = np.zeros((1, length + 2), np.uint8)
    mask[0, 1:-1] = 255
    assert zlib.decompress(compressed(mask, 1)) == bytes_of(mask)


def test_a_large_mask() -> None:
    generator = np.random.default_rng(3)
    small = Image.fromarray(generator.integers(0, 3, (20, 30), np.uint8))
    mask = np.asarray(small.resize((1500, 1000)))
    noise = generator.integers(0, 256, (1000, 1500), np.uint8)
    for ids, palette in ((mask, b""), (mask, bytes(range(9))), (noise, b"")):
        file = io.BytesIO()
        parts = list(map(runs_of, np.array_split(ids, 7)))
        write_png(file, (1500, 1000), parts, palette=palette)
        assert np.array_equal(mask_of(parts, (1500, 1000)), ids)
        assert areas_of(parts, 256) == np.bincount(ids.ravel(), minlength=256).tolist()
        with Image.open(file) as image:
            assert image.mode == ("P" if palette else "L")
            assert np.array_equal(np.asarray(image), ids)

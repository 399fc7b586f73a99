"""Our PNG encoder against Pillow's decoder."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unet_runtime.io import png
from unet_runtime.io.png import write_png

GENERATOR = np.random.default_rng(0)


def decoded(pixels: np.ndarray, rows: int, **options: object) -> Image.Image:
    """Written in bands of ``rows``, read back and verified."""
    file = io.BytesIO()
    bands = (pixels[top : top + rows] for top in range(0, len(pixels), rows))
    write_png(file, (pixels.shape[1], pixels.shape[0]), bands, **options)  # type: ignore[arg-type]
    Image.open(io.BytesIO(file.getvalue())).verify()  # the checksums of all chunks
    image = Image.open(io.BytesIO(file.getvalue()))
    image.load()
    return image


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("size", [(1, 1), (1, 37), (53, 1), (37, 53), (300, 200)])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_pixels_come_back(channels: int, mode: str, size: tuple[int, int], rows: int) -> None:
    pixels = GENERATOR.integers(0, 256, (size[1], size[0], channels), np.uint8)
    pixels[: size[1] // 2] = 77  # runs, too
    image = decoded(pixels, rows)
    assert image.mode == mode
    assert np.array_equal(np.asarray(image), pixels)


def test_a_palette_keeps_the_ids() -> None:
    ids = GENERATOR.integers(0, 3, (40, 60, 1), np.uint8)
    image = decoded(ids, 9, palette=bytes(range(9)), text={"unet-edge": "stamp"})
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), ids[..., 0])
    assert np.array_equal(np.asarray(image.convert("RGB"))[ids[..., 0] == 2], [[6, 7, 8]] * int((ids == 2).sum()))
    assert image.info["unet-edge"] == "stamp"


def test_a_photo_takes_no_more_space_than_from_pillow(sample_photo: Path) -> None:
    photo = Image.open(sample_photo)
    ours, pillows = io.BytesIO(), io.BytesIO()
    write_png(ours, photo.size, [np.asarray(photo)])
    photo.save(pillows, "PNG", compress_level=1)
    assert ours.tell() < 1.1 * pillows.tell()


@pytest.mark.parametrize("has_isal", [True, False])
def test_large_photos_with_and_without_the_fast_compressor(
    has_isal: bool, sample_photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_isal:
        pytest.importorskip("isal")
    else:
        monkeypatch.setitem(sys.modules, "isal", None)
    png._isal.cache_clear()
    try:
        with Image.open(sample_photo) as photo:
            pixels = np.asarray(photo.resize((1300, 900)))
        assert np.array_equal(np.asarray(decoded(pixels, 100)), pixels)
        assert (png._isal() is not None) == has_isal
    finally:
        png._isal.cache_clear()

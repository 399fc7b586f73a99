"""Whatever the mode and the size of a photo: the same picture in 8-bit RGB, and results of its size."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.colours import colour_spec, write_colour_model
from unet_runtime import Segmenter
from unet_runtime.core.photo import open_photo, upright_rgb

MODES = (
    "1",
    "L",
    "LA",
    "La",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBa",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I;16",
    "I;16B",
    "I;16L",
    "I",
    "F",
)
GREYS = ("1", "L", "LA", "La", "I;16", "I;16B", "I;16L", "I", "F")
FILES = [("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")] + [
    ("JPEG", "L"),
    ("JPEG", "RGB"),
    ("JPEG", "CMYK"),
    ("WEBP", "RGB"),
    ("WEBP", "RGBA"),
    ("BMP", "1"),
    ("BMP", "L"),
    ("BMP", "P"),
    ("BMP", "RGB"),
    ("BMP", "RGBA"),
    ("GIF", "L"),
    ("GIF", "P"),
    ("GIF", "RGB"),
    ("TIFF", "1"),
    ("TIFF", "L"),
    ("TIFF", "P"),
    ("TIFF", "RGB"),
    ("TIFF", "RGBA"),
    ("TIFF", "CMYK"),
    ("TIFF", "I;16"),
    ("TIFF", "I"),
    ("TIFF", "F"),
    ("TIFF", "LAB"),
    ("PPM", "RGB"),
    ("TGA", "RGBA"),
    ("JPEG2000", "RGB"),
]

sides = st.one_of(st.integers(1, 70), st.sampled_from([1, 2, 257, 1000, 3000]))


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    """(width, height), down to 1x1 and up to strips; a long side goes with a short one."""
    first = draw(sides)
    second = draw(st.integers(1, 3)) if first > 300 else draw(sides.filter(lambda side: side <= 300))
    return draw(st.sampled_from([(first, second), (second, first)]))


def picture(mode: str, size: tuple[int, int], seed: int) -> Image.Image:
    """Noise, in ``mode``."""
    rng = np.random.default_rng(seed)
    shape = (size[1], size[0])
    if mode.startswith("I;16"):
        values = rng.integers(0, 65536, shape, np.uint16)
        stored = values.astype(">u2" if mode.endswith("B") else "<u2")
        return Image.frombytes(mode, size, stored.tobytes())
    if mode == "I":
        return Image.fromarray(rng.integers(0, 65536, shape).astype(np.int32))
    if mode == "F":
        return Image.fromarray(rng.uniform(0, 255, shape).astype(np.float32))
    if mode == "1":
        return Image.fromarray(rng.integers(0, 256, shape, np.uint8)).convert("1")
    if mode in ("P", "PA"):
        flat = Image.fromarray(rng.integers(0, 256, shape, np.uint8)).convert("P")
        flat.putpalette(rng.integers(0, 256, 768, np.uint8).tobytes())
        return flat.convert("PA") if mode == "PA" else flat
    bands = len(Image.new(mode, (1, 1)).getbands())
    return Image.frombytes(mode, size, rng.integers(0, 256, (*shape, bands), np.uint8).tobytes())


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter(
        write_colour_model(tmp_path_factory.mktemp("model") / "box.onnx", colour_spec(16, fit="letterbox"))
    )


@settings(max_examples=250, deadline=None)
@given(mode=st.sampled_from(MODES), size=sizes(), seed=st.integers(0, 3))
def test_any_mode_and_size(mode: str, size: tuple[int, int], seed: int, segmenter: Segmenter) -> None:
    image = picture(mode, size, seed)
    before = image.tobytes()
    result = segmenter(image)
    assert (result.photo.mode, result.photo.size) == ("RGB", size)
    assert (image.mode, image.size, image.tobytes()) == (mode, size, before)  # the caller's is as it was
    assert (result.mask.shape, result.mask.dtype) == (size[::-1], np.uint8)
    assert result.mask.max() < 3
    assert result.cutout().size == result.overlay().size == size
    if mode in GREYS:
        pixels = np.asarray(result.photo).astype(int)
        assert np.abs(pixels - pixels[..., :1]).max() <= 1  # grey stays grey


@settings(max_examples=120, deadline=None)
@given(mode=st.sampled_from(["L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "I;16", "I;16B", "I"]), size=sizes())
def test_plain_pixels_are_kept(mode: str, size: tuple[int, int]) -> None:
    """What a mode means, computed from its own numbers."""
    image = picture(mode, size, 1)
    pixels = np.asarray(upright_rgb(image)).astype(int)
    own = np.asarray(image).astype(int)
    if mode == "P":
        expected = np.array(image.getpalette()).reshape(-1, 3)[own]
    elif mode in ("L", "I;16", "I;16B", "I"):
        expected = (own if mode == "L" else own >> 8)[..., np.newaxis].repeat(3, -1)
    elif mode in ("LA", "RGBA"):  # on white paper
        opaque = own[..., -1:] / 255
        expected = np.broadcast_to(own[..., :-1] * opaque + 255 * (1 - opaque), pixels.shape)
    elif mode == "CMYK":
        expected = (255 - own[..., :3]) * (255 - own[..., 3:]) / 255
    else:
        expected = own[..., :3]
    assert np.abs(pixels - expected).max() <= 1


@pytest.mark.parametrize(("format_", "mode"), FILES)
def test_any_file(format_: str, mode: str) -> None:
    """Decoded as Pillow decodes it, then as the image in memory."""
    for size in ((37, 23), (1, 1), (300, 2), (1, 200)):
        file = io.BytesIO()
        picture(mode, size, 2).save(file, format_)
        opened = open_photo(file)
        file.seek(0)
        expected = upright_rgb(Image.open(file))
        assert (opened.mode, opened.size) == ("RGB", expected.size)
        assert opened.tobytes() == expected.tobytes()
        assert opened.size == size


def test_a_file_of_an_unusual_suffix_and_a_stream_without_one(tmp_path: Path) -> None:
    file = io.BytesIO()
    picture("RGB", (20, 10), 0).save(file, "TIFF")
    (tmp_path / "photo.jpg").write_bytes(file.getvalue())
    expected = open_photo(tmp_path / "photo.jpg").tobytes()

    class Pipe:
        """What standard input is: it cannot go back."""

        def __init__(self) -> None:
            self.read = io.BytesIO(file.getvalue()).read

    for source in (file, Pipe()):
        assert open_photo(source).tobytes() == expected

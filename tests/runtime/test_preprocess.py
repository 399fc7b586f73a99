"""Every kind of photo becomes the same upright 8-bit RGB picture, or a clear error."""

from __future__ import annotations

import io
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unet_runtime import ImageError
from unet_runtime.core.geometry import model_input, photo_box
from unet_runtime.core.photo import open_photo, upright_rgb
from unet_runtime.core.spec import InputSpec

ORIENTATION_TAG = 0x0112

# EXIF orientation -> how a camera stores an upright picture under it (Pillow's transpose operations).
STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation(orientation: int, format_: str, stripes: np.ndarray) -> None:
    upright = Image.fromarray(stripes)
    operation = STORED_AS[orientation]
    stored = upright if operation is None else upright.transpose(operation)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    file = io.BytesIO()
    stored.save(file, format_, exif=exif, **({"quality": 95} if format_ in ("JPEG", "WEBP") else {}))
    file.seek(0)
    photo = open_photo(file)
    assert photo.size == upright.size
    difference = np.abs(np.asarray(photo, np.int16) - stripes)
    assert np.median(difference) <= 2  # JPEG's and WebP's own loss, not a turned picture


def modes(picture: Image.Image) -> dict[str, Image.Image]:
    grey = np.asarray(picture.convert("L"))
    alpha = picture.copy()
    alpha.putalpha(255)
    return {
        "RGB": picture,
        "RGBA": alpha,
        "P": picture.quantize(64),
        "L": picture.convert("L"),
        "LA": picture.convert("LA"),
        "1": picture.convert("1"),
        "CMYK": picture.convert("CMYK"),
        "YCbCr": picture.convert("YCbCr"),
        "HSV": picture.convert("HSV"),
        "LAB": Image.merge("LAB", picture.convert("YCbCr").split()),
        "I;16": Image.fromarray(grey.astype(np.uint16) * 257),
        "I": Image.fromarray(grey.astype(np.int32) * 257),
        "F": Image.fromarray(grey.astype(np.float32)),
    }


@pytest.mark.parametrize("mode", [*modes(Image.new("RGB", (4, 4)))])
def test_modes_look_the_same(mode: str, sample_photo: Path) -> None:
    original = Image.open(sample_photo).convert("RGB")
    photo = upright_rgb(modes(original)[mode])
    assert (photo.mode, photo.size) == ("RGB", original.size)
    if mode == "LAB":
        return  # a made-up colour space: it opens, what it shows has no truth
    expected = (
        original if mode in ("RGB", "RGBA", "P", "CMYK", "YCbCr", "HSV") else original.convert("L").convert("RGB")
    )
    difference = np.abs(np.asarray(photo, np.int16) - np.asarray(expected, np.int16))
    assert difference.mean() < (130 if mode == "1" else 8)


def test_16_bit_png_file(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (16, 1))
    Image.fromarray(ramp).save(tmp_path / "grey16.png")
    photo = np.asarray(open_photo(tmp_path / "grey16.png"))
    assert np.abs(photo[0, :, 0].astype(int) - np.arange(256)).max() <= 1


def test_floats_of_0_to_1() -> None:
    photo = upright_rgb(Image.fromarray(np.array([[0, 0.5, 1, np.nan]], np.float32)))
    assert np.asarray(photo)[0, :, 0].tolist() == [0, 128, 255, 0]


def test_transparency_becomes_white() -> None:
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 0))
    image.putpixel((1, 0), (200, 0, 0, 255))
    assert np.asarray(upright_rgb(image))[0].tolist() == [[255, 255, 255], [200, 0, 0]]


def test_transparent_palette_and_gif(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.putpixel((1, 0), 1)
    for name in ("p.png", "p.gif"):
        image.save(tmp_path / name, transparency=0)
        assert np.asarray(open_photo(tmp_path / name))[0].tolist() == [[255, 255, 255], [200, 0, 0]]


@pytest.mark.parametrize("keep", [0, 1, 10, 100, 0.3, 0.9, 0.99])
def test_truncated_jpeg(keep: float, sample_photo: Path, tmp_path: Path) -> None:
    content = sample_photo.read_bytes()
    length = int(keep * len(content)) if isinstance(keep, float) else keep
    path = tmp_path / "cut.jpg"
    path.write_bytes(content[:length])
    with pytest.raises(ImageError, match=r"cut\.jpg"):
        open_photo(path)


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "PPM"])
def test_damaged_bytes(format_: str, sample_photo: Path) -> None:
    """Flipped, overwritten and cut bytes, headers above all: a picture or an ImageError, nothing else."""
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    file = io.BytesIO()
    Image.open(sample_photo).resize((120, 80)).save(
        file, format_, **({"exif": exif} if format_ in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {})
    )
    rng = random.Random(format_)
    refused = 0
    for _ in range(150):
        content = bytearray(file.getvalue())
        for _ in range(rng.choice([1, 2, 5, 20])):
            position = rng.randrange(min(len(content), rng.choice([64, 600, len(content)])))
            content[position] = rng.choice([0, 255, content[position] ^ (1 << rng.randrange(8))])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's notes on odd EXIF
            try:
                assert open_photo(io.BytesIO(content)).mode == "RGB"
            except ImageError:
                refused += 1
    assert 0 < refused < 150


def test_no_photo(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not a photo")
    (tmp_path / "folder.jpg").mkdir()
    for name, message in (
        ("text.jpg", "not an image"),
        ("absent.jpg", "no such file"),
        ("folder.jpg", "Is a directory"),
    ):
        with pytest.raises(ImageError, match=message):
            open_photo(tmp_path / name)


def test_decompression_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (400, 400)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ImageError, match="too many pixels"):
        open_photo(tmp_path / "bomb.png")


def test_stretch_is_pillows_antialiased_bilinear(sample_photo: Path) -> None:
    photo = open_photo(sample_photo)
    expected = photo.resize((64, 48), Image.Resampling.BILINEAR)
    result = model_input(photo, InputSpec(48, 64))
    assert (result.shape, result.dtype) == ((1, 48, 64, 3), np.uint8)
    assert np.array_equal(result[0], np.asarray(expected))


def test_a_margin_is_a_mirror_of_the_photo() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    images = model_input(Image.fromarray(pixels), InputSpec(32, 42, margin=6))[0]
    assert np.array_equal(images, np.pad(pixels, ((6, 6), (6, 6), (0, 0)), "reflect"))


def test_a_margin_wider_than_the_photo_is_mirrored_again_and_again() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 3)).astype(np.uint8)
    images = model_input(Image.fromarray(pixels), InputSpec(23, 25, margin=10))[0]
    assert np.array_equal(images, np.pad(pixels, ((10, 10), (10, 10), (0, 0)), "reflect"))


def test_inside_a_margin_a_letterboxed_photo_is_mirrored_with_the_black_around_it() -> None:
    images = model_input(Image.new("RGB", (64, 32), "white"), InputSpec(32, 32, "letterbox", margin=4))[0, :, 0, 0]
    assert np.flatnonzero(images).tolist() == [*range(10, 22)]  # the middle 12 of the 24 rows inside the margin


def test_letterbox_keeps_the_aspect_ratio() -> None:
    spec = InputSpec(100, 100, fit="letterbox")
    batch = model_input(Image.new("RGB", (200, 50), (9, 9, 9)), spec)
    assert photo_box((200, 50), spec) == (0, 37, 100, 25)
    assert (batch[0, 37:62] == 9).all()
    assert batch[0, :37].sum() == batch[0, 62:].sum() == 0


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 3000),
    height=st.integers(1, 3000),
    fit=st.sampled_from(["stretch", "letterbox"]),
)
def test_any_size_fits(width: int, height: int, fit: str) -> None:
    spec = InputSpec(32, 48, fit=fit)
    box = photo_box((width, height), spec)
    assert box.width >= 1
    assert box.height >= 1
    assert 0 <= box.left <= spec.width - box.width
    assert 0 <= box.top <= spec.height - box.height
    assert model_input(Image.new("RGB", (width, height)), spec).shape == (1, 32, 48, 3)

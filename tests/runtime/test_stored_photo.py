"""A JPEG that stays in its file: as much is decoded as is needed, and the results are those of the whole photo."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.runtime.test_preprocess import ORIENTATION_TAG, STORED_AS
from unet_runtime import ImageError, Segmenter
from unet_runtime.core import photo as photos
from unet_runtime.core.colour import adobe_rgb
from unet_runtime.core.photo import StoredPhoto, open_photo, stored_photo
from unet_runtime.engines.base import FLOAT_ONNX
from unet_runtime.io.sinks import encode

SMALL = (64, 48)
SIZE = (1803, 1204)  # no multiples of eight: the last column and row of a reduced photo reach past it


@pytest.fixture(scope="module")
def upright(sample_photo: Path) -> Image.Image:
    """Large, and different in each corner."""
    with Image.open(sample_photo) as image:
        return image.convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)


def jpeg(image: Image.Image, **settings: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, settings.pop("format", "JPEG"), **{"quality": 92, **settings})
    return file.getvalue()


def difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, np.int16) - np.asarray(other, np.int16)).mean())


def checked(content: bytes, size: tuple[int, int] = SMALL) -> StoredPhoto:
    """The photo, after its reduced form has been compared with the whole one."""
    stored = stored_photo(io.BytesIO(content))
    assert isinstance(stored, StoredPhoto)
    whole = open_photo(io.BytesIO(content))
    assert stored.size == whole.size
    reduced = stored.resize(size, Image.Resampling.BILINEAR)
    assert (reduced.mode, reduced.size) == ("RGB", size)
    assert difference(reduced, whole.resize(size, Image.Resampling.BILINEAR)) < 0.5
    assert np.array_equal(np.asarray(stored.whole()), np.asarray(whole))
    return stored


@pytest.mark.parametrize("orientation", STORED_AS)
def test_upright(orientation: int, upright: Image.Image) -> None:
    operation = STORED_AS[orientation]
    stored = upright if operation is None else upright.transpose(operation)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    assert checked(jpeg(stored, exif=exif)).size == SIZE


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_modes(mode: str, upright: Image.Image) -> None:
    checked(jpeg(upright.convert(mode)))


@pytest.mark.parametrize(
    "settings", [{"progressive": True}, {"subsampling": 0}, {"quality": 30}, {"restart_marker_rows": 1}]
)
def test_kinds_of_jpeg(settings: dict[str, Any], upright: Image.Image) -> None:
    checked(jpeg(upright, **settings))


def test_several_pictures_in_a_file(upright: Image.Image) -> None:
    """As phones write them, with a gain map behind the photo."""
    checked(jpeg(upright, format="MPO", save_all=True, append_images=[upright.resize((300, 200))]))


@pytest.mark.parametrize("profile", ["adobe", "srgb", "damaged"])
def test_colour_profiles(profile: str, upright: Image.Image) -> None:
    known = {
        "adobe": adobe_rgb(),
        "srgb": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        "damaged": b"profile",
    }
    checked(jpeg(upright, icc_profile=known[profile]))


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (400, 3), (450, 300), (451, 301), (2000, 10)])
def test_sizes(size: tuple[int, int], upright: Image.Image) -> None:
    checked(jpeg(upright), size)


def test_few_pixels_are_decoded(upright: Image.Image, monkeypatch: pytest.MonkeyPatch, colour_model: Path) -> None:
    """A mask of a large photo needs no whole photo; what shows the photo does, once."""
    decoded: list[Image.Image] = []
    decode = photos._decoded

    def counted(*arguments: Any) -> Image.Image:
        decoded.append(decode(*arguments))
        return decoded[-1]

    monkeypatch.setattr(photos, "_decoded", counted)
    result = Segmenter(colour_model)(jpeg(upright))
    for kind in ("mask", "palette", "json", "probabilities"):
        encode(result, kind)
    assert (result.mask.shape, result.size, len(decoded)) == (SIZE[::-1], SIZE, 0)
    encode(result, "overlay")
    encode(result, "cutout")
    assert len(decoded) == 1
    assert result.photo.size == SIZE


def test_same_masks(sample_photo: Path) -> None:
    """The network sees nearly the same, so nearly every pixel gets the same class: how many, results.md says."""
    with Image.open(sample_photo) as image:
        large = jpeg(image.convert("RGB").resize((4096, 2725), Image.Resampling.LANCZOS))
    segmenter = Segmenter(FLOAT_ONNX)
    whole = segmenter(open_photo(io.BytesIO(large)))
    assert np.mean(segmenter(large).mask == whole.mask) >= 0.998


def test_a_small_photo_is_decoded_as_it_is(sample_photo: Path) -> None:
    stored = stored_photo(sample_photo)
    expected = open_photo(sample_photo).resize(SMALL, Image.Resampling.BILINEAR)
    assert np.array_equal(np.asarray(stored.resize(SMALL, Image.Resampling.BILINEAR)), np.asarray(expected))


def test_damage_behind_the_header(upright: Image.Image, tmp_path: Path, colour_model: Path) -> None:
    path = tmp_path / "cut off.jpg"
    path.write_bytes(jpeg(upright)[:40_000])
    with pytest.raises(ImageError, match=r"cut off\.jpg: damaged or truncated image"):
        Segmenter(colour_model)(path)


def test_the_limit_of_pixels(upright: Image.Image) -> None:
    with pytest.raises(ImageError, match="too many pixels"):
        stored_photo(io.BytesIO(jpeg(upright)), max_pixels=1_000_000)


@pytest.mark.parametrize("format_", ["PNG", "WEBP", "TIFF"])
def test_other_formats_are_decoded_at_once(format_: str, sample_photo: Path) -> None:
    file = io.BytesIO()
    Image.open(sample_photo).save(file, format_)
    assert isinstance(stored_photo(file), Image.Image)


def test_the_file_may_go(upright: Image.Image, tmp_path: Path, colour_model: Path) -> None:
    """A result does not read its photo again: it may have been moved or replaced."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(jpeg(upright))
    result = Segmenter(colour_model)(path)
    path.unlink()
    assert result.overlay().size == SIZE

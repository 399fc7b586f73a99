"""Photos of 100 megapixels in bounded memory, and strips one pixel thin.

Peaks are read in child processes (VmHWM, the most that was ever resident): a bound here is what the photo and the
results take by themselves, and a working memory that does not grow with the photo.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.colours import colour_spec, write_colour_model
from tests.helpers.memory import MB_A_MEGAPIXEL, WORKING, needs_proc, run_child
from unet_runtime import ImageError, Segmenter
from unet_runtime.core.photo import open_photo

SIDE = 10_000
MEGAPIXELS = SIDE * SIDE / 1e6


@pytest.fixture(scope="module")
def large_photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A JPEG of 100 megapixels, stripes of the three colours; below 2 MB on disk."""
    row = np.zeros((1, SIDE, 3), np.uint8)
    for index, part in enumerate(np.array_split(np.arange(SIDE), 3)):
        row[:, part, index] = 255
    path = tmp_path_factory.mktemp("photos") / "large.jpg"
    Image.fromarray(row).resize((SIDE, SIDE)).save(path, quality=50)
    return path


@needs_proc
def test_100_megapixels(large_photo: Path, colour_model: Path) -> None:
    """Photo (400 MB), mask and opacity (100 MB each), and no warning: of probabilities, 1.2 GB, a band at a time."""
    measured = run_child(
        """
result = segmenter(sys.argv[2])
opened = megabytes("VmHWM") - base
ids = np.bincount(result.mask[::100].ravel(), minlength=3)
middle = result.opacity[5000, [1000, 5000]].tolist()
rows = sum(len(band) for _, band in result.probability_bands())
print(json.dumps({"opened": opened, "peak": megabytes("VmHWM") - base, "ids": ids.tolist(), "middle": middle,
                  "rows": rows}))
""",
        colour_model,
        large_photo,
    )
    assert np.abs(np.array(measured["ids"]) / (SIDE * SIDE / 100) - 1 / 3).max() < 1 / 32  # a pixel of the grid
    assert measured["middle"] == [255, 0]
    assert measured["rows"] == SIDE
    assert measured["opened"] < MEGAPIXELS * MB_A_MEGAPIXEL + WORKING
    assert measured["peak"] < MEGAPIXELS * (MB_A_MEGAPIXEL + 2) + WORKING


@needs_proc
def test_tiles_stream_into_mask_and_opacity(tmp_path: Path) -> None:
    """9 megapixels in 961 tiles: photo (36 MB), mask and opacity (9 MB each), rows of tiles (3,000 x 128)."""
    model = write_colour_model(tmp_path / "tiles.onnx", colour_spec(128))
    measured = run_child(
        """
photo = Image.new("RGB", (3000, 3000), (0, 255, 0))
photo.paste((255, 0, 0), (100, 200, 300, 2400))
result = segmenter.tiled(photo)
expected = np.ones((3000, 3000), np.uint8)
expected[200:2400, 100:300] = 0
right = bool(np.array_equal(result.mask, expected) and np.array_equal(result.opacity >= 128, expected == 0))
del expected
print(json.dumps({"peak": megabytes("VmHWM") - base, "tiles": result.tiles, "right": right}))
""",
        model,
    )
    assert measured["right"]
    assert measured["tiles"] == 31 * 31
    row_of_tiles = 3000 * 128 * 3 * 4 / 1e6  # float32 of three classes
    comparison = 9 * 4  # this test's own arrays
    assert measured["peak"] < 9 * (MB_A_MEGAPIXEL + 2) + 4 * row_of_tiles + WORKING + comparison


@needs_proc
def test_transparent_photos_need_no_third_copy(tmp_path: Path, colour_model: Path) -> None:
    """RGBA becomes RGB in bands: two pictures of 36 megapixels, not three."""
    Image.new("RGBA", (6000, 6000), (255, 0, 0, 255)).save(tmp_path / "photo.png", compress_level=1)
    measured = run_child(
        """
from unet_runtime.core.photo import open_photo
photo = open_photo(sys.argv[2])
print(json.dumps({"peak": megabytes("VmHWM") - base, "red": photo.getpixel((5999, 5999)) == (255, 0, 0)}))
""",
        colour_model,
        tmp_path / "photo.png",
    )
    assert measured["red"]
    assert measured["peak"] < 36 * 2 * MB_A_MEGAPIXEL + WORKING


def test_the_default_limit_of_pixels(tmp_path: Path) -> None:
    """Against decompression bombs; a message that says what to do."""
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20_000, 10_000)).save(bomb)  # 200 megapixels in 25 KB
    with pytest.raises(ImageError, match=r"bomb\.png: too many pixels \(20000x10000, at most 178,956,970 .*max_pixels"):
        open_photo(bomb)


def test_the_limit_of_pixels_is_settable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call has its own, whatever Pillow's is, which stays as it was: other threads open pictures too."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for format_ in ("png", "jpg", "bmp", "ppm"):
        path = tmp_path / f"photo.{format_}"
        Image.new("RGB", (400, 300)).save(path)
        with pytest.raises(ImageError, match=r"400x300, at most 119,999 are allowed"):
            open_photo(path, max_pixels=119_999)
        with pytest.raises(ImageError, match=r"400x300, at most 2,000 are allowed"):
            open_photo(path)
        for limit in (120_000, None):
            assert open_photo(path, max_pixels=limit).size == (400, 300)
    assert Image.MAX_IMAGE_PIXELS == 1000


STRIPS = [(1, 1), (1, 30_000), (30_000, 1), (2, 20_000), (20_000, 3)]


@pytest.mark.parametrize("size", STRIPS)
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_strips(size: tuple[int, int], fit: str, tmp_path: Path) -> None:
    """Half red, half green along the strip."""
    picture = np.zeros((size[1], size[0], 3), np.uint8)
    length = max(size)
    along = picture.reshape(length, -1, 3) if size[1] >= size[0] else picture.transpose(1, 0, 2)
    along[: (length + 1) // 2, :, 0] = 255
    along[(length + 1) // 2 :, :, 1] = 255
    segmenter = Segmenter(write_colour_model(tmp_path / "model.onnx", colour_spec(32, fit=fit)))
    for result in (segmenter(picture), segmenter.tiled(picture)):
        assert result.mask.shape == result.opacity.shape == size[::-1]
        flat = result.mask.reshape(length, -1) if size[1] >= size[0] else result.mask.T
        assert (flat[: length * 2 // 5 + 1] == 0).all()
        assert (flat[length * 3 // 5 + 1 :] == 1).all()
        assert result.cutout().size == size


def test_the_bundled_model_takes_any_strip() -> None:
    segmenter = Segmenter()
    for size in STRIPS:
        assert segmenter(Image.new("RGB", size, (90, 60, 30))).mask.shape == size[::-1]

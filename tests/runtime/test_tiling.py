"""Tiles fit together: the right result is known from one network as large as the photo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.colours import colour_spec, write_colour_model
from tests.helpers.convolution import KERNELS, SIDE, convolution_spec, write_convolution
from unet_runtime import ModelSpec, Segmenter
from unet_runtime.core import tiling
from unet_runtime.core.spec import OutputSpec


def whole_picture(photo: np.ndarray) -> np.ndarray:
    """The same network over the whole photo at once, mirrored past its edges: float64 (H, W, 3)."""
    # NumPy's "reflect" has nothing to mirror in a line of one pixel.
    modes = ["edge" if length == 1 else "reflect" for length in photo.shape[:2]]
    padded = np.pad(photo / 255, ((1, 1), (0, 0), (0, 0)), modes[0])
    padded = np.pad(padded, ((0, 0), (1, 1), (0, 0)), modes[1])
    height, width = photo.shape[:2]
    logits = sum(
        padded[row : row + height, column : column + width] @ KERNELS[:, :, row, column].T
        for row in range(3)
        for column in range(3)
    )
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


def all_rows(result: tiling.TiledSegmentation) -> np.ndarray:
    """Bands in one piece, float32 (H, W, C), once it is sure that they follow each other."""
    bands = list(result.probability_bands())
    assert [top for top, _ in bands] == np.cumsum([0, *(len(band) for _, band in bands[:-1])]).tolist()
    return np.concatenate([band for _, band in bands])


SIZES = [(150, 203), (31, 33), (14, 14), (16, 16), (15, 40), (5, 3), (1, 1), (1, 90), (300, 2)]


@pytest.fixture(scope="module")
def unpadded(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter(write_convolution(tmp_path_factory.mktemp("model") / "unpadded.onnx", convolution_spec(1)))


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter(write_convolution(tmp_path_factory.mktemp("model") / "padded.onnx", convolution_spec(0)))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.75])
def test_unpadded_convolutions_in_tiles_are_the_whole_picture_s(
    size: tuple[int, int], overlap: float, unpadded: Segmenter
) -> None:
    """Up to the photo's edge: the margin is mirrored photo."""
    photo = noise(*size)
    result = unpadded.tiled(photo, overlap=overlap)
    expected = whole_picture(photo)
    np.testing.assert_allclose(all_rows(result), expected, atol=2e-6)
    top_two = np.sort(expected, axis=-1)[..., -2:]
    clear = top_two[..., 1] - top_two[..., 0] > 1e-5
    assert np.array_equal(result.mask[clear], expected.argmax(-1)[clear])


@pytest.mark.parametrize(("side", "overlap"), [(160, 0.25), (164, 0.25), (388, 0.1), (64, 0.5), (20, 0), (7, 0.3)])
@pytest.mark.parametrize("length", [165, 400, 1999])
def test_tiles_begin_where_pooling_does_and_are_no_more_than_needed(side: int, overlap: float, length: int) -> None:
    starts = [tile.start for tile in tiling.axis_tiles(length, side, overlap)]
    steps = {*np.diff(starts).tolist()}
    assert starts[0] == 0
    if len(starts) > 1:
        (step,) = steps
        assert step % min(32, 1 << (side - round(side * overlap)).bit_length() - 1) == 0
        assert step <= side * (1 - overlap) + 1
    assert starts[-1] + side >= length > (starts[-2] + side if len(starts) > 1 else 0)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_a_photo_as_large_as_the_output_is_one_tile_called_or_tiled(fit: str, tmp_path: Path) -> None:
    spec = convolution_spec(1)
    spec = replace(spec, input=replace(spec.input, fit=fit))
    segmenter = Segmenter(write_convolution(tmp_path / "model.onnx", spec))
    photo = noise(SIDE - 2, SIDE - 2)
    called, tiled = segmenter(photo), segmenter.tiled(photo)
    np.testing.assert_allclose(called.probabilities, whole_picture(photo), atol=2e-6)
    assert np.array_equal(called.mask, tiled.mask)
    assert np.array_equal(called.opacity, tiled.opacity)


@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.75])
def test_padded_convolutions_in_tiles_are_the_whole_picture_s_away_from_the_edge(
    overlap: float, padded: Segmenter
) -> None:
    """The output of a tile beside its own edge, where its input was padded with zeros, has no weight."""
    photo = noise(120, 95)
    result = all_rows(padded.tiled(photo, overlap=overlap))
    np.testing.assert_allclose(result[1:-1, 1:-1], whole_picture(photo)[1:-1, 1:-1], atol=2e-6)


def test_without_overlap_padding_shows(padded: Segmenter) -> None:
    """The comparison above can fail."""
    photo = noise(120, 95)
    difference = np.abs(all_rows(padded.tiled(photo, overlap=0)) - whole_picture(photo))[1:-1, 1:-1]
    assert difference.max() > 0.1


def run_of_tile_numbers(spec: ModelSpec) -> tiling.Run:
    """A model with a different class share for every tile, the same all over the tile."""
    seen = iter(range(10_000))

    def run(images: np.ndarray) -> np.ndarray:
        shares = np.array([next(seen) % 2 for _ in images], np.float32)
        planes = np.stack([shares, 1 - shares, np.zeros_like(shares)], -1)
        return np.broadcast_to(planes[:, None, None], (len(images), spec.output.height, spec.output.width, 3)).copy()

    return run


def test_seams_are_blended() -> None:
    """Two tiles that contradict each other: the share runs from one to the other in even steps."""
    spec = colour_spec(32)
    photo = Image.new("RGB", (48, 32))
    line = np.concatenate([b for _, b in tiling.blended_bands(photo, spec, run_of_tile_numbers(spec), 0.5)])[0, :, 0]
    assert (line[:20] == 0).all()  # outside the overlap (16..32) and in its outer quarter
    assert (line[28:] == 1).all()
    np.testing.assert_allclose(np.diff(line[20:28]), 1 / 8, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(width=st.integers(1, 150), height=st.integers(1, 90), overlap=st.floats(0, tiling.MOST_OVERLAP))
def test_weights_sum_to_1(width: int, height: int, overlap: float) -> None:
    spec = colour_spec(16, width=20)
    photo = Image.new("RGB", (width, height))
    rows = np.concatenate([b for _, b in tiling.blended_bands(photo, spec, run_of_tile_numbers(spec), overlap)])
    assert rows.shape == (height, width, 3)
    np.testing.assert_allclose(rows.sum(-1), 1, atol=1e-6)
    assert rows.min() >= 0


def test_the_result_is_used_like_any_other(unpadded: Segmenter, tmp_path: Path) -> None:
    photo = noise(50, 70)
    Image.fromarray(photo).save(tmp_path / "photo.png")
    result = unpadded.tiled(tmp_path / "photo.png")
    rows = all_rows(result)
    assert np.array_equal(result.mask, rows.argmax(-1))
    likely = rows[..., 2] < 0.5  # where the neutral class takes all, half is opaque
    odds = rows[..., 0] / (rows[..., 0] + rows[..., 1])
    assert np.abs(result.opacity - np.clip((odds - 0.2) / 0.6, 0, 1) * 255)[likely].max() < 2
    assert (result.photo.size, result.spec.name, result.tiles) == ((70, 50), "colours", 6 * 8)
    assert np.array_equal(np.asarray(result.mask_image()), result.mask)
    assert result.overlay().size == result.cutout().size == (70, 50)
    assert result.cutout().mode == "RGBA"


def test_sigmoid_models_blend_shares(tmp_path: Path) -> None:
    """Where tiles have large or small outputs for the same shares, the shares count."""
    spec = replace(colour_spec(16), output=OutputSpec(16, 16, activation="sigmoid"))
    scales = iter(np.random.default_rng(0).uniform(0.01, 1, 1000))

    def run(images: np.ndarray) -> np.ndarray:
        shares = np.array([0.5, 0.3, 0.2], np.float32)
        return np.stack([np.broadcast_to(shares * np.float32(next(scales)), (16, 16, 3)) for _ in images])

    rows = np.concatenate([b for _, b in tiling.blended_bands(Image.new("RGB", (60, 40)), spec, run, 0.25)])
    np.testing.assert_allclose(rows, np.broadcast_to([0.5, 0.3, 0.2], rows.shape), atol=1e-5)


def test_a_file_whose_batch_is_fixed(tmp_path: Path, unpadded: Segmenter) -> None:
    fixed = Segmenter(write_convolution(tmp_path / "fixed.onnx", convolution_spec(1), batch=1))
    photo = noise(40, 60)
    np.testing.assert_allclose(all_rows(fixed.tiled(photo)), all_rows(unpadded.tiled(photo)), atol=1e-6)


def test_a_letterboxed_model_sees_tiles_at_the_photo_s_resolution(tmp_path: Path) -> None:
    """Stripes narrower than a letterboxed photo could show: 300 pixels in 32."""
    photo = np.zeros((40, 300, 3), np.uint8)
    photo[:, 0::4, 0] = photo[:, 1::4, 0] = photo[:, 2::4, 1] = photo[:, 3::4, 1] = 255
    segmenter = Segmenter(write_colour_model(tmp_path / "box.onnx", colour_spec(32, fit="letterbox")))
    expected = np.tile(np.array([0, 0, 1, 1], np.uint8), (40, 75))
    assert np.array_equal(segmenter.tiled(photo).mask, expected)
    assert not np.array_equal(segmenter(photo).mask, expected)


def test_what_cannot_be_tiled_is_refused() -> None:
    for overlap in (-0.1, 0.8, float("nan")):
        with pytest.raises(ValueError, match=r"expected a share of a tile's side, 0 to 0\.75"):
            Segmenter().tiled(noise(50, 50), overlap=overlap)

"""Edges of cut-outs at the photo's own size: where they run, and what colours they have."""

from __future__ import annotations

import io
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.colours import colour_spec, write_colour_model
from tests.helpers.memory import traced_peak
from unet_runtime import Segmenter
from unet_runtime.core import matting, render
from unet_runtime.core.cells import Cells, runs, with_surround
from unet_runtime.io.sinks import encode

GREY, WHITE = 60, 200


def disc(size: tuple[int, int], radius: float) -> np.ndarray:
    """bool (H, W): a disc in the middle of a picture of ``size`` (width, height)."""
    row, column = np.ogrid[: size[1], : size[0]]
    return np.hypot(row - size[1] / 2 + 0.5, column - size[0] / 2 + 0.5) < radius


def photo_of(inside: np.ndarray) -> Image.Image:
    pixels = np.where(inside[..., np.newaxis], (WHITE, 90, 40), (GREY, 80, 120)).astype(np.uint8)
    return Image.fromarray(pixels)


def blurred_share(inside: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """float32 (h, w): what a model might say of the disc, on a grid of (width, height) points."""
    picture = Image.fromarray((inside * np.float32(1)).astype(np.float32))
    return np.asarray(picture.resize(grid, Image.Resampling.BILINEAR))


@pytest.mark.parametrize("size", [(300, 200), (900, 600), (2001, 1399)])
def test_a_refined_edge_is_the_photo_s(size: tuple[int, int]) -> None:
    """The model's disc is too large by a point of its grid; the filter finds the photo's."""
    true = disc(size, size[1] * 0.3)
    wrong = disc(size, size[1] * 0.3 + size[0] / 60)
    share = blurred_share(wrong, (60, 40))
    alpha = matting.refined(share, photo_of(true))
    before = np.asarray(Image.fromarray(share).resize(size, Image.Resampling.BILINEAR)) >= 0.5
    assert (alpha.dtype, alpha.shape) == (np.uint8, size[::-1])
    assert ((alpha >= 128) != true).sum() < 0.2 * (before != true).sum()
    assert (alpha[disc(size, size[1] * 0.2)] == 255).all()
    assert (alpha[~disc(size, size[1] * 0.45)] == 0).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (3, 2), (384, 384), (385, 385), (769, 500), (1200, 7)])
def test_any_size(size: tuple[int, int]) -> None:
    share = np.random.default_rng(0).uniform(size=(12, 16)).astype(np.float32)
    photo = Image.fromarray(np.random.default_rng(1).integers(0, 256, (*size[::-1], 3), np.uint8))
    alpha = matting.refined(share, photo)
    assert alpha.shape == size[::-1]
    cutout = render.cutout(photo, alpha)
    assert (cutout.size, cutout.mode) == (size, "RGBA")
    assert np.array_equal(np.asarray(cutout)[..., 3], alpha)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_without_an_edge_nothing_is_refined(value: float) -> None:
    photo = Image.effect_noise((500, 300), 90).convert("RGB")
    assert (matting.refined(np.full((20, 30), value, np.float32), photo) == 255 * value).all()


def test_what_is_copied_is_what_would_be_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    size = (1000, 700)
    inside = disc(size, 200)
    noise = np.random.default_rng(0).normal(0, 6, (*size[::-1], 3))
    photo = Image.fromarray(np.clip(np.asarray(photo_of(inside)) + noise, 0, 255).astype(np.uint8))
    share = blurred_share(disc(size, 210), (40, 28))
    alpha = matting.refined(share, photo)
    monkeypatch.setattr(matting, "_SURE", 9)  # no cell is sure: each is computed
    whole = matting.refined(share, photo)
    assert (np.abs(alpha.astype(int) - whole) > 2).mean() < 1e-3


def test_runs_of_cells() -> None:
    assert list(runs(np.array([False, True, True, False, True]))) == [slice(1, 3), slice(4, 5)]
    assert not list(runs(np.zeros(4, bool)))


def test_cells_that_hold_a_pixel() -> None:
    cells = Cells((21, 15), 7)
    flags = np.random.default_rng(0).uniform(size=(15, 21)) < 0.1
    expected = cells.by_cell(flags).any(axis=(2, 3))
    assert 0 < expected.sum() < expected.size
    assert np.array_equal(cells.holding(flags), expected)


def test_values_between_points_are_linear() -> None:
    """For even and odd steps, against the definition at the centres of pixels."""
    for step in (1, 2, 3, 8, 11):
        size = (step * 7, step * 5)
        cells = Cells(size, 7)
        assert (cells.step, cells.shape) == (step, (5, 7))
        row, column = np.mgrid[:5, :7].astype(np.float32)
        points = with_surround(np.stack([row, column]))
        found = np.empty((2, *size[::-1]), np.float32)
        for band in cells.bands():
            rows, columns = np.mgrid[band.first : band.last, :8].reshape(2, -1)
            values = cells.values(points, rows, columns).transpose(1, 2, 0)  # (n, step * step, C)
            canvas = np.empty(((band.last - band.first) * step, 8 * step, 2), np.float32)
            cells.by_cell(canvas)[rows - band.first, columns] = values.reshape(-1, step, step, 2)
            found[:, band.top : band.bottom] = band.inside(canvas).transpose(2, 0, 1)
        for axis, length in ((0, 5), (1, 7)):
            centre = (np.arange(length * step) + 0.5) / step - 0.5
            expected = np.clip(centre, 0, length - 1)
            line = found[0][:, 0] if axis == 0 else found[1][0]
            np.testing.assert_allclose(line, expected, atol=1e-5)


def test_bands_cover_the_photo_once() -> None:
    for size in ((4000, 3000), (1, 9000), (9000, 1), (385, 200), (17, 23)):
        cells = Cells(size, 384)
        tops = [(band.top, band.bottom) for band in cells.bands()]
        assert tops[0][0] == 0
        assert tops[-1][1] == size[1]
        assert all(before[1] == after[0] for before, after in pairwise(tops))


def composed(size: tuple[int, int]) -> tuple[Image.Image, np.ndarray, np.ndarray]:
    """(photo, alpha, foreground): an orange disc with a soft edge before a green wall."""
    distance = np.hypot(*np.ogrid[-size[1] / 2 : size[1] / 2, -size[0] / 2 : size[0] / 2])
    alpha = np.clip((size[1] * 0.3 - distance) / (size[1] * 0.05) + 0.5, 0, 1)
    foreground = np.empty((*size[::-1], 3))
    foreground[:] = (230, 120, 30)
    foreground[..., 0] -= np.linspace(0, 60, size[0])
    wall = np.array((20, 200, 60))
    photo = alpha[..., np.newaxis] * foreground + (1 - alpha[..., np.newaxis]) * wall
    return Image.fromarray(np.rint(photo).astype(np.uint8)), np.rint(alpha * 255).astype(np.uint8), foreground


@pytest.mark.parametrize("size", [(300, 240), (1500, 1200)])
def test_the_border_has_the_foreground_s_colours(size: tuple[int, int]) -> None:
    photo, alpha, foreground = composed(size)
    cutout = np.asarray(render.cutout(photo, alpha)).astype(int)
    soft = (alpha > 25) & (alpha < 250)
    before = np.abs(np.asarray(photo).astype(int) - foreground)[soft].mean()
    after = np.abs(cutout[..., :3] - foreground)[soft].mean()
    assert after < 0.2 * before
    solid = alpha == 255
    assert np.array_equal(cutout[solid, :3], np.asarray(photo)[solid])


@pytest.mark.parametrize("suffix", ["", ".webp", ".tif"])
def test_nothing_of_the_background_is_in_a_file(suffix: str, tmp_path: Path) -> None:
    """Photos that differ behind the foreground alone give the same files, byte for byte."""
    model = write_colour_model(tmp_path / "colours.onnx", colour_spec(32))
    files = []
    for seed in (0, 1):
        pixels = np.zeros((64, 64, 3), np.uint8)
        pixels[..., 1] = np.random.default_rng(seed).integers(150, 256, (64, 64))
        pixels[16:48, 16:48] = (255, 10, 10)
        result = Segmenter(model)(pixels)
        sharp = np.where(result.opacity >= 128, np.uint8(255), np.uint8(0))
        result._made["opacity"] = sharp
        files.append(encode(result, "cutout", suffix=suffix))
        with Image.open(io.BytesIO(files[-1])) as image:
            decoded = np.asarray(image.convert("RGBA"))
        assert np.array_equal(decoded[..., 3], sharp)
        if suffix != ".webp":  # lossy: not the photo's colours, but not exactly 0
            assert not decoded[sharp == 0].any()
    assert files[0] == files[1]


def test_every_door_gives_the_same_cutout(sample_photo: Path) -> None:
    result = Segmenter()(sample_photo)
    whole = np.asarray(result.cutout())
    assert not whole[result.opacity == 0].any()
    with Image.open(io.BytesIO(encode(result, "cutout"))) as image:
        assert np.array_equal(np.asarray(image), whole)
    with Image.open(io.BytesIO(encode(result, "cutout", suffix=".tif"))) as image:
        assert np.array_equal(np.asarray(image), whole)


def test_a_refined_result_has_the_same_mask_and_other_opacity(sample_photo: Path) -> None:
    result = Segmenter()(sample_photo)
    refined = result.refined()
    assert np.array_equal(refined.mask, result.mask)
    assert refined.is_refined
    assert not result.is_refined
    assert 0 < (refined.opacity != result.opacity).mean() < 0.2
    assert np.array_equal(np.asarray(refined.cutout())[..., 3], refined.opacity)


def test_what_was_transparent_stays_so(sample_photo: Path) -> None:
    with Image.open(sample_photo) as opened:
        photo = opened.convert("RGBA")
    photo.paste((0, 0, 0, 0), (0, 0, 200, 100))
    cutout = np.asarray(Segmenter()(photo).refined().cutout())
    assert not cutout[:100, :200].any()
    assert cutout[150, 200, 3] == 255


def test_memory_is_bounded() -> None:
    """12 megapixels: 36 MB of RGB and 12 MB of opacity; all else goes through bands."""
    setup = """
import numpy as np
from tests.helpers.colours import colour_spec
from tests.runtime.test_matting import blurred_share, disc, photo_of
from unet_runtime import Segmentation
from unet_runtime.core import render
from unet_runtime.core.geometry import place
photo = photo_of(disc((4000, 3000), 900))
spec = colour_spec(40)
share = blurred_share(disc((4000, 3000), 930), (40, 40))
probabilities = np.stack([share, 1 - share, np.zeros_like(share)], -1)
result = Segmentation(photo, probabilities, spec, place(photo.size, spec)).refined()
"""
    work = """
opacity = result.opacity
for band in render.cutout_bands(photo, opacity):
    assert band.nbytes < 4e6
"""
    assert traced_peak(setup, work) < 12e6 + 40e6

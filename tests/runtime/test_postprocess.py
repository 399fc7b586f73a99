"""Masks and opacity at the photo's own size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.colours import colour_spec
from unet_runtime.core import masks
from unet_runtime.core.geometry import place
from unet_runtime.core.masks import shares
from unet_runtime.core.spec import InputSpec, ModelSpec, OutputSpec


def planes(probabilities: np.ndarray, size: tuple[int, int], spec: ModelSpec) -> np.ndarray:
    return masks.photo_planes(probabilities, place(size, spec), spec)


def class_mask(probabilities: np.ndarray, size: tuple[int, int], spec: ModelSpec) -> np.ndarray:
    return masks.class_mask(planes(probabilities, size, spec), size)


def opacity(probabilities: np.ndarray, size: tuple[int, int], spec: ModelSpec) -> np.ndarray:
    return masks.opacity(planes(probabilities, size, spec), size, spec)


def random_probabilities(size: int, seed: int = 0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(size, size, 3)).astype(np.float32)
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def whole_planes(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The plain definition: each class's plane resampled at once, float32 (height, width, C)."""
    planes = [
        Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR)
        for plane in np.ascontiguousarray(probabilities.transpose(2, 0, 1))
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


SIZES = [
    (701, 503),
    (32, 32),
    (33, 31),
    (31, 900),
    (4000, 300),
    (10, 7),
    (7, 1000),
    (1000, 7),
    (1, 1),
    (64, 64),
    (1, 700),
    (700, 1),
    (3, 32),
    (32, 3),
    (96, 33),
]


def check_against_the_definition(probabilities: np.ndarray, size: tuple[int, int]) -> None:
    """Equal but where two classes tie to within rounding: Pillow's order of the two directions may differ."""
    expected = whole_planes(probabilities, size)
    mask = class_mask(probabilities, size, colour_spec(len(probabilities)))
    assert (mask.dtype, mask.shape) == (np.uint8, size[::-1])
    chosen = np.take_along_axis(expected, mask[..., np.newaxis].astype(np.intp), axis=-1)[..., 0]
    lead = expected.max(-1) - chosen
    assert lead.max() <= 2e-7
    assert ((mask != expected.argmax(-1)) & (lead == 0)).sum() == 0  # an exact tie goes to the lower id


@pytest.mark.parametrize("size", SIZES)
def test_mask_is_the_argmax_of_resampled_probabilities(size: tuple[int, int]) -> None:
    check_against_the_definition(random_probabilities(32), size)


@pytest.mark.parametrize("size", SIZES)
def test_large_areas_of_one_class_are_the_definition_s_too(size: tuple[int, int]) -> None:
    """Most of it is copied, not computed: as in a model's output, which is certain but along outlines."""
    row, column = np.mgrid[:32, :32]
    distance = np.hypot(row - 13.3, column - 17.8)
    logits = np.stack([9 - distance, distance - 9, 1.5 - np.abs(distance - 9)], -1) * 4
    odds = np.exp(logits).astype(np.float32)
    check_against_the_definition(odds / odds.sum(-1, keepdims=True), size)


@settings(max_examples=60, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    classes=st.integers(2, 5),
    levels=st.integers(1, 6),
    seed=st.integers(0, 9),
)
def test_ties_are_the_definition_s(
    grid: tuple[int, int], size: tuple[int, int], classes: int, levels: int, seed: int
) -> None:
    """Few levels, as int8 models have: whole areas tie, and so do outlines."""
    values = np.random.default_rng(seed).integers(0, levels, (*grid, classes)).astype(np.float32) / 4
    spec = colour_spec(grid[0], width=grid[1])
    more = tuple(replace(entry, name=f"other {entry.name}") for entry in spec.classes)
    spec = replace(spec, classes=(*spec.classes, *more)[:classes])
    mask = class_mask(values, size, spec)
    expected = whole_planes(values, size)
    chosen = np.take_along_axis(expected, mask[..., np.newaxis].astype(np.intp), axis=-1)[..., 0]
    lead = expected.max(-1) - chosen
    assert lead.max() <= 5e-7
    flat = (values == values.flat[0]).all()
    assert not flat or not mask.any()  # every class ties everywhere: the lowest id


@pytest.mark.parametrize("size", [(700, 503), (2000, 1), (1, 2000)])
@pytest.mark.parametrize("grid", [1, 2])
def test_a_grid_of_few_points(grid: int, size: tuple[int, int]) -> None:
    """Its cells are larger than what is computed at a time."""
    check_against_the_definition(random_probabilities(grid), size)


@pytest.mark.parametrize("size", [*SIZES, (5000, 3)])
def test_bands_of_probabilities_are_the_definition_s(size: tuple[int, int]) -> None:
    probabilities = random_probabilities(32)
    bands = list(masks.probability_bands(planes(probabilities, size, colour_spec()), size))
    assert [top for top, _ in bands] == np.cumsum([0, *(len(band) for _, band in bands[:-1])]).tolist()
    rows = np.concatenate([band for _, band in bands])
    assert (rows.dtype, rows.shape) == (np.float32, (*size[::-1], 3))
    np.testing.assert_allclose(rows, whole_planes(probabilities, size), atol=2e-7)
    assert np.array_equal(rows.argmax(-1), class_mask(probabilities, size, colour_spec()))


def test_bands_stay_small() -> None:
    """A photo of 100 megapixels: 1.2 GB of probabilities, 3 MB at a time."""
    size = (10_000, 10_000)
    bands = masks.probability_bands(planes(random_probabilities(32), size, colour_spec()), size)
    first = next(bands)[1]
    second_top, second = next(bands)
    assert second_top == len(first)
    assert max(first.nbytes, second.nbytes) < 4e6


def test_same_size_is_plain_argmax() -> None:
    probabilities = random_probabilities(32)
    assert np.array_equal(class_mask(probabilities, (32, 32), colour_spec()), probabilities.argmax(-1))


def test_letterboxed_part_only() -> None:
    spec = colour_spec(fit="letterbox")  # a 64x32 photo lies in rows 8..24 of 32
    probabilities = np.zeros((32, 32, 3), np.float32)
    probabilities[..., 2] = 1
    probabilities[8:24] = (1, 0, 0)
    assert (class_mask(probabilities, (64, 32), spec) == 0).all()


def test_margin_shifts_the_grid() -> None:
    spec = replace(colour_spec(), input=InputSpec(32, 32, "letterbox", margin=4), output=OutputSpec(24, 24))
    probabilities = np.zeros((24, 24, 3), np.float32)
    probabilities[..., 2] = 1
    probabilities[6:18] = (1, 0, 0)  # a 64x32 photo lies in rows 10..22 of the input, columns 4..28
    assert (class_mask(probabilities, (64, 32), spec) == 0).all()


def test_opacity_is_the_odds_without_the_neutral_class() -> None:
    """From 0 at one in five to 255 at four in five: no veil over what is surely background, and no glass."""
    probabilities = np.array([[[1, 0, 0], [0, 1, 0], [0.2, 0.2, 0.6], [0.28, 0.12, 0.6], [8, 2, 0]]], np.float32)
    probabilities[0, 4] /= 10
    spec = replace(colour_spec(1, width=5))
    assert opacity(probabilities, (5, 1), spec)[0].tolist() == pytest.approx([255, 0, 128, 212, 254], abs=1)


def plain_opacity(probabilities: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The definition: odds resampled at once, then levels."""
    share = masks.foreground_share(np.ascontiguousarray(probabilities.transpose(2, 0, 1)), colour_spec())
    resampled = np.asarray(Image.fromarray(share).resize(size, Image.Resampling.BILINEAR))
    return np.rint(np.clip((resampled - 0.2) / 0.6, 0, 1) * 255)


@pytest.mark.parametrize("size", SIZES)
def test_opacity_is_that_of_resampled_odds(size: tuple[int, int]) -> None:
    """Whole areas of 0 and 255 are copied, the others computed: equal but for the last rounding."""
    row, column = np.mgrid[:32, :32]
    inside = 1 / (1 + np.exp(np.hypot(row - 13.3, column - 17.8) - 9))
    disc = np.stack([inside, 1 - inside, np.zeros_like(inside)], -1).astype(np.float32)
    for probabilities in (disc, random_probabilities(32)):
        expected = plain_opacity(probabilities, size)
        result = opacity(probabilities, size, colour_spec())
        assert result.shape == size[::-1]
        assert np.abs(result - expected).max() <= 1


def sigmoid_spec(size: int = 32, width: int | None = None) -> ModelSpec:
    return replace(colour_spec(size, width=width), output=OutputSpec(size, width or size, activation="sigmoid"))


def test_shares_of_a_softmax_model_are_its_probabilities() -> None:
    probabilities = random_probabilities(4)
    assert shares(probabilities, colour_spec()) is probabilities


def test_shares_of_a_sigmoid_model_sum_to_1() -> None:
    probabilities = np.array([[0.9, 0.6, 0.3], [1, 1, 0], [0.004, 0, 0], [0, 0, 0]], np.float32)
    expected = [[1 / 2, 1 / 3, 1 / 6], [1 / 2, 1 / 2, 0], [1, 0, 0], [1 / 3, 1 / 3, 1 / 3]]
    result = shares(probabilities, sigmoid_spec())
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, expected, atol=5e-5)
    assert probabilities.tolist()[3] == [0, 0, 0]  # the caller's array is as it was


@pytest.mark.parametrize("scale", [1, 1e-3])
def test_what_a_sigmoid_model_s_sum_is_does_not_matter(scale: float) -> None:
    """The same mask and cut-out as of the softmax model with these shares, though the sum differs by pixel."""
    probabilities, size = random_probabilities(32), (301, 203)
    scales = np.random.default_rng(1).uniform(0.2, 1, (32, 32, 1)).astype(np.float32) * np.float32(scale)
    for make in (class_mask, opacity):
        expected = make(probabilities, size, colour_spec()).astype(int)
        difference = np.abs(make(probabilities * scales, size, sigmoid_spec()).astype(int) - expected)
        assert (difference > (0 if make is class_mask else 2)).mean() < 1e-4


def test_opacity_of_a_sigmoid_model_is_odds_however_small_its_probabilities() -> None:
    probabilities = np.array([[[8e-4, 2e-4, 1e-5], [0, 0, 0.5], [0, 0, 0], [0.9, 0.9, 0.1]]], np.float32)
    probabilities[0, 0] = (6e-4, 4e-4, 1e-5)
    assert opacity(probabilities, (4, 1), sigmoid_spec(1, width=4))[0].tolist() == pytest.approx(
        [170, 128, 128, 128], abs=1
    )


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 2000), height=st.integers(1, 2000))
def test_any_size(width: int, height: int) -> None:
    probabilities = random_probabilities(32)
    for plane in (
        class_mask(probabilities, (width, height), colour_spec()),
        opacity(probabilities, (width, height), colour_spec()),
    ):
        assert plane.shape == (height, width)


def test_long_strips() -> None:
    probabilities = random_probabilities(32)
    for size in ((60000, 1), (1, 60000), (60000, 3), (1, 1)):
        assert class_mask(probabilities, size, colour_spec()).shape == size[::-1]

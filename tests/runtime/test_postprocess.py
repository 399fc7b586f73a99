"""Masks and opacity at the photo's own size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import colour_spec
from unet_runtime.postprocess import class_mask, opacity, shares
from unet_runtime.spec import ModelSpec, OutputSpec


def random_probabilities(size: int, seed: int = 0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(size, size, 3)).astype(np.float32)
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_mask_is_the_argmax_of_resampled_probabilities() -> None:
    probabilities, size = random_probabilities(32), (701, 503)
    planes = [Image.fromarray(probabilities[..., c].copy()).resize(size, Image.Resampling.BILINEAR) for c in range(3)]
    expected = np.argmax(np.stack(planes), axis=0)
    mask = class_mask(probabilities, size, colour_spec())
    assert (mask.dtype, mask.shape) == (np.uint8, (503, 701))
    assert (mask != expected).mean() < 1e-4  # bands round differently where two classes tie


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
    spec = replace(colour_spec(fit="letterbox"), output=OutputSpec(24, 24, margin=4))
    probabilities = np.zeros((24, 24, 3), np.float32)
    probabilities[..., 2] = 1
    probabilities[4:20] = (1, 0, 0)  # rows 8..24 of the input
    assert (class_mask(probabilities, (64, 32), spec) == 0).all()


def test_opacity_is_the_odds_without_the_neutral_class() -> None:
    probabilities = np.array([[[1, 0, 0], [0, 1, 0], [0.2, 0.2, 0.6], [0.3, 0.1, 0.6]]], np.float32)
    spec = replace(colour_spec(1, width=4))
    assert opacity(probabilities, (4, 1), spec)[0].tolist() == pytest.approx([255, 0, 128, 191], abs=1)


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
        assert (difference > (0 if make is class_mask else 1)).mean() < 1e-4


def test_opacity_of_a_sigmoid_model_is_odds_however_small_its_answers() -> None:
    probabilities = np.array([[[8e-4, 2e-4, 1e-5], [0, 0, 0.5], [0, 0, 0], [0.9, 0.9, 0.1]]], np.float32)
    assert opacity(probabilities, (4, 1), sigmoid_spec(1, width=4))[0].tolist() == pytest.approx(
        [204, 128, 128, 128], abs=1
    )


@settings(max_examples=40, deadline=None)
@given(width=st.integers(1, 2000), height=st.integers(1, 2000))
def test_any_size(width: int, height: int) -> None:
    probabilities = random_probabilities(32)
    for plane in (class_mask(probabilities, (width, height), colour_spec()),
                  opacity(probabilities, (width, height), colour_spec())):  # fmt: skip
        assert plane.shape == (height, width)


def test_long_strips() -> None:
    probabilities = random_probabilities(32)
    for size in ((60000, 1), (1, 60000), (60000, 3), (1, 1)):
        assert class_mask(probabilities, size, colour_spec()).shape == size[::-1]

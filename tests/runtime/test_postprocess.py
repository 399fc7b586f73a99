"""Masks and opacity at the photo's own size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import colour_spec
from unet_runtime.postprocess import class_mask, opacity
from unet_runtime.spec import OutputSpec


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

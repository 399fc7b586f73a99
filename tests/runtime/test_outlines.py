"""Runs that are made without pixels are those of the mask that is made of pixels, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from unet_runtime.core import outlines, resample
from unet_runtime.core.masks import class_mask, class_runs, first_of_the_largest, leaders
from unet_runtime.core.runs import mask_of

SIZES = [(701, 503), (32, 24), (33, 900), (4000, 30), (64, 48), (63, 49)]


def same_mask(planes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask, made both ways."""
    parts = list(outlines.trace(planes, size, leaders, first_of_the_largest))
    expected = resample.label(planes, size, leaders, first_of_the_largest)
    assert np.array_equal(mask_of(parts, size), expected)
    for runs in parts:
        begins_row = (np.cumsum(runs.lengths) - runs.lengths) % size[0] == 0
        assert begins_row.sum() == runs.height
        assert (begins_row[1:] | (runs.ids[1:] != runs.ids[:-1])).all()
    return expected


def noise(classes: int, seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(classes, 24, 32)).astype(np.float32)
    return np.exp(logits) / np.exp(logits).sum(axis=0)


def blobs(classes: int, seed: int) -> np.ndarray:
    """Smooth planes, as a model's: in most cells one class is ahead."""
    small = noise(classes, seed)[:, ::6, ::6]
    planes = [np.asarray(Image.fromarray(plane).resize((32, 24), Image.Resampling.BICUBIC)) for plane in small]
    return np.exp(6 * np.stack(planes)) / np.exp(6 * np.stack(planes)).sum(axis=0)


def ties(classes: int, seed: int) -> np.ndarray:
    """Few different values, as of int8: classes are equal at many points, and cross at others."""
    planes: np.ndarray = np.round(noise(classes, seed) * 4) / np.float32(4)
    return planes


@pytest.mark.parametrize("make", [noise, blobs, ties])
@pytest.mark.parametrize("classes", [2, 3, 4])
@pytest.mark.parametrize("size", SIZES)
def test_every_mask_is_that_of_pixels(make: object, classes: int, size: tuple[int, int]) -> None:
    same_mask(make(classes, 1), size)  # type: ignore[operator]


def test_rounding_decides_where_classes_are_close() -> None:
    """Planes that differ by steps of float32: Pillow's roundings make a pattern, which is kept."""
    generator = np.random.default_rng(5)
    base = blobs(2, 1)[0]
    for steps in (1, 3, 40):
        planes = np.stack([base, base + generator.integers(-steps, steps + 1, base.shape) * np.float32(6e-8)])
        mask = same_mask(planes.astype(np.float32), (701, 503))
        assert 0.1 < mask.mean() < 0.9


def test_bands_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outlines, "_ROWS_AT_A_TIME", 100)
    same_mask(blobs(3, 2), (1200, 900))


def test_large_masks_are_made_of_runs() -> None:
    planes = blobs(3, 4)
    assert np.array_equal(mask_of(class_runs(planes, (1500, 1000)), (1500, 1000)), class_mask(planes, (1500, 1000)))
    assert class_runs(planes, (700, 500)) == []
    assert class_runs(noise(5, 0), (1500, 1000)) == []
    assert class_runs(planes, (70000, 20)) == []

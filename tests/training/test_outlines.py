"""The weight map of the U-Net's paper, against the formula computed pixel by pixel."""

from __future__ import annotations

import numpy as np
import pytest

from unet_training.data.outlines import OutlineWeights
from unet_training.losses import weighted_cross_entropy

PET, BACKGROUND, BORDER = range(3)


def photo_of(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Pets in the background: class ids (1, 24, 32)."""
    mask = np.full((1, 24, 32), BACKGROUND)
    for top, bottom, left, right in boxes:
        mask[0, top:bottom, left:right] = PET
    return mask


def distance(inside: np.ndarray) -> np.ndarray:
    """From each pixel's middle to the nearest of the other side, less half a pixel."""
    points = np.stack(np.indices(inside.shape), axis=-1).reshape(-1, 2)
    flat = inside.ravel()
    apart = np.sqrt(((points[:, None] - points[None]) ** 2).sum(-1))
    apart[flat[:, None] == flat[None]] = np.inf
    return (apart.min(axis=1) - 0.5).reshape(inside.shape)


def test_between_two_objects_it_is_the_paper_s_formula() -> None:
    first, second = photo_of((4, 12, 3, 9)), photo_of((6, 20, 13, 25))
    both = np.where(first == PET, first, second)
    d1, d2 = distance(first[0] == PET), distance(second[0] == PET)
    expected = 10 * np.exp(-((d1 + d2) ** 2) / (2 * 5**2))
    found = OutlineWeights([PET], 10, 5)(both)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    assert found[0, 10, 9:13].min() > found[0, 10, 28]  # what separates them weighs more than what is behind one


def test_of_more_objects_the_two_nearest_count() -> None:
    boxes = [(2, 8, 2, 8), (2, 8, 12, 18), (14, 20, 24, 30)]
    distances = np.sort([distance(photo_of(box)[0] == PET) for box in boxes], axis=0)
    expected = np.exp(-((distances[0] + distances[1]) ** 2) / (2 * 3**2))
    np.testing.assert_allclose(OutlineWeights([PET], 1, 3)(photo_of(*boxes))[0], expected, rtol=1e-5)


def test_one_object_s_outline_is_both() -> None:
    mask = photo_of((4, 20, 6, 26))
    expected = 10 * np.exp(-((2 * distance(mask[0] == PET)) ** 2) / (2 * 5**2))
    np.testing.assert_allclose(OutlineWeights([PET], 10, 5)(mask)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("mask", [photo_of(), photo_of((0, 24, 0, 32))])
def test_without_an_outline_nothing_is_added(mask: np.ndarray) -> None:
    assert not OutlineWeights([PET], 10, 5)(mask).any()


def test_every_photo_of_a_batch_is_weighed_by_itself() -> None:
    masks = np.concatenate([photo_of((4, 20, 6, 26)), photo_of()])
    found = OutlineWeights([PET], 10, 5)(masks)
    assert found.shape == masks.shape
    assert found[0].max() > 8
    assert not found[1].any()


def test_the_loss_counts_a_heavier_pixel_as_so_many() -> None:
    chosen = np.eye(3, dtype=np.float32)[[[[0, 1, 2]]]]  # (1, 1, 3, 3)
    probabilities = np.array([[[[0.5, 0.3, 0.2], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]]]], np.float32)
    extra = np.array([[[3, 0, 0]]], np.float32)
    loss = float(weighted_cross_entropy(chosen, probabilities, (1, 1, 2), extra))
    expected = -(4 * np.log(0.5) + np.log(0.6) + 2 * np.log(0.8)) / 7
    assert loss == pytest.approx(expected, rel=1e-5)
    assert float(weighted_cross_entropy(chosen, probabilities, (1, 1, 2), 0 * extra)) == pytest.approx(
        float(weighted_cross_entropy(chosen, probabilities, (1, 1, 2))), rel=1e-6
    )

"""Augmentation: photo and mask stay one picture."""

from __future__ import annotations

import numpy as np
import pytest

from unet_training.augment import Augmenter

Pictures = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def marked() -> Pictures:
    """Photos whose colour says the class: 0 is green, 2 is red. No class 1, so that a mean of 0 and 2 would show."""
    masks = np.zeros((12, 64, 64), np.uint8)
    masks[:, 8:44, 10:34] = 2
    photos = np.full((12, 64, 64, 3), 60, np.uint8)
    photos[..., 1] = 200
    photos[masks == 2] = (200, 60, 60)
    return photos, masks


@pytest.fixture(scope="module")
def moved(marked: Pictures) -> Pictures:
    return Augmenter(3)(*marked)


def test_the_colour_still_says_the_class(moved: Pictures) -> None:
    photos, masks = moved
    red = photos[..., 0].astype(int) > photos[..., 1]
    # A pixel on the outline may fall to either side: the photo is interpolated, the mask is not.
    assert (red == (masks == 2)).mean() > 0.98


def test_types_and_classes_are_kept(moved: Pictures) -> None:
    photos, masks = moved
    assert (photos.dtype, masks.dtype) == (np.uint8, np.uint8)
    assert set(np.unique(masks)) == {0, 2}


def test_each_picture_is_moved_and_coloured_on_its_own(marked: Pictures, moved: Pictures) -> None:
    assert len({mask.tobytes() for mask in moved[1]}) > 8
    assert len({int(photo.max()) for photo in moved[0]}) > 4
    assert not np.array_equal(moved[1], marked[1])


def test_the_same_seed_gives_the_same_pictures(marked: Pictures, moved: Pictures) -> None:
    again = Augmenter(3)(*marked)
    np.testing.assert_array_equal(again[0], moved[0])
    np.testing.assert_array_equal(again[1], moved[1])
    assert not np.array_equal(Augmenter(4)(*marked)[1], moved[1])


def test_the_next_batch_is_moved_differently(marked: Pictures) -> None:
    augment = Augmenter(3)
    assert not np.array_equal(augment(*marked)[1], augment(*marked)[1])

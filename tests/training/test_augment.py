"""Augmentation: photo and mask stay one picture."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
from PIL import Image

from unet_runtime.core.metrics import IGNORED
from unet_training.data.augment import GREY, Augmenter, _draw_negatives, move, recolour, rotate

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


FIRST = (0, 0)
"""Epoch and index of a batch."""


@pytest.fixture(scope="module")
def moved(marked: Pictures) -> Pictures:
    return Augmenter(3)(*marked, FIRST)


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
    again = Augmenter(3)(*marked, FIRST)
    np.testing.assert_array_equal(again[0], moved[0])
    np.testing.assert_array_equal(again[1], moved[1])
    assert not np.array_equal(Augmenter(4)(*marked, FIRST)[1], moved[1])


@pytest.mark.parametrize("number", [(0, 1), (1, 0)])
def test_another_batch_is_moved_and_coloured_differently(
    marked: Pictures, moved: Pictures, number: tuple[int, int]
) -> None:
    photos, masks = Augmenter(3)(*marked, number)
    assert not np.array_equal(masks, moved[1])
    assert {int(photo.max()) for photo in photos} != {int(photo.max()) for photo in moved[0]}


def test_what_came_before_changes_nothing(marked: Pictures, moved: Pictures) -> None:
    augment = Augmenter(3)
    augment(*marked, (5, 7))
    np.testing.assert_array_equal(augment(*marked, FIRST)[0], moved[0])


def test_threads_may_share_one(marked: Pictures) -> None:
    augment = Augmenter(3)
    numbers = [(0, index) for index in range(12)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda number: augment(*marked, number), numbers))
    for number, (photos, masks) in zip(numbers, together, strict=True):
        alone = augment(*marked, number)
        np.testing.assert_array_equal(photos, alone[0])
        np.testing.assert_array_equal(masks, alone[1])


def _moved(photos: np.ndarray, masks: np.ndarray, rows: list[float], columns: list[float]) -> Pictures:
    """One picture through the layer."""
    positions = (np.array([side], np.float32) for side in (rows, columns))
    moved = move(photos[None].astype(np.float32), masks[None], *positions)
    photo, mask = (keras.ops.convert_to_numpy(result)[0] for result in moved)
    return photo, mask


@pytest.fixture
def small() -> Pictures:
    random = np.random.default_rng(1)
    return random.integers(0, 256, (4, 6, 3), dtype=np.uint8), random.integers(0, 3, (4, 6), dtype=np.uint8)


def test_positions_are_pixels_of_the_photo(small: Pictures) -> None:
    photo, mask = _moved(*small, rows=[0, 1, 2, 3], columns=[5, 4, 3, 2, 1, 0])
    np.testing.assert_array_equal(photo, small[0][:, ::-1])
    np.testing.assert_array_equal(mask, small[1][:, ::-1])


def test_between_pixels_the_photo_is_mixed_and_the_mask_takes_the_nearest(small: Pictures) -> None:
    photo, mask = _moved(*small, rows=[1.25] * 4, columns=[0, 1, 2, 3, 4, 5])
    np.testing.assert_allclose(photo[0], 0.75 * small[0][1] + 0.25 * small[0][2], rtol=1e-5)
    np.testing.assert_array_equal(mask[0], small[1][1])


def test_beyond_the_edge_comes_the_reflection(small: Pictures) -> None:
    photo, mask = _moved(*small, rows=[0, 1, 2, 3], columns=[-2, -1, 0, 5, 6, 7])
    expected = [1, 0, 0, 5, 5, 4]
    np.testing.assert_allclose(photo, small[0][:, expected], rtol=1e-5)
    np.testing.assert_array_equal(mask, small[1][:, expected])


def test_colours_that_change_nothing_change_nothing(small: Pictures) -> None:
    photo = small[0][None].astype(np.float32)
    same = recolour(photo, np.eye(3, dtype=np.float32)[None], np.zeros(1, np.float32))
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(same), small[0][None])


def test_a_grey_photo_stays_grey() -> None:
    grey = np.broadcast_to(np.arange(64, 128, 2, np.uint8)[None, :, None, None], (12, 32, 32, 3))
    photos, _ = Augmenter(3)(grey, np.zeros((12, 32, 32), np.uint8), FIRST)
    assert np.ptp(photos.astype(int), axis=-1).max() <= 1
    assert len(set(photos.mean(axis=(1, 2, 3)).round().tolist())) > 4


def test_a_quarter_turn_is_exact() -> None:
    """Against the sun, as NumPy turns: nothing is lost where positions are pixels."""
    random = np.random.default_rng(2)
    photos = random.integers(0, 256, (2, 9, 9, 3)).astype(np.float32)
    masks = random.integers(0, 3, (2, 9, 9), dtype=np.uint8)
    turned, classes = rotate(photos, masks, np.array([0.0, np.pi / 2]))
    turned, classes = keras.ops.convert_to_numpy(turned), keras.ops.convert_to_numpy(classes)
    np.testing.assert_allclose(turned[0], photos[0], atol=1e-3)
    np.testing.assert_allclose(turned[1], np.rot90(photos[1]), atol=0.01)
    np.testing.assert_array_equal(classes[0], masks[0])
    np.testing.assert_array_equal(classes[1], np.rot90(masks[1]))


def test_turned_pictures_stay_one_picture(marked: Pictures) -> None:
    photos, masks = Augmenter(3, zoom=0.3, rotation=40)(*marked, FIRST)
    red = photos[..., 0].astype(int) > photos[..., 1]
    assert (red == (masks == 2)).mean() > 0.97
    assert (photos.dtype, masks.dtype) == (np.uint8, np.uint8)
    assert set(np.unique(masks)) <= {0, 2}
    # A flip, a scale and a shift leave the rectangle one: each of its rows is as wide as the next. A turn does not.
    widths = [len(set((mask == 2).sum(axis=1)) - {0}) for mask in masks]
    assert max(widths) > 5


def test_what_is_cut_out_is_grey_and_ignored(marked: Pictures) -> None:
    plain_photos, plain_masks = Augmenter(3)(*marked, FIRST)
    photos, masks = Augmenter(3, cut_out=0.5)(*marked, FIRST)
    cut = masks == IGNORED
    shares = cut.mean(axis=(1, 2))
    assert 0 < shares.max() <= 0.26
    assert len(np.unique(shares)) > 4
    assert (photos[cut] == GREY).all()
    np.testing.assert_array_equal(photos[~cut], plain_photos[~cut])
    np.testing.assert_array_equal(masks[~cut], plain_masks[~cut])


def test_a_share_of_the_photos_shows_background_alone(marked: Pictures) -> None:
    """The others are what they are without it."""
    plain_photos, plain_masks = Augmenter(3)(*marked, FIRST)
    photos, masks = Augmenter(3, negatives=0.5, background=(0,))(*marked, FIRST)
    empty = (masks == 0).all(axis=(1, 2))
    assert 2 < empty.sum() < 10
    assert (photos[empty][..., 1] > photos[empty][..., 0]).all()  # green alone
    np.testing.assert_array_equal(photos[~empty], plain_photos[~empty])
    np.testing.assert_array_equal(masks[~empty], plain_masks[~empty])


def test_photos_that_an_object_fills_stay_as_they_are(marked: Pictures) -> None:
    photos, masks = marked[0], np.full_like(marked[1], 2)
    plain = Augmenter(3)(photos, masks, FIRST)
    shown = Augmenter(3, negatives=1, background=(0,))(photos, masks, FIRST)
    for expected, found in zip(plain, shown, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_part_is_all_that_a_picture_shows_at_a_scale_between_its_own_and_the_photo_s() -> None:
    """Positions of its pixels in the photo, from the values of a photo that counts its columns."""
    photos = np.broadcast_to(np.arange(64, dtype=np.uint8)[None, None, :, None], (40, 64, 64, 3)).copy()
    masks = np.zeros((40, 64, 64), np.uint8)
    masks[:, :, 40:] = 1
    rows, columns = np.zeros((40, 64), np.float32), np.zeros((40, 64), np.float32)
    _draw_negatives(np.random.default_rng(0), 1.0, masks, (0,), rows, columns)
    assert columns.max() <= 39
    moved, classes = move(keras.ops.cast(photos, "float32"), masks, rows, columns)
    assert not np.asarray(classes).any()
    np.testing.assert_allclose(np.asarray(moved)[:, 0, :, 0], columns, atol=1e-3)
    steps = np.abs(np.diff(columns)).max(axis=1)
    assert 0.1 < steps.min() < 0.7
    assert 0.9 < steps.max() <= 1.0001


def test_a_larger_photo_is_reduced_as_the_runtime_reduces_it() -> None:
    photo = np.random.default_rng(1).integers(0, 256, (32, 30, 3), dtype=np.uint8)
    mask = photo[..., 0] % 3
    rows = np.arange(8) * 4 + 1.5  # centres of eight blocks of 4 pixels
    columns = np.arange(15) * 2 + 0.5
    moved, classes = _moved(photo, mask, list(rows), list(columns))
    reduced = Image.fromarray(photo).resize((15, 8), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(moved, np.asarray(reduced), atol=1)
    nearest = np.ix_(np.round(rows).astype(int), np.round(columns).astype(int))
    np.testing.assert_array_equal(classes, mask[nearest])


def test_parts_of_larger_photos_are_sharp() -> None:
    """Stripes of one pixel, which the photo at the pictures' size does not have."""
    photos = np.zeros((12, 64, 64, 3), np.uint8)
    photos[:, ::2] = 255
    masks = np.zeros((12, 64, 64), np.uint8)
    masks[:, :, 32:] = 2
    sharp, classes = Augmenter(3, zoom=0.5, negatives=0.3, background=(0,), size=32)(photos, masks, FIRST)
    blurred, _ = Augmenter(3, zoom=0.5, negatives=0.3, background=(0,))(photos[:, ::2, ::2], masks[:, ::2, ::2], FIRST)
    assert sharp.shape == blurred.shape == (12, 32, 32, 3)
    assert classes.shape == (12, 32, 32)
    assert np.ptp(sharp, axis=(1, 2, 3)).max() > 100
    assert np.ptp(blurred, axis=(1, 2, 3)).max() == 0

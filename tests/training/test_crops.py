"""Parts of photos at their own scale: where they are, what is in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.masks import write_samples
from unet_runtime.core.geometry import model_input, model_labels, photo_box
from unet_runtime.core.metrics import IGNORED
from unet_runtime.core.spec import InputSpec
from unet_training.data.cache import PhotoCache, key
from unet_training.data.crops import Crops
from unet_training.data.pairs import decode

SPEC = InputSpec(32, 32, "crop")
FOCUSED, ANYWHERE = Crops(6, seed=1, is_focused=True), Crops(6, seed=1, is_focused=False)


def scene(width: int = 200, height: int = 120) -> tuple[np.ndarray, np.ndarray]:
    """A photo whose red and green tell each pixel's column and row, and labels with one rare class."""
    photo = np.zeros((height, width, 3), np.uint8)
    photo[..., 0] = np.arange(width)
    photo[..., 1] = np.arange(height)[:, np.newaxis]
    labels = np.zeros((height, width), np.uint8)
    labels[7:9, 180:183] = 1
    labels[:, 0] = IGNORED
    return photo, labels


def test_a_part_has_the_photo_s_own_pixels_and_labels(tmp_path: Path) -> None:
    photo, labels = scene()
    data = decode(write_samples(tmp_path, [(photo, labels)]), SPEC, FOCUSED)
    assert len(data) == 6
    for name, part, part_labels in zip(data.names, data.photos, data.masks, strict=True):
        left, top = map(int, name.rpartition("@")[2].split(","))
        assert part.shape == (32, 32, 3)
        np.testing.assert_array_equal(part, photo[top : top + 32, left : left + 32])
        np.testing.assert_array_equal(part_labels, labels[top : top + 32, left : left + 32])


def test_training_sees_rare_classes_and_validation_what_comes(tmp_path: Path) -> None:
    samples = write_samples(tmp_path, [scene()] * 8)
    focused, anywhere = decode(samples, SPEC, FOCUSED), decode(samples, SPEC, ANYWHERE)
    shares = [float((data.masks == 1).any(axis=(1, 2)).mean()) for data in (focused, anywhere)]
    assert shares[0] > 0.2 > shares[1]


def test_the_same_parts_come_again_and_others_with_another_seed(tmp_path: Path) -> None:
    samples = write_samples(tmp_path, [scene()])
    assert decode(samples, SPEC, FOCUSED).names == decode(samples, SPEC, FOCUSED).names
    assert decode(samples, SPEC, FOCUSED).names != decode(samples, SPEC, Crops(6, 2, is_focused=True)).names
    keys = {key(samples, SPEC, crops) for crops in (None, FOCUSED, ANYWHERE, Crops(7, 1, is_focused=True))}
    assert len(keys) == 4


def test_a_photo_that_the_input_holds_is_one_part_and_is_not_enlarged(tmp_path: Path) -> None:
    photo, labels = scene(20, 30)
    data = decode(write_samples(tmp_path, [(photo, labels), scene()]), SPEC, FOCUSED)
    assert len(data) == 7
    np.testing.assert_array_equal(data.photos[0][1:31, 6:26], photo)
    np.testing.assert_array_equal(data.masks[0][1:31, 6:26], labels)
    assert (data.masks[0][:, :6] == IGNORED).all()


def test_the_cache_keeps_parts(tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "data", [scene(20, 30), scene()])
    cache = PhotoCache(tmp_path / "cache")
    first, again = cache.load(samples, SPEC, FOCUSED), cache.load(samples, SPEC, FOCUSED)
    assert first.names == again.names
    np.testing.assert_array_equal(first.masks, decode(samples, SPEC, FOCUSED).masks)


@pytest.mark.parametrize("size", [(200, 120), (20, 120), (20, 30)])
def test_one_input_of_a_photo_shows_its_middle_at_its_own_scale(size: tuple[int, int]) -> None:
    photo, labels = scene(*size)
    shown = model_input(Image.fromarray(photo), SPEC)[0]
    width, height = min(size[0], 32), min(size[1], 32)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    row = np.s_[(32 - height) // 2 : (32 - height) // 2 + height]
    column = np.s_[(32 - width) // 2 : (32 - width) // 2 + width]
    np.testing.assert_array_equal(shown[row, column], photo[top : top + height, left : left + width])
    found = model_labels(labels, SPEC)
    np.testing.assert_array_equal(found[row, column], labels[top : top + height, left : left + width])


def test_a_large_photo_that_is_seen_whole_is_reduced_and_a_small_one_not_enlarged() -> None:
    assert photo_box((64, 32), SPEC) == (0, 8, 32, 16)
    assert photo_box((16, 8), SPEC) == (8, 12, 16, 8)

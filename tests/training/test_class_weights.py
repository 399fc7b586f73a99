"""Weights of classes: balanced, from a file, refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unet_runtime.core.metrics import IGNORED
from unet_training.class_weights import class_weights, pixel_counts
from unet_training.errors import RecipeError

NAMES = ("sky", "ground", "bird")


def test_ignored_pixels_are_not_counted() -> None:
    masks = np.array([[[0, 1, IGNORED]], [[1, 1, IGNORED]]], np.uint8)
    assert pixel_counts(masks, 3).tolist() == [1, 3, 0]


def test_none_weighs_all_alike() -> None:
    assert class_weights("none", NAMES, np.array([9, 3, 1])) == (1, 1, 1)


def test_balanced_classes_weigh_alike_together() -> None:
    counts = np.array([600, 300, 100])
    weights = np.array(class_weights("balanced", NAMES, counts))
    assert (weights * counts).tolist() == pytest.approx([1000 / 3] * 3, rel=1e-4)


def test_a_class_of_a_few_pixels_does_not_decide_every_step() -> None:
    weights = class_weights("balanced", NAMES, np.array([1_000_000, 1_000_000, 1]))
    assert max(weights) == pytest.approx(100 * min(weights), rel=1e-4)


def test_a_class_without_a_pixel_is_named(logged: list[str]) -> None:
    weights = class_weights("balanced", NAMES, np.array([50, 150, 0]))
    assert weights == (2, pytest.approx(2 / 3, abs=1e-5), 1)
    assert "no training photo has a pixel of bird: such a class cannot be learned" in logged


def test_a_file_has_a_weight_of_each_class(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text('{"bird": 5, "sky": 0.5, "ground": 1}')
    assert class_weights(str(path), NAMES, np.zeros(3, np.int64)) == (0.5, 1, 5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"bird": 5}', "has weights of bird, expected one of each of sky, ground, bird"),
        ('{"bird": 5, "sky": 1, "ground": 1, "sea": 1}', "has weights of bird, sky, ground, sea, expected"),
        ('{"bird": 0, "sky": 1, "ground": 1}', "expected an object of a number above 0"),
        ('{"bird": NaN, "sky": 1, "ground": 1}', "expected an object of a number above 0"),
        ('{"bird": "much", "sky": 1, "ground": 1}', "expected an object of a number above 0"),
        ("[1, 2, 3]", "expected an object of a number above 0"),
        ("bird=5", "cannot be read as JSON"),
        (None, "cannot be read as JSON"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "weights.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(RecipeError, match=words) as caught:
        class_weights(str(path), NAMES, np.zeros(3, np.int64))
    assert caught.value.exit_code == 2

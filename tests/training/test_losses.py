"""The losses, against what their papers say and against each other."""

from __future__ import annotations

import itertools

import keras
import numpy as np
import pytest
from keras import ops

from unet_runtime.core.metrics import IGNORED
from unet_training import losses
from unet_training.losses import Objective

RANDOM = np.random.default_rng(5)
TRUTH = RANDOM.integers(0, 3, (2, 6, 5))
CHOSEN = np.eye(3, dtype=np.float32)[TRUTH]
PROBABILITIES = RANDOM.dirichlet((1, 1, 1), TRUTH.shape).astype(np.float32)


def _number(tensor: object) -> float:
    return float(ops.convert_to_numpy(tensor))


def test_equal_weights_are_keras_cross_entropy() -> None:
    expected = ops.mean(keras.losses.sparse_categorical_crossentropy(TRUTH, PROBABILITIES))
    assert _number(losses.weighted_cross_entropy(CHOSEN, PROBABILITIES, (1, 1, 1))) == pytest.approx(_number(expected))
    assert _number(ops.mean(losses.cross_entropy(TRUTH, PROBABILITIES))) == pytest.approx(_number(expected))


def test_a_class_of_weight_two_counts_as_if_its_pixels_were_there_twice() -> None:
    each = -np.log(np.take_along_axis(PROBABILITIES, TRUTH[..., None], -1)[..., 0])
    twice = np.concatenate([each.ravel(), each[TRUTH == 2]])
    found = _number(losses.weighted_cross_entropy(CHOSEN, PROBABILITIES, (1, 1, 2)))
    assert found == pytest.approx(twice.mean(), rel=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_hard_pixels_are_those_of_the_largest_loss(share: float) -> None:
    each = -np.log(np.take_along_axis(PROBABILITIES, TRUTH[..., None], -1)[..., 0])
    largest = np.sort(each.ravel())[int(np.floor(each.size * (1 - share))) :]
    found = _number(losses.weighted_cross_entropy(CHOSEN, PROBABILITIES, (1, 1, 1), None, share))
    assert found == pytest.approx(largest.mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["dice", "lovasz"])
def test_region_losses_are_0_for_the_truth_and_at_most_1(name: str) -> None:
    loss = losses.REGION_LOSSES[name]
    assert _number(loss(CHOSEN, CHOSEN)) == pytest.approx(0, abs=1e-6)
    wrong = np.roll(CHOSEN, 1, axis=-1)
    assert 0.9 < _number(loss(CHOSEN, wrong)) <= 1


def test_lovasz_of_hard_answers_is_1_minus_mean_iou() -> None:
    """The extension meets the function it extends at the corners (Berman et al. 2018, section 3)."""
    guess = RANDOM.integers(0, 3, TRUTH.shape)
    ious = [((guess == c) & (c == TRUTH)).sum() / ((guess == c) | (c == TRUTH)).sum() for c in range(3)]
    found = _number(losses.lovasz(CHOSEN, np.eye(3, dtype=np.float32)[guess]))
    assert found == pytest.approx(1 - np.mean(ious), abs=1e-6)


def test_lovasz_counts_present_classes_only() -> None:
    truth = np.zeros((1, 4, 4), int)
    chosen = np.eye(3, dtype=np.float32)[truth]
    answer = np.full((1, 4, 4, 3), (0.5, 0.25, 0.25), np.float32)
    # One class, all errors 0.5: the loss is their common value.
    assert _number(losses.lovasz(chosen, answer)) == pytest.approx(0.5)


def test_lovasz_is_convex_between_corners() -> None:
    """Along a line between two answers it never lies above the chord."""
    other = RANDOM.dirichlet((1, 1, 1), TRUTH.shape).astype(np.float32)
    truth = np.eye(3, dtype=np.float32)[TRUTH]
    ends = [_number(losses.lovasz(truth, answer)) for answer in (PROBABILITIES, other)]
    for share in (0.25, 0.5, 0.75):
        between = (1 - share) * PROBABILITIES + share * other
        assert _number(losses.lovasz(truth, between)) <= (1 - share) * ends[0] + share * ends[1] + 1e-6


def test_dice_by_hand() -> None:
    chosen = np.array([[[[1, 0], [0, 1]]]], np.float32)
    answer = np.array([[[[0.75, 0.25], [0.25, 0.75]]]], np.float32)
    # Each class: 2 * 0.75 + 1 over 1 + 1 + 1.
    assert _number(losses.dice(chosen, answer)) == pytest.approx(1 - 2.5 / 3)


def test_distance_is_0_from_oneself_and_positive_otherwise() -> None:
    assert _number(losses.divergence(PROBABILITIES, PROBABILITIES)) == pytest.approx(0, abs=1e-6)
    assert _number(losses.divergence(CHOSEN * 0.9 + 0.1 / 3, PROBABILITIES)) > 0.1


def test_sigmoid_answers_are_brought_to_sum_1_for_the_loss_that_keras_would_take_from_logits() -> None:
    """Keras computes a softmax's loss from the logits it finds behind a sigmoid (on TensorFlow)."""
    image = keras.Input((4, 4, 3))
    head = keras.Model(image, keras.layers.Conv2D(3, 1, activation="sigmoid")(image))
    photos = RANDOM.normal(size=(1, 4, 4, 3)).astype(np.float32)
    truth = RANDOM.integers(0, 3, (1, 4, 4))
    answer = head(photos)
    plain = ops.convert_to_numpy(answer)
    expected = -np.log(np.take_along_axis(plain / plain.sum(-1, keepdims=True), truth[..., None], -1)).mean()
    assert _number(ops.mean(losses.cross_entropy(truth, answer))) == pytest.approx(expected, rel=1e-5)
    objective = Objective((1, 1, 1))
    assert _number(objective(photos, truth, answer)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("region", "taught"), list(itertools.product(["none", "dice", "lovasz"], [False, True])))
def test_the_objective_is_the_weighted_sum_of_its_terms(region: str, taught: bool) -> None:
    def teacher(photos: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.array((0.2, 0.3, 0.5), np.float32), PROBABILITIES.shape)

    objective = Objective((1, 1, 2), region, 0.5, teacher if taught else None, 0.25)
    expected = _number(losses.weighted_cross_entropy(CHOSEN, PROBABILITIES, (1, 1, 2)))
    if region != "none":
        expected += 0.5 * _number(losses.REGION_LOSSES[region](CHOSEN, PROBABILITIES))
    if taught:
        expected += 0.25 * _number(losses.divergence(teacher(TRUTH), PROBABILITIES))
    assert _number(objective(TRUTH, TRUTH, PROBABILITIES)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("region", "taught"), list(itertools.product(["none", "dice", "lovasz"], [False, True])))
def test_ignored_pixels_count_in_no_term(region: str, taught: bool) -> None:
    """The loss is that of a picture without them, whatever is predicted there."""

    def teacher(photos: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.array((0.2, 0.3, 0.5), np.float32), (*photos.shape[:3], 3))

    objective = Objective((1, 2, 3), region, 0.5, teacher if taught else None, 0.25)
    truth = TRUTH.copy()
    truth[:, :, 3:] = IGNORED
    weights = RANDOM.random(TRUTH.shape).astype(np.float32)
    photos = np.zeros((*TRUTH.shape, 3), np.uint8)
    for kept in (slice(0, 3), slice(0, 0)):  # some pixels, and none
        truth[:, :, kept.stop :] = IGNORED
        found = _number(objective(photos, truth, PROBABILITIES, weights))
        part = [array[:, :, kept] for array in (photos, truth, PROBABILITIES, weights)]
        expected = _number(objective(*part)) if kept.stop else _number(objective(photos, truth, CHOSEN, weights))
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert np.isfinite(found)


def test_the_validation_loss_is_the_mean_over_labelled_pixels() -> None:
    truth = TRUTH.copy()
    truth[:, 2:] = IGNORED
    expected = _number(ops.mean(losses.cross_entropy(TRUTH[:, :2], PROBABILITIES[:, :2])))
    assert _number(losses.mean_cross_entropy(truth, PROBABILITIES)) == pytest.approx(expected, rel=1e-5)
    assert _number(losses.mean_cross_entropy(np.full_like(truth, IGNORED), PROBABILITIES)) == 0

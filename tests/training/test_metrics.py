"""Keras' metrics against the runtime's numpy: one truth for training, export and devices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unet_runtime.core.metrics import IGNORED, confusion, iou, mean_iou
from unet_training.metrics import MeanIoU, as_recorded, metrics


@pytest.fixture(scope="module")
def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Truth uint8 (n, 16, 16) and probabilities float32 (n, 16, 16, 3), right about half the time."""
    rng = np.random.default_rng(5)
    result = []
    for count in (4, 4, 3):
        truth = rng.choice(3, (count, 16, 16), p=(0.3, 0.6, 0.1)).astype(np.uint8)
        scores = rng.random((count, 16, 16, 3)) + 0.4 * np.eye(3)[truth]
        result.append((truth, (scores / scores.sum(axis=-1, keepdims=True)).astype(np.float32)))
    return result


def ignoring(truth: np.ndarray) -> np.ndarray:
    """The truth, of which every third column says nothing."""
    part = truth.copy()
    part[:, :, ::3] = IGNORED
    return part


@pytest.mark.parametrize("part", [np.copy, ignoring])
def test_keras_and_the_runtime_agree(batches: list[tuple[np.ndarray, np.ndarray]], part: Any) -> None:
    measures = metrics(3)
    losses = []
    for truth, probabilities in batches:
        for measure in measures:
            measure.update_state(part(truth), probabilities)
        each = -np.log(np.take_along_axis(probabilities, truth[..., None].astype(int), -1)[..., 0])
        losses.append(each[part(truth) != IGNORED])
    got = {measure.name: float(measure.result()) for measure in measures}

    truths = [part(truth) for truth, _ in batches]
    matrix = confusion(truths, (probabilities.argmax(axis=-1) for _, probabilities in batches), 3)
    scores = iou(matrix)
    assert 0.2 < scores.mean() < 0.8
    assert got["mean_iou"] == pytest.approx(mean_iou(scores), abs=1e-6)
    assert got["pixel_accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum(), abs=1e-6)
    assert got["cross_entropy"] == pytest.approx(np.concatenate(losses).mean(), abs=1e-5)
    (found,) = (measure for measure in measures if isinstance(measure, MeanIoU))
    np.testing.assert_array_equal(found.matrix, matrix)


def test_a_class_in_neither_does_not_count_and_one_that_is_predicted_does() -> None:
    """Keras, the runtime and what a model records have the same."""
    truth = np.array([[[0, 0, 1, 1]]], np.uint8)
    guess = np.array([[[0, 1, 1, 1]]])
    for classes, predicted in ((4, guess), (4, np.array([[[0, 3, 1, 1]]]))):
        measure = MeanIoU(classes, "mean_iou")
        measure.update_state(truth, np.eye(classes, dtype=np.float32)[predicted])
        expected = mean_iou(iou(confusion(truth, predicted, classes)))
        assert float(measure.result()) == pytest.approx(expected, abs=1e-6)
        assert as_recorded(0.0, measure.matrix, "abcd")["mean_iou"] == pytest.approx(expected, abs=1e-5)


def test_results_get_their_class_names() -> None:
    matrix = np.array([[80, 10, 0], [10, 100, 0], [0, 0, 0]])
    assert as_recorded(0.1234567, matrix, ("pet", "ground", "sky")) == {
        "loss": 0.12346,
        "pixel_accuracy": 0.9,
        "mean_iou": 0.81667,
        "iou": {"pet": 0.8, "ground": 0.83333},
        "absent": ["sky"],
    }

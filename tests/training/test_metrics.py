"""Keras' metrics against the runtime's numpy: one truth for training, export and devices."""

from __future__ import annotations

import numpy as np
import pytest

from unet_runtime.core.metrics import confusion, iou
from unet_training.metrics import as_recorded, metrics


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


def test_keras_and_the_runtime_agree(batches: list[tuple[np.ndarray, np.ndarray]]) -> None:
    measures = metrics(3, per_class=True)
    for truth, probabilities in batches:
        for measure in measures:
            measure.update_state(truth, probabilities)
    got = {measure.name: float(measure.result()) for measure in measures}

    matrix = confusion(
        (truth for truth, _ in batches), (probabilities.argmax(axis=-1) for _, probabilities in batches), 3
    )
    scores = iou(matrix)
    assert 0.2 < scores.mean() < 0.8
    assert [got[f"iou_{index}"] for index in range(3)] == pytest.approx(scores.tolist(), abs=1e-6)
    assert got["mean_iou"] == pytest.approx(scores.mean(), abs=1e-6)
    assert got["pixel_accuracy"] == pytest.approx(np.trace(matrix) / matrix.sum(), abs=1e-6)


def test_training_leaves_expensive_ones_out() -> None:
    assert [measure.name for measure in metrics(3, per_class=False)] == ["pixel_accuracy", "mean_iou", "cross_entropy"]


def test_results_get_their_class_names() -> None:
    flat = {"loss": 0.1234567, "pixel_accuracy": 0.9, "mean_iou": 0.7, "iou_0": 0.8, "iou_1": 0.6}
    assert as_recorded(flat, ("pet", "ground")) == {
        "loss": 0.12346,
        "pixel_accuracy": 0.9,
        "mean_iou": 0.7,
        "iou": {"pet": 0.8, "ground": 0.6},
    }

"""Fine-tuned, a model's int8 file agrees better with the model that it was made from."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from tests.helpers.hard_model import hard_model
from tests.helpers.int8_predictions import calibration, int8_masks, onnx_int8_masks
from tests.helpers.tiny import SIZE, SPEC, draw
from unet_export.formats import FORMATS
from unet_export.transforms.fake_quantized import FakeQuantized
from unet_export.transforms.finetune import finetune
from unet_runtime.core.geometry import model_input
from unet_runtime.core.spec import ModelSpec

STEPS = 40
RATE = 1e-3
"""More than a model of real size bears: this one has 4 filters at the top."""


@pytest.fixture(scope="module")
def photos(images: Any) -> Any:
    """More than the dataset's few: uint8 (n, SIZE, SIZE, 3)."""
    rng = np.random.default_rng(11)
    return np.concatenate([images, *(model_input(draw(rng)[0], SPEC.input) for _ in range(64))])


@pytest.fixture(scope="module")
def harmed(model: Any) -> Any:
    """Channels over three decades: int8 loses the lowest of each tensor."""
    return hard_model(model, seed=1, decades=3.0)


@pytest.fixture(scope="module")
def tuned(harmed: Any, photos: Any) -> Any:
    return finetune(harmed, photos, STEPS, learning_rate=RATE)


@pytest.fixture(scope="module")
def small() -> Any:
    """Two convolutions: quick to trace."""
    keras.utils.set_random_seed(4)
    image = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(keras.layers.Rescaling(1 / 255)(image))
    return keras.Model(image, keras.layers.Conv2D(3, 1, activation="softmax")(x))


def masks(model: Any, images: Any) -> Any:
    return model(images, training=False).numpy().argmax(axis=-1)


def test_the_student_errs_as_the_int8_file_does(harmed: Any, images: Any, spec: ModelSpec, tmp_path: Path) -> None:
    truth, file = masks(harmed, images), int8_masks(harmed, spec, images, tmp_path, tuned=True)
    prediction = FakeQuantized(harmed, images)(images).numpy().argmax(axis=-1)
    harm = (file != truth).mean()
    assert harm > 0.1
    assert (prediction != file).mean() < harm / 5  # not only as often, but where


def test_the_student_has_the_weights_of_an_onnx_file(harmed: Any, photos: Any) -> None:
    """They have 7 bits, not 8."""
    truth, file = masks(harmed, photos), onnx_int8_masks(harmed, photos, tuned=True)
    student = FakeQuantized(harmed, calibration(photos), FORMATS["onnx-int8"].quantization.weight_bits)
    prediction = student(photos).numpy().argmax(axis=-1)
    assert (prediction != file).mean() < (file != truth).mean() / 4


def test_the_file_agrees_better_afterwards(
    harmed: Any, tuned: Any, images: Any, spec: ModelSpec, tmp_path: Path
) -> None:
    truth = masks(harmed, images)
    before = (int8_masks(harmed, spec, images, tmp_path / "before") != truth).mean()
    after = (int8_masks(tuned, spec, images, tmp_path / "after", tuned=True) != truth).mean()
    assert after < before / 2


def test_network_and_statistics_are_the_same(harmed: Any, tuned: Any) -> None:
    assert tuned.get_config()["layers"] == harmed.get_config()["layers"]
    for old, new in zip(harmed.non_trainable_variables, tuned.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old.numpy(), new.numpy())
    moved = [
        np.abs(old.numpy() - new.numpy()).max()
        for old, new in zip(harmed.trainable_variables, tuned.trainable_variables, strict=True)
    ]
    assert 0 < max(moved) < 1


def validations(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What fine-tuning logged; TensorFlow logs too."""
    return [record.getMessage() for record in caplog.records if record.name == "unet_export.transforms.finetune"]


def test_each_validation_is_logged(small: Any, images: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        finetune(small, images, 10)
    lines = validations(caplog)
    assert [line.split(":")[0] for line in lines] == [f"step {step}" for step in (0, 2, 4, 6, 8, 10)]
    assert all("of pixels disagree" in line for line in lines)


def test_a_seed_decides(small: Any, images: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    def run(seed: int) -> tuple[list[str], list[Any]]:
        caplog.clear()
        weights = finetune(small, images, 5, learning_rate=1e-3, seed=seed).get_weights()
        return validations(caplog), weights

    (first, weights), (again, same), (other, _) = run(1), run(1), run(2)
    assert first == again
    assert first != other
    for one, two in zip(weights, same, strict=True):
        np.testing.assert_array_equal(one, two)


def test_weights_that_grew_worse_are_not_returned(small: Any, images: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        model = finetune(small, images, 3, learning_rate=3.0)
    first, *_, last = validations(caplog)
    assert float(last.split()[2].rstrip("%")) > float(first.split()[2].rstrip("%"))
    for old, new in zip(small.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_single_photo_is_refused(model: Any, images: Any) -> None:
    with pytest.raises(ValueError, match="1 photos, expected at least 2"):
        finetune(model, images[:1], steps=1)

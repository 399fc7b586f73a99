"""The recipe's network as it is trained: averages, summed gradients, other models' weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.helpers import bundled
from unet_training.build import (
    Pretrained,
    Teacher,
    build_model,
    build_training_model,
    compile_model,
    copy_weights,
    load_pretrained,
    make_objective,
    make_optimizer,
    model_sha256,
    round_weights,
)
from unet_training.errors import TrainingError
from unet_training.fit.checkpoint import CHECKPOINT, Checkpoint
from unet_training.losses import TrainingModel
from unet_training.recipes import PRESETS, Recipe

TINY = replace(PRESETS["demo"], filters=2, depth=1, size=32, batch_size=4)

RANDOM = np.random.default_rng(1)
PHOTOS = RANDOM.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
MASKS = RANDOM.integers(0, 3, (4, 32, 32)).astype(np.uint8)


def _trainee(recipe: Recipe, seed: int = 0, rate: float = 0.1) -> TrainingModel:
    keras.utils.set_random_seed(seed)
    model = build_training_model(recipe, "float32", make_objective(recipe, None))
    compile_model(model, make_optimizer(replace(recipe, optimizer="rmsprop", learning_rate=rate), 10))
    return model


def test_statistics_are_averaged_as_slowly_as_the_weights() -> None:
    for ema, expected in ((0.0, 0.9), (0.5, 0.9), (0.999, 0.999)):
        model = build_model(replace(TINY, ema=ema, norm_momentum=0.9))
        momenta = {layer.momentum for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)}
        assert momenta == {expected}


@pytest.mark.usefixtures("small_network")
def test_the_averages_are_validated_and_kept_and_the_weights_go_on(tmp_path: Path) -> None:
    model = _trainee(replace(TINY, ema=0.5))
    seen: list[np.ndarray] = []
    kernel = model.get_layer("conv").kernel

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            seen.append(np.array(keras.ops.convert_to_numpy(kernel)))

    averages = keras.callbacks.SwapEMAWeights()
    checkpoint = Checkpoint(tmp_path / CHECKPOINT, "val_loss", {}, averages)
    history = model.fit(
        PHOTOS,
        MASKS,
        batch_size=2,
        epochs=1,
        shuffle=False,
        verbose=0,
        validation_data=(PHOTOS, MASKS),
        callbacks=[*checkpoint.callbacks(), Watch()],
    ).history
    average = 0.5 * seen[0] + 0.5 * seen[1]  # the average begins as the first step's weights
    final = build_model(TINY)
    checkpoint.restore(final)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(final.get_layer("conv").kernel), average, rtol=1e-5)
    compile_model(final)
    measured = final.evaluate(PHOTOS, MASKS, batch_size=2, verbose=0, return_dict=True)
    assert measured["loss"] == pytest.approx(history["val_loss"][0], rel=1e-4)


@pytest.mark.usefixtures("small_network")
def test_summed_gradients_move_the_weights_as_the_larger_batch() -> None:
    """RMSprop's step depends on the gradient alone; BatchNormalization, which sees the smaller batches, is frozen."""
    kernels = []
    for accumulation, batch in ((1, 4), (2, 2)):
        model = _trainee(replace(TINY, accumulation=accumulation), rate=1e-3)
        model.get_layer("norm").trainable = False
        compile_model(model, make_optimizer(replace(TINY, optimizer="rmsprop", accumulation=accumulation), 10))
        model.fit(PHOTOS, MASKS, batch_size=batch, epochs=1, shuffle=False, verbose=0)
        kernels.append(keras.ops.convert_to_numpy(model.get_layer("conv").kernel))
    np.testing.assert_allclose(kernels[0], kernels[1], rtol=1e-3, atol=1e-5)


@pytest.mark.usefixtures("small_network")
def test_the_schedule_ends_with_the_training_whatever_is_summed() -> None:
    recipe = replace(TINY, epochs=4, warmup_epochs=1, learning_rate=0.5, accumulation=2, optimizer="adamw")
    model = build_training_model(recipe, "float32", make_objective(recipe, None))
    compile_model(model, make_optimizer(recipe, 2))
    rates = []
    for _ in range(recipe.epochs):
        model.fit(PHOTOS, MASKS, batch_size=2, verbose=0)
        rates.append(float(model.optimizer.learning_rate))
    assert rates == pytest.approx([0.5, 0.375, 0.125, 0], abs=1e-6)


@pytest.mark.usefixtures("small_network")
def test_rounded_weights_keep_their_first_bits() -> None:
    model = build_model(TINY)
    before = [keras.ops.convert_to_numpy(variable).copy() for variable in model.weights]
    round_weights(model, 24)
    for variable, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value)
    round_weights(model, 11)
    for variable, value in zip(model.weights, before, strict=True):
        rounded = keras.ops.convert_to_numpy(variable)
        np.testing.assert_allclose(rounded, value, rtol=2**-11, atol=0)
        normal = np.abs(rounded) > 1e-4
        np.testing.assert_array_equal(rounded[normal], rounded[normal].astype(np.float16))


@pytest.mark.usefixtures("small_network")
def test_training_starts_from_another_model_s_weights() -> None:
    keras.utils.set_random_seed(4)
    other = build_model(TINY)
    model = _trainee(TINY, seed=5)
    assert model_sha256(model) != model_sha256(other)
    copy_weights(model, Pretrained(other, "other"))
    assert model_sha256(model) == model_sha256(other)


@pytest.mark.usefixtures("small_network")
def test_weights_of_another_width_are_refused() -> None:
    wide = Pretrained(build_model(replace(TINY, filters=3)), "wide")
    with pytest.raises(TrainingError, match=r"--weights wide: of another .* width: conv/kernel is \(3, 3, 3, 2\) here"):
        copy_weights(_trainee(TINY), wide)


def test_a_teacher_sees_photos_of_any_size_at_its_own() -> None:
    keras.utils.set_random_seed(0)
    model = build_model(TINY)
    teacher = Teacher(Pretrained(model, "own"))
    expected = np.asarray(model(PHOTOS))
    np.testing.assert_allclose(teacher(PHOTOS), expected, atol=1e-6)
    assert not teacher.model.trainable_variables
    side = PHOTOS.shape[1]
    reduced = keras.ops.image.resize(PHOTOS.astype(np.float32), (side // 2, side // 2), interpolation="bilinear")
    enlarged = keras.ops.image.resize(reduced, (side, side), interpolation="bilinear")
    predicted = model(np.asarray(keras.ops.round(enlarged)).astype(np.uint8))
    expected = keras.ops.image.resize(predicted, (side // 2, side // 2), interpolation="bilinear")
    np.testing.assert_allclose(teacher(reduced), expected, atol=1e-6)


def test_a_teacher_of_fewer_pixels_is_refused() -> None:
    image = keras.Input((32, 32, 3), dtype="uint8")
    x = keras.layers.Conv2D(3, 1, strides=2)(keras.layers.Rescaling(1 / 255)(image))
    with pytest.raises(TrainingError, match=r"--teacher odd: predicts \(16, 16\) of a photo of \(32, 32\), expected"):
        Teacher(Pretrained(keras.Model(image, x), "odd"))


@pytest.mark.usefixtures("small_network")
def test_the_teacher_is_no_part_of_what_is_trained() -> None:
    keras.utils.set_random_seed(0)
    teacher = Pretrained(build_model(TINY), "own")
    model = build_training_model(TINY, "float32", make_objective(TINY, teacher))
    assert len(model.weights) == len(teacher.model.weights)
    compile_model(model, make_optimizer(TINY, 1))
    before = model_sha256(teacher.model)
    model.fit(PHOTOS, MASKS, batch_size=4, verbose=0)
    assert model_sha256(teacher.model) == before


def test_a_trained_file_is_loaded_with_its_digest() -> None:
    other = load_pretrained(bundled.KERAS)
    assert (other.name, len(model_sha256(other.model))) == (bundled.SPEC.name, 64)

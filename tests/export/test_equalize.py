"""Equalised, a model answers the same in float32, and int8 keeps its channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tests.helpers.hard_model import hard_model
from tests.helpers.int8_answers import int8_masks
from unet_export.transforms.equalize import EqualizationReport, equalize
from unet_export.transforms.rescale import rescale
from unet_runtime.core.spec import ModelSpec


@pytest.fixture(scope="module")
def hard(model: Any) -> Any:
    return hard_model(model, seed=5)


@pytest.fixture(scope="module")
def cured(hard: Any, images: Any) -> tuple[Any, EqualizationReport]:
    return equalize(hard, images)


def answer(model: Any, images: Any) -> Any:
    return model(images, training=False).numpy()


def network(body: Callable[[Any], Any]) -> Any:
    """A model of ``body`` behind a convolution named ``first``, whose channels have ranges over four decades."""
    keras.utils.set_random_seed(1)
    image = keras.Input((16, 16, 3), dtype="uint8")
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="first")(layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, layers.Conv2D(2, 1, name="last")(body(x)))
    rng = np.random.default_rng(2)
    for variable in model.variables:
        low = 0.2 if "variance" in variable.path or "gamma" in variable.path else -1
        variable.assign(rng.uniform(low, 1, variable.shape))
    wild = 10 ** np.linspace(-2, 2, 6)
    model.get_layer("first").set_weights([weight * wild for weight in model.get_layer("first").get_weights()])
    return model


def check_same(model: Any, images: Any) -> EqualizationReport:
    small = images[:4, :16, :16]
    twin, report = equalize(model, small)
    np.testing.assert_array_equal(answer(twin, small), answer(model, small))
    return report


def test_an_equalised_model_answers_the_same_to_the_last_bit(model: Any, images: Any) -> None:
    before = [weight.copy() for weight in model.get_weights()]
    twin, report = equalize(model, images)
    np.testing.assert_array_equal(answer(twin, images), answer(model, images))
    assert max(entry.largest_factor for entry in report.layers) > 1  # something was done
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)  # and not to the model given


def test_a_hard_model_is_cured(model: Any, hard: Any, cured: Any, images: Any, spec: ModelSpec, tmp_path: Path) -> None:
    truth = answer(model, images).argmax(axis=-1)
    agreement = {}
    for name, network in (("plain", model), ("hard", hard), ("cured", cured[0])):
        np.testing.assert_allclose(answer(network, images), answer(model, images), rtol=0, atol=1e-5)
        agreement[name] = (int8_masks(network, spec, images, tmp_path / name) == truth).mean()
    assert agreement["hard"] < 0.9
    assert agreement["cured"] > 0.99
    assert agreement["cured"] >= agreement["plain"] - 0.002


def test_the_report_tells_the_ranges(cured: tuple[Any, EqualizationReport]) -> None:
    report = cured[1]
    assert [entry.layer for entry in report.layers][:2] == ["encoder1_norm_a", "encoder1_norm_b"]
    assert max(entry.spread_before for entry in report.layers) > 1000
    assert all(entry.spread_after <= 2.01 for entry in report.layers)  # a power of two meets a range within sqrt(2)
    assert [name for name, _ in report.skipped] == ["logits"]


def test_little_is_left_for_a_second_time(cured: tuple[Any, EqualizationReport], images: Any) -> None:
    factors = [entry.largest_factor for entry in equalize(cured[0], images)[1].layers]
    assert max(factors) <= 2  # a channel halfway between two powers may take the other one
    assert np.median(factors) == 1


BODIES = {
    "average pooling, bilinear growth, padding, cropping, dropout": lambda x: layers.Dropout(0.5)(
        layers.Cropping2D(1)(
            layers.ZeroPadding2D(1)(layers.UpSampling2D(2, interpolation="bilinear")(layers.AveragePooling2D(2)(x)))
        )
    ),
    "a depthwise convolution with two outputs a channel": lambda x: layers.ReLU()(
        layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="deep")(x)
    ),
    "a transposed convolution without bias": lambda x: layers.Conv2DTranspose(
        5, 2, strides=2, use_bias=False, name="up"
    )(layers.MaxPooling2D(2)(x)),
    "a tensor concatenated twice, around another": lambda x: layers.Concatenate()(
        [x, layers.Conv2D(3, 1, name="middle")(x), x]
    ),
    "a normalisation behind an activation": lambda x: layers.LeakyReLU()(layers.BatchNormalization(name="norm")(x)),
    "a normalisation without gamma and beta": lambda x: layers.Conv2D(4, 1, activation="relu", name="next")(
        layers.ReLU()(layers.BatchNormalization(scale=False, center=False, name="norm")(layers.Conv2D(5, 1)(x)))
    ),
}


@pytest.mark.parametrize("body", BODIES)
def test_factors_pass(body: str, images: Any) -> None:
    report = check_same(network(BODIES[body]), images)
    assert "first" in {entry.layer for entry in report.layers if entry.largest_factor > 8}
    assert [name for name, _ in report.skipped] == ["last"]


def shared(x: Any) -> Any:
    twice = layers.Conv2D(6, 1, name="twice")
    return twice(twice(x))


OBSTACLES = {
    "an addition": (lambda x: layers.Add()([x, layers.MaxPooling2D(3, 1, "same")(x)]), "Add"),
    "an operation that is no layer": (lambda x: x * 2.0, "cannot undo"),
    "a bounded activation": (lambda x: layers.ReLU(6.0)(x), "ReLU"),
    "an activation that is not homogeneous": (lambda x: layers.Activation("gelu")(x), "Activation"),
    "a convolution in groups": (lambda x: layers.Conv2D(4, 1, groups=2)(x), "groups"),
    "a layer called twice": (shared, "more than once"),
    "a concatenation of rows": (lambda x: layers.Concatenate(axis=1)([x, x]), "does not work along the channels"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_channels_that_something_else_reads_are_left_alone(obstacle: str, images: Any) -> None:
    body, reason = OBSTACLES[obstacle]
    skipped = dict(check_same(network(body), images).skipped)
    assert reason in skipped["first"]


def test_a_dead_channel_keeps_its_weights(images: Any) -> None:
    model = network(lambda x: x)
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., 2], bias[2] = 0, -1
    model.get_layer("first").set_weights([kernel, bias])
    twin, _ = equalize(model, images[:2, :16, :16])
    np.testing.assert_array_equal(twin.get_layer("first").kernel.numpy()[..., 2], kernel[..., 2])
    assert twin.get_layer("first").bias.numpy()[2] == -1


def test_no_photo_and_no_such_layer_are_refused(model: Any, images: Any) -> None:
    with pytest.raises(ValueError, match="0 calibration photos"):
        equalize(model, images[:0])
    with pytest.raises(ValueError, match=r"layers logits \(the model returns|layers logits \(read by probabilities"):
        rescale(model, {"logits": np.ones(3)})

"""Equalised, a model predicts the same in float32, and int8 keeps its channels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from tests.helpers.hard_model import hard_model
from tests.helpers.int8_predictions import int8_masks
from unet_export.transforms.equalize import equalize
from unet_export.transforms.ranges import channel_ranges
from unet_export.transforms.rescale import clone, rescalable
from unet_runtime.core.spec import ModelSpec


@pytest.fixture(scope="module")
def hard(model: Any) -> Any:
    return hard_model(model, seed=5)


@pytest.fixture(scope="module")
def equalized(hard: Any, images: Any) -> Any:
    return equalize(hard, images)


def predict(model: Any, images: Any) -> Any:
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


def ranges(model: Any, images: Any) -> dict[str, Any]:
    """Largest |x| of each channel, (channels,), by the name of the layer that makes the channels."""
    copy = clone(model)
    sources = rescalable(copy)
    measured = channel_ranges(copy, [source.tensor for source in sources], images)
    return {source.layer.name: np.maximum(-low, high) for source, (low, high) in zip(sources, measured, strict=True)}


def sources(model: Any) -> list[str]:
    """Names of the layers that can be rescaled."""
    return [source.layer.name for source in rescalable(clone(model))]


def largest_factors(before: dict[str, Any], after: dict[str, Any]) -> dict[str, float]:
    """The largest factor, or its inverse, that a channel of each layer was multiplied by."""
    factors = {}
    for name, old in before.items():
        alive = old > 0
        factors[name] = float(2 ** np.abs(np.log2(after[name][alive] / old[alive])).max(initial=0))
    return factors


def spread(channels: Any) -> float:
    """The largest channel's range over the smallest's; channels that are always 0 do not count."""
    alive = channels[channels > 0]
    return float(alive.max() / alive.min())


def equalized_factors(model: Any, images: Any) -> dict[str, float]:
    """Equalise ``model``, check that its predictions are the same, and return the factors."""
    small = images[:4, :16, :16]
    copy = equalize(model, small)
    np.testing.assert_array_equal(predict(copy, small), predict(model, small))
    return largest_factors(ranges(model, small), ranges(copy, small))


def test_an_equalised_model_predicts_the_same_to_the_last_bit(model: Any, images: Any) -> None:
    before = [weight.copy() for weight in model.get_weights()]
    copy = equalize(model, images)
    np.testing.assert_array_equal(predict(copy, images), predict(model, images))
    assert max(largest_factors(ranges(model, images), ranges(copy, images)).values()) > 1  # something was done
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)  # and not to the model given


def test_a_hard_model_passes_equalized(
    model: Any, hard: Any, equalized: Any, images: Any, spec: ModelSpec, tmp_path: Path
) -> None:
    truth = predict(model, images).argmax(axis=-1)
    agreement = {}
    for name, network in (("plain", model), ("hard", hard), ("equalized", equalized)):
        np.testing.assert_allclose(predict(network, images), predict(model, images), rtol=0, atol=1e-5)
        agreement[name] = (int8_masks(network, spec, images, tmp_path / name) == truth).mean()
    assert agreement["hard"] < 0.9
    assert agreement["equalized"] > 0.99
    assert agreement["equalized"] >= agreement["plain"] - 0.002


def test_channels_come_to_equal_ranges(hard: Any, equalized: Any, images: Any) -> None:
    before, after = ranges(hard, images), ranges(equalized, images)
    assert list(before)[:2] == ["encoder1_norm_a", "encoder1_norm_b"]
    assert max(map(spread, before.values())) > 1000
    assert max(map(spread, after.values())) <= 2.01  # a power of two meets a range within sqrt(2)
    assert "logits" not in before


def test_little_is_left_for_a_second_time(equalized: Any, images: Any) -> None:
    twice = equalize(equalized, images)
    factors = list(largest_factors(ranges(equalized, images), ranges(twice, images)).values())
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
    model = network(BODIES[body])
    assert equalized_factors(model, images)["first"] > 8
    assert "last" not in sources(model)


def shared(x: Any) -> Any:
    twice = layers.Conv2D(6, 1, name="twice")
    return twice(twice(x))


OBSTACLES = {
    "an addition": lambda x: layers.Add()([x, layers.MaxPooling2D(3, 1, "same")(x)]),
    "an operation that is no layer": lambda x: x * 2.0,
    "a bounded activation": lambda x: layers.ReLU(6.0)(x),
    "an activation that is not homogeneous": lambda x: layers.Activation("gelu")(x),
    "a convolution in groups": lambda x: layers.Conv2D(4, 1, groups=2)(x),
    "a layer called twice": shared,
    "a concatenation of rows": lambda x: layers.Concatenate(axis=1)([x, x]),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_channels_that_something_else_reads_are_left_alone(obstacle: str, images: Any) -> None:
    model = network(OBSTACLES[obstacle])
    equalized_factors(model, images)
    assert "first" not in sources(model)


def test_a_dead_channel_keeps_its_weights(images: Any) -> None:
    model = network(lambda x: x)
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., 2], bias[2] = 0, -1
    model.get_layer("first").set_weights([kernel, bias])
    copy = equalize(model, images[:2, :16, :16])
    np.testing.assert_array_equal(copy.get_layer("first").kernel.numpy()[..., 2], kernel[..., 2])
    assert copy.get_layer("first").bias.numpy()[2] == -1

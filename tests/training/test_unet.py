"""The article's network: its size, its order of layers, its boundary."""

from __future__ import annotations

from itertools import pairwise

import keras
import numpy as np
import pytest

from unet_training.build import build_model, build_training_model, make_objective, resolve_precision
from unet_training.models import ARCHITECTURES
from unet_training.models.unet import build
from unet_training.recipes import PRESETS


def _parameters(filters: int, classes: int = 3, depth: int = 4) -> int:
    """The same sum on paper: weights and biases of every convolution, four numbers a channel of every norm."""

    def block(inputs: int, outputs: int) -> int:
        return (9 * inputs * outputs + outputs) + (9 * outputs * outputs + outputs) + 2 * 4 * outputs

    widths = [filters * 2**stage for stage in range(depth + 1)]
    encoder = sum(block(inputs, outputs) for inputs, outputs in zip([3, *widths], widths, strict=False))
    decoder = sum((4 * below * width + width) + block(2 * width, width) for width, below in pairwise(widths))
    return encoder + decoder + filters * classes + classes


@pytest.mark.parametrize(("preset", "parameters"), [("article", 31_055_427), ("unet-small", 1_947_027)])
def test_parameters_are_the_article_s(preset: str, parameters: int) -> None:
    model = build_model(PRESETS[preset])
    assert model.count_params() == parameters == _parameters(PRESETS[preset].filters)


def test_each_convolution_is_followed_by_norm_then_relu() -> None:
    kinds = [type(layer).__name__ for layer in build(32, 32, 3, filters=2).layers]
    inner = [index for index, kind in enumerate(kinds) if kind == "Conv2D"][:-1]
    assert len(inner) == 2 * (4 + 1 + 4)
    for index in inner:
        assert kinds[index + 1 : index + 3] == ["BatchNormalization", "Activation"]


def test_filters_double_down_and_halve_up() -> None:
    model = build(32, 32, 3, filters=4)
    widths = [model.get_layer(f"encoder{stage}_conv_a").filters for stage in (1, 2, 3, 4)]
    assert [*widths, model.get_layer("bridge_conv_b").filters] == [4, 8, 16, 32, 64]
    assert [model.get_layer(f"decoder{stage}_up").filters for stage in (4, 3, 2, 1)] == [32, 16, 8, 4]
    assert model.get_layer("decoder1_skip").output.shape == (None, 32, 32, 8)


def test_uint8_goes_in_and_probabilities_come_out() -> None:
    model = build(32, 48, 3, filters=2)
    assert (model.input_shape, model.inputs[0].dtype) == ((None, 32, 48, 3), "uint8")
    photos = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    probabilities = keras.ops.convert_to_numpy(model(photos))
    assert (probabilities.shape, probabilities.dtype) == ((2, 32, 48, 3), np.float32)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)


def test_pixels_are_scaled_inside() -> None:
    rescaled = build(16, 16, 3, filters=2).get_layer("rescale")
    np.testing.assert_allclose(rescaled(np.array([0, 51, 255], np.uint8)), [0, 0.2, 1], atol=1e-7)


@pytest.mark.parametrize("size", [(40, 32), (32, 40), (100, 100)])
def test_a_size_that_the_pooling_does_not_divide_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"{size[0]}x{size[1]}, expected multiples of 16"):
        build(*size, 3, filters=2)


def test_mixed_precision_ends_in_float32_and_leaves_the_global_policy() -> None:
    recipe = PRESETS["demo"]
    model = build_training_model(recipe, "mixed_bfloat16", make_objective(recipe, None))
    assert model.get_layer("bridge_conv_a").compute_dtype == "bfloat16"
    assert model.outputs[0].dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_precision_auto_becomes_one_that_keras_knows() -> None:
    assert resolve_precision("auto") in ("float32", "mixed_bfloat16")
    assert resolve_precision("mixed_float16") == "mixed_float16"


def test_every_preset_names_an_architecture_and_a_size_it_takes() -> None:
    for recipe in PRESETS.values():
        assert recipe.architecture in ARCHITECTURES
        assert recipe.size % 16 == 0

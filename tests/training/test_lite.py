"""U-Net around EfficientNet-Lite: the encoder as published, a small decoder, its own learning rate."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from unet_training.models import ENCODER_PREFIX, builder, efficientnet_lite
from unet_training.models.efficientnet_lite import SCALINGS
from unet_training.optimizers import PartwiseAdamW

PARAMETERS = {"lite": 4_652_008, "lite1": 5_416_680, "lite2": 6_092_072}
"""Parameters of the classifiers: 4.7, 5.4 and 6.1 million, as tensorflow/tpu publishes them."""


def decoder_parameters(model: keras.Model) -> int:
    count = 0
    for weight in model.trainable_weights:
        if not weight.path.startswith(ENCODER_PREFIX):
            count += int(np.prod(weight.shape))
    return count


@pytest.mark.parametrize("name", SCALINGS)
def test_the_classifier_is_as_large_as_published(name: str) -> None:
    classifier = efficientnet_lite.classifier(SCALINGS[name])
    assert sum(int(np.prod(weight.shape)) for weight in classifier.trainable_weights) == PARAMETERS[name]


def test_the_encoder_halves_as_often_as_asked() -> None:
    photos = keras.Input((64, 96, 3))
    features = efficientnet_lite.encoder(photos, SCALINGS["lite"], 5)
    shapes = [tuple(each.shape[1:]) for each in features]
    assert shapes == [(32, 48, 16), (16, 24, 24), (8, 12, 40), (4, 6, 112), (2, 3, 320)]
    assert [tuple(each.shape) for each in efficientnet_lite.encoder(photos, SCALINGS["lite"], 4)] == [
        tuple(each.shape) for each in features[:4]
    ]


def test_a_depth_that_the_encoder_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="depth 6, expected 1 to 5"):
        builder("lite")(64, 64, 3, depth=6)


def test_pixels_reach_the_encoder_as_it_was_trained() -> None:
    rescale = builder("lite")(32, 32, 3).get_layer("rescale")
    pixels = np.array([0, 127, 255], np.uint8).reshape(1, 1, 1, 3)
    expected = (np.array([0.0, 127.0, 255.0]) - 127) / 128
    np.testing.assert_allclose(keras.ops.convert_to_numpy(rescale(pixels)).ravel(), expected, atol=1e-6)


def test_width_is_the_decoder_s_alone() -> None:
    narrow, wide = builder("lite")(32, 32, 3, filters=8), builder("lite")(32, 32, 3, filters=16)
    assert 2 < decoder_parameters(wide) / decoder_parameters(narrow) < 4
    encoders = []
    for model in (narrow, wide):
        encoders.append([tuple(weight.shape) for weight in model.weights if weight.path.startswith(ENCODER_PREFIX)])
    assert encoders[0] == encoders[1]
    assert len(encoders[0]) == 240


def test_it_answers_each_pixel() -> None:
    photos = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    answers = keras.ops.convert_to_numpy(builder("lite")(64, 64, 3, filters=8)(photos))
    assert answers.shape == (2, 64, 64, 3)
    np.testing.assert_allclose(answers.sum(axis=-1), 1, atol=1e-5)


def test_fewer_stages_make_it_smaller() -> None:
    whole, without_last = builder("lite")(64, 64, 3, filters=8), builder("lite")(64, 64, 3, filters=8, depth=4)
    assert without_last.count_params() < whole.count_params() / 3


def test_averages_forget_as_fast_as_asked() -> None:
    """The encoder's too."""
    model = builder("lite")(32, 32, 3, depth=1, norm_momentum=0.9)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {norm.momentum for norm in norms} == {0.9}


def test_the_encoder_s_learning_rate_is_its_own() -> None:
    """Adam's first step is the learning rate, whatever the gradient."""
    moved = {}
    for prefix in (ENCODER_PREFIX, "decoder"):
        variable = keras.Variable(np.ones((2, 2), np.float32), name="kernel")
        variable._path = f"{prefix}stem/kernel"
        moved[prefix] = variable
    optimizer = PartwiseAdamW(0.1, ENCODER_PREFIX, 0.25, weight_decay=0.0)
    optimizer.apply([keras.ops.ones((2, 2)) * 3, keras.ops.ones((2, 2)) * 7], list(moved.values()))
    steps = [1 - float(keras.ops.convert_to_numpy(variable)[0, 0]) for variable in moved.values()]
    assert steps == pytest.approx([0.025, 0.1], rel=1e-4)

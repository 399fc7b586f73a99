"""The family: as large as the papers and the published codes say, of standard layers, for the sizes they take."""

from __future__ import annotations

import functools
import inspect
import json
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from unet_training.encoder_weights import PUBLISHED as PUBLISHED_ENCODERS
from unet_training.models import ARCHITECTURES, builder, unet2015
from unet_training.report.stages import stages

PUBLISHED = {
    # The article's builder with one class, as its model summary and every copy of it print: 31,055,297.
    "unet": (31_055_297, 0),
    # The paper names no count. Its layers add up to this for RGB and one class: 3x3 and 2x2 convolutions with biases.
    "unet2015": (31_031_745, 0),
    # LeeJunHyun/Image_Segmentation, AttU_Net and R2U_Net for RGB and one class, by torch's count of parameters; of the
    # second without the norms that each application but the first has here.
    "attention": (34_878_573, 0),
    "recurrent-residual": (39_091_393, 0),
    # Zhang 2018, table I: 7.8 M; 5 % more are the 1x1 shortcuts' norms and the biases that the paper leaves out.
    "residual": (7_800_000, 0.06),
    # Jegou 2017, table 1, FC-DenseNet103: 9.4 M.
    "dense": (9_400_000, 0.01),
}
"""Trainable parameters, and by what share they may differ; of ``unet`` all parameters, as Keras prints them."""

COUNTED = {
    "ladder": 879_681,
    "canet": 524_169,
    "edge-fast": 2_013_785,
    "lite": 3_728_505,
    "lite-slim": 3_064_977,
    "lite1": 4_493_177,
    "lite2": 5_154_489,
}
"""Trainable parameters where nothing is published to hold them against."""

STANDARD = {name for name in dir(keras.layers) if not name.startswith("_")}
SMALL: dict[str, Any] = {"filters": 4, "depth": 2}
WIDER = ("lite-slim", "lite1", "lite2")
"""``lite`` with other numbers of the same layers."""
SIDE = {"unet2015": 60}
"""Input pixels where 32 will not do."""


def trainable(model: keras.Model) -> int:
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)


@functools.cache
def small(name: str, side: int | None = 0, **changes: Any) -> keras.Model:
    """Built once for all tests: none asks what its weights are, or leaves anything else changed."""
    side = SIDE.get(name, 32) if side == 0 else side
    return builder(name)(side, side, 3, **SMALL | changes)


def test_every_architecture_is_counted() -> None:
    assert {*PUBLISHED, *COUNTED} == {*ARCHITECTURES}


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no architecture 'u-net', expected one of unet, unet2015, "):
        builder("u-net")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_at_the_standard_width_it_is_as_large_as_published(name: str) -> None:
    model = builder(name)(None, None, 1)
    count = model.count_params() if name == "unet" else trainable(model)
    if name == "recurrent-residual":
        own = [weight for weight in model.trainable_weights if re.search(r"_norm[12]/", weight.path)]
        count -= sum(int(np.prod(weight.shape)) for weight in own)
    published, share = PUBLISHED.get(name) or (COUNTED[name], 0)
    assert abs(count - published) <= share * published
    table = stages(model)  # of the report
    assert sum(stage.parameters for stage in table) == model.count_params()
    assert len(table) < 25


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_it_is_built_of_standard_layers_and_holds_no_code(name: str) -> None:
    """So its file loads wherever Keras is, with nothing of this package."""
    model = small(name)
    assert {type(layer).__name__ for layer in model.layers} <= STANDARD - {"Lambda"}
    for layer in model.layers:
        assert type(layer).__module__.startswith("keras."), layer.name
    assert "__lambda__" not in json.dumps(model.get_config())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_what_is_saved_answers_as_before(name: str, tmp_path: Path) -> None:
    model = small(name)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    photos = np.random.default_rng(0).integers(0, 256, (2, *model.input_shape[1:]), dtype=np.uint8)
    first, second = (keras.ops.convert_to_numpy(each(photos, training=False)) for each in (model, loaded))
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_built_for_any_size_it_has_the_same_weights(name: str) -> None:
    """A training is of any size, the model that is kept of one."""
    fixed, free = small(name), small(name, None)
    assert [(w.path, tuple(w.shape)) for w in fixed.weights] == [(w.path, tuple(w.shape)) for w in free.weights]
    free.set_weights(fixed.get_weights())
    photos = np.random.default_rng(0).integers(0, 256, (1, *fixed.input_shape[1:]), dtype=np.uint8)
    first, second = (keras.ops.convert_to_numpy(each(photos, training=False)) for each in (fixed, free))
    np.testing.assert_allclose(first, second, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in WIDER])
def test_every_weight_learns(name: str) -> None:
    """Operation by operation: a graph of each network's training would take ten times as long to build."""
    model = small(name)
    photos = np.random.default_rng(0).integers(0, 256, (2, *model.input_shape[1:]), dtype=np.uint8)
    labels = np.random.default_rng(1).integers(0, 3, (2, *model.output_shape[1:3]))
    with tf.GradientTape() as tape:
        loss = keras.ops.mean(keras.losses.sparse_categorical_crossentropy(labels, model(photos, training=True)))
    gradients = tape.gradient(loss, [weight.value for weight in model.trainable_weights])
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        assert gradient is not None, weight.path
        assert np.isfinite(gradient).all(), weight.path
    assert np.mean([np.abs(gradient).max() > 0 for gradient in gradients]) > 0.9  # ReLU closes some in a small network


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name not in PUBLISHED_ENCODERS])
def test_width_and_depth_are_the_user_s(name: str) -> None:
    narrow, wide = small(name), small(name, filters=8)
    assert 2.5 < trainable(wide) / trainable(narrow) < 4.2
    assert trainable(narrow) < trainable(small(name, None, depth=3))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_size_it_cannot_halve_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="input size 33x33, expected"):
        small(name, 33)


def test_builders_have_one_signature() -> None:
    signatures = [inspect.signature(build).parameters for build in map(builder, ARCHITECTURES)]
    assert len({tuple(signature) for signature in signatures}) == 1


@pytest.mark.parametrize("name", ["unet", "attention", "recurrent-residual", "dense", "canet", "edge-fast", "lite"])
def test_every_pixel_of_the_photo_has_an_answer(name: str) -> None:
    assert small(name).output_shape == (None, 32, 32, 3)


@pytest.mark.parametrize(
    ("depth", "side", "answer"), [(4, 572, 388), (4, 204, 20), (3, 188, 100), (2, 60, 20), (1, 22, 6)]
)
def test_unpadded_convolutions_leave_the_paper_s_pixels(depth: int, side: int, answer: int) -> None:
    model = builder("unet2015")(side, side, 2, filters=1, depth=depth)
    assert model.output_shape == (None, answer, answer, 2)
    assert side - 2 * unet2015.margin(depth) == answer


def test_an_unpadded_answer_has_seen_real_pixels_only() -> None:
    """The same pixels in a larger photo: the same answer."""
    keras.utils.set_random_seed(0)
    model = builder("unet2015")(None, None, 3, filters=2, depth=2)
    photo = np.random.default_rng(0).integers(0, 256, (1, 68, 68, 3), dtype=np.uint8)
    whole, part = (keras.ops.convert_to_numpy(model(each)) for each in (photo, photo[:, 4:64, 4:64]))
    np.testing.assert_allclose(whole[:, 4:24, 4:24], part, atol=1e-6)

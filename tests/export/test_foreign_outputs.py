"""What foreign models give and take, brought under the contract: masks as their users would have made them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest
from keras import layers, ops

from unet_export.errors import ExportError
from unet_export.foreign.inputs import PREPROCESSING
from unet_export.foreign.load import Description, load_model, parse_classes

SIDE = 32
CLASSES = parse_classes("pet,background,border:neutral")
TWO = parse_classes("background,pet")

Pictures = npt.NDArray[np.uint8]


@pytest.fixture
def pictures() -> Pictures:
    return np.random.default_rng(3).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)


def features(image: Any, filters: int = 6) -> Any:
    return layers.Conv2D(filters, 3, padding="same", activation="relu")(image)


def adapted(model: Any, folder: Path, **description: Any) -> tuple[Any, Any]:
    """(model under the contract, its spec)"""
    path = folder / "theirs.keras"
    model.save(path)
    described = {"classes": CLASSES, "pixels": "0..1"} | description
    return load_model(path, Description(**described))


def image_of(channels: int = 3, side: int | None = SIDE) -> Any:
    return keras.Input((side, side, channels))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(11)


# --- one channel -----------------------------------------------------------------------------------


def sigmoid_head(x: Any) -> Any:
    return layers.Conv2D(1, 1, activation="sigmoid")(x)


def sigmoid_layer(x: Any) -> Any:
    return layers.Activation("sigmoid")(layers.UpSampling2D(2)(layers.Conv2D(1, 1, strides=2)(x)))


def sigmoid_operation(x: Any) -> Any:
    return ops.sigmoid(layers.Conv2D(1, 1)(x))


def flattened_sigmoid(x: Any) -> Any:
    return layers.Activation("sigmoid")(layers.Reshape((SIDE * SIDE, 1))(layers.Conv2D(1, 1)(x)))


def without_channel(x: Any) -> Any:
    return layers.Reshape((SIDE, SIDE))(layers.Conv2D(1, 1, activation="sigmoid")(x))


def enlarged_probability(x: Any) -> Any:
    return layers.UpSampling2D(2, interpolation="bilinear")(layers.Conv2D(1, 1, strides=2, activation="sigmoid")(x))


@pytest.mark.parametrize(
    "head",
    [sigmoid_head, sigmoid_layer, sigmoid_operation, flattened_sigmoid, without_channel, enlarged_probability],
)
def test_one_channel_becomes_two_classes(head: Callable[[Any], Any], tmp_path: Path, pictures: Pictures) -> None:
    image = image_of()
    model = keras.Model(image, head(features(image)))
    probability = model(pictures / 255).numpy().reshape(2, SIDE, SIDE)
    for names in ("background,pet", "pet,background", "pet"):
        made, spec = adapted(model, tmp_path, classes=parse_classes(names))
        result = made(pictures).numpy()
        object_id = spec.class_names.index("pet")
        np.testing.assert_allclose(result[..., object_id], probability, atol=1e-5)
        np.testing.assert_allclose(result[..., 1 - object_id], 1 - probability, atol=1e-5)
        assert spec.output.activation == "softmax"


def test_one_channel_of_logits_is_known_by_its_graph(tmp_path: Path, pictures: Pictures) -> None:
    image = image_of()
    model = keras.Model(image, layers.Conv2D(1, 1)(features(image)))
    made, _ = adapted(model, tmp_path, classes=TWO)
    expected = ops.sigmoid(model(pictures / 255)).numpy()[..., 0]
    np.testing.assert_allclose(made(pictures).numpy()[..., 1], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "activation", "classes", "reason"),
    [
        (1, "sigmoid", CLASSES, "1 channel, 3 classes were named: .*--classes pet"),
        (1, "softmax", TWO, "a softmax, which is 1 everywhere"),
        (2, "softmax", CLASSES, "gives 2 channels, 3 classes were named"),
    ],
)
def test_channels_that_do_not_fit_the_classes(
    channels: int, activation: str, classes: Any, reason: str, tmp_path: Path
) -> None:
    image = image_of()
    model = keras.Model(image, layers.Conv2D(channels, 1, activation=activation)(features(image)))
    with pytest.raises(ExportError, match=reason):
        adapted(model, tmp_path, classes=classes)


# --- shapes ----------------------------------------------------------------------------------------


def test_a_flattened_map_and_one_at_a_quarter_have_the_photo_s_size(tmp_path: Path, pictures: Pictures) -> None:
    image = image_of()
    small = layers.Conv2D(3, 1, strides=4, activation="softmax")(features(image))
    flat = layers.Reshape(((SIDE // 4) ** 2, 3))(small)
    made, spec = adapted(keras.Model(image, flat), tmp_path)
    expected = layers.UpSampling2D(4, interpolation="bilinear")(keras.Model(image, small)(pictures / 255)).numpy()
    np.testing.assert_allclose(made(pictures).numpy(), expected, atol=1e-5)
    assert (spec.output.height, spec.input.margin) == (SIDE, 0)


def decided_by_operation(x: Any) -> Any:
    return ops.argmax(x, axis=-1)


def decided_with_channel(x: Any) -> Any:
    return ops.expand_dims(ops.cast(ops.argmax(x, axis=-1), "uint8"), -1)


@pytest.mark.parametrize("decide", [decided_by_operation, decided_with_channel])
def test_an_argmax_inside_gives_way_to_what_it_decides(
    decide: Callable[[Any], Any], tmp_path: Path, pictures: Pictures
) -> None:
    image = image_of()
    probabilities = layers.Conv2D(3, 1, activation="softmax")(features(image))
    made, _ = adapted(keras.Model(image, decide(probabilities)), tmp_path)
    expected = keras.Model(image, probabilities)(pictures / 255).numpy()
    np.testing.assert_allclose(made(pictures).numpy(), expected, atol=1e-5)


def test_class_ids_without_their_source_are_spread_over_the_classes(tmp_path: Path, pictures: Pictures) -> None:
    image = image_of()
    model = keras.Model(image, ops.cast(ops.sum(image, axis=-1) > 1.5, "int32") * 2)
    made, _ = adapted(model, tmp_path)
    result = made(pictures).numpy()
    assert (result.argmax(axis=-1) == model(pictures / 255).numpy()).all()
    assert set(np.unique(result)) == {0.0, 1.0}


def test_of_several_outputs_one_is_named(tmp_path: Path, pictures: Pictures) -> None:
    image = image_of()
    x = features(image)
    names = ("deep", "final")
    heads = [layers.Conv2D(3, 1, activation="softmax", name=name)(x) for name in names]
    model = keras.Model(image, heads)
    with pytest.raises(ExportError, match=r"has 2 outputs \(deep \(32, 32, 3\), final .*--output-name"):
        adapted(model, tmp_path)
    with pytest.raises(ExportError, match="no output 'last', expected one of deep, final"):
        adapted(model, tmp_path, output_name="last")
    made, _ = adapted(model, tmp_path, output_name="final")
    np.testing.assert_allclose(made(pictures).numpy(), model(pictures / 255)[1].numpy(), atol=1e-5)


def test_unpadded_convolutions_have_a_margin_and_a_grid_that_does_not_divide_has_none(tmp_path: Path) -> None:
    image = image_of()
    x = image
    for _ in range(4):
        x = layers.Conv2D(4, 3, activation="relu")(x)
    _, spec = adapted(keras.Model(image, layers.Conv2D(3, 1, activation="softmax")(x)), tmp_path)
    assert (spec.input.margin, spec.output.height) == (4, SIDE - 8)
    odd = image_of(side=SIDE - 2)
    x = layers.UpSampling2D(4)(layers.MaxPooling2D(4)(layers.Conv2D(6, 3, padding="same")(odd)))
    model = keras.Model(odd, layers.Conv2D(3, 1, activation="softmax")(x))
    with pytest.raises(ExportError, match="gives 28x28 for 30x30, expected a class for each pixel"):
        adapted(model, tmp_path)


def test_a_model_of_any_size_gets_one(tmp_path: Path) -> None:
    image = image_of(side=None)
    model = keras.Model(image, layers.Conv2D(3, 1, activation="softmax")(features(image)))
    assert adapted(model, tmp_path)[1].input.height == 256
    assert adapted(model, tmp_path, size=(32, 64))[1].output.width == 64


@pytest.mark.parametrize("result", [layers.GlobalAveragePooling2D(), layers.Flatten()])
def test_a_model_without_a_map_is_refused(result: Any, tmp_path: Path) -> None:
    image = image_of()
    with pytest.raises(ExportError, match="is no map of classes"):
        adapted(keras.Model(image, layers.Dense(10)(result(features(image)))), tmp_path)


# --- channels of the input -------------------------------------------------------------------------


def test_grey_and_opaque_inputs_are_made_of_the_photo(tmp_path: Path, pictures: Pictures) -> None:
    scaled = pictures / 255
    grey = scaled @ np.array([[0.299], [0.587], [0.114]])
    opaque = np.concatenate([scaled, np.ones((2, SIDE, SIDE, 1))], axis=-1)
    for channels, fed, named in ((1, grey, None), (4, opaque, "rgba")):
        image = image_of(channels)
        model = keras.Model(image, layers.Conv2D(3, 1, activation="softmax")(features(image)))
        made, _ = adapted(model, tmp_path, channels=named)
        np.testing.assert_allclose(made(pictures).numpy(), model(fed).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("channels", "named", "reason"),
    [
        (4, None, "say --channels rgba if the fourth is opacity"),
        (3, "grey", "takes pictures of 3 channels, --channels says grey"),
        (6, None, "takes pictures of 6 channels, expected 1"),
    ],
)
def test_channels_that_a_photo_does_not_have(channels: int, named: Any, reason: str, tmp_path: Path) -> None:
    image = image_of(channels)
    model = keras.Model(image, layers.Conv2D(3, 1, activation="softmax")(features(image)))
    with pytest.raises(ExportError, match=reason):
        adapted(model, tmp_path, channels=named)


MODULES = {
    "torch": keras.applications.densenet.preprocess_input,
    "imagenet": keras.applications.densenet.preprocess_input,
    "efficientnetb3": keras.applications.densenet.preprocess_input,
    "caffe": keras.applications.vgg16.preprocess_input,
    "vgg19": keras.applications.vgg16.preprocess_input,
    "tf": keras.applications.mobilenet_v2.preprocess_input,
    "mobilenetv2": keras.applications.mobilenet_v2.preprocess_input,
    "resnet34": np.asarray,
}


@pytest.mark.parametrize("name", MODULES)
def test_preprocessing_is_in_the_file(name: str, tmp_path: Path, pictures: Pictures) -> None:
    assert name in PREPROCESSING
    image = image_of()
    model = keras.Model(image, layers.Conv2D(3, 1, activation="softmax", kernel_initializer="ones")(image))
    model.layers[-1].set_weights([np.random.default_rng(1).normal(0, 0.1, (1, 1, 3, 3)), np.zeros(3)])
    made, _ = adapted(model, tmp_path, pixels="0..255", preprocessing=name)
    expected = model(MODULES[name](pictures.astype(np.float32))).numpy()
    np.testing.assert_allclose(made(pictures).numpy(), expected, atol=1e-4)


def test_blue_green_red(tmp_path: Path, pictures: Pictures) -> None:
    image = image_of()
    model = keras.Model(image, layers.Conv2D(3, 1, activation="softmax")(features(image)))
    made, _ = adapted(model, tmp_path, channels="bgr")
    np.testing.assert_allclose(made(pictures).numpy(), model(pictures[..., ::-1] / 255).numpy(), atol=1e-5)


def test_channels_first_become_channels_last(tmp_path: Path, pictures: Pictures) -> None:
    image = keras.Input((3, SIDE, SIDE))
    settings = {"padding": "same", "data_format": "channels_first"}
    x = layers.BatchNormalization(axis=1)(layers.Conv2D(6, 3, **settings)(image))
    x = layers.Concatenate(axis=1)([x, layers.Conv2D(2, 3, activation="relu", **settings)(x)])
    model = keras.Model(image, layers.Conv2D(3, 1, data_format="channels_first")(x))
    model.layers[2].set_weights([np.full(6, value, np.float32) for value in (2, 1, 0.5, 3)])
    made, _ = adapted(model, tmp_path)
    last = keras.Input((SIDE, SIDE, 3))
    settings["data_format"] = "channels_last"
    x = layers.BatchNormalization()(layers.Conv2D(6, 3, **settings)(last))
    x = layers.Concatenate()([x, layers.Conv2D(2, 3, activation="relu", **settings)(x)])
    twin = keras.Model(last, layers.Conv2D(3, 1, activation="softmax")(x))
    twin.set_weights(model.get_weights())
    np.testing.assert_allclose(made(pictures).numpy(), twin(pictures / 255).numpy(), atol=1e-5)

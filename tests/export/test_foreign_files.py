"""Files that people have of their Keras models: read, or refused with what to do."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tests.helpers.paths import REPOSITORY
from unet_export.adopt.reader import read
from unet_export.errors import ExportError
from unet_export.foreign.files import SUFFIXES, Code
from unet_export.foreign.load import Description, load_model, parse_classes
from unet_runtime.core.errors import ModelFileError

SIDE = 16
DATA = REPOSITORY / "tests" / "data"
CLASSES = parse_classes("pet,background,border:neutral")

LAYER = """
import keras


class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def network():
    image = keras.Input((16, 16, 3))
    x = Doubled()(keras.layers.Conv2D(4, 3, padding="same")(image))
    return keras.Model(image, keras.layers.Conv2D(3, 1, activation="softmax")(x))
"""


@pytest.fixture
def pictures() -> Any:
    return np.random.default_rng(3).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)


def network(last: str = "softmax", **settings: Any) -> Any:
    keras.utils.set_random_seed(5)
    image = keras.Input((SIDE, SIDE, 3), **settings)
    x = layers.Conv2D(4, 3, padding="same")(image)
    x = layers.BatchNormalization()(layers.Conv2DTranspose(4, 3, padding="same")(x))
    return keras.Model(image, layers.Conv2D(3, 1, activation=last)(x), name="theirs")


def load(path: Path, **fields: Any) -> Any:
    code = Code(fields.pop("custom_objects", None), fields.pop("build", ""))
    return load_model(path, Description(CLASSES, pixels="0..1", code=code, **fields))[0]


def check_same(path: Path, original: Any, pictures: Any, atol: float = 1e-5, **fields: Any) -> Any:
    made = load(path, **fields)
    expected = np.asarray(keras.ops.convert_to_numpy(original(pictures / 255)), np.float32)
    np.testing.assert_allclose(made(pictures).numpy(), expected, atol=atol)
    return made


def test_h5_of_keras_3(tmp_path: Path, pictures: Any) -> None:
    original = network()
    original.save(tmp_path / "model.h5")
    check_same(tmp_path / "model.h5", original, pictures)


def test_what_keras_2_writes_of_groups_is_left_out(tmp_path: Path, pictures: Any) -> None:
    original = network()
    path = tmp_path / "old.h5"
    original.save(path)
    with h5py.File(path, "r+") as file:
        configuration = json.loads(file.attrs["model_config"])
        for entry in configuration["config"]["layers"]:
            if entry["class_name"] == "Conv2DTranspose":
                entry["config"]["groups"] = 1
        file.attrs["model_config"] = json.dumps(configuration).encode()
    check_same(path, original, pictures)


def check_old(path: Path) -> None:
    saved = np.load(DATA / "keras-2.npz")
    made = load(path)
    np.testing.assert_allclose(made(saved["inputs"]).numpy(), saved["outputs"], atol=1e-6)
    assert not any(hasattr(layer, "layers") for layer in made.layers)


@pytest.mark.parametrize("package", ["tf_keras", "keras"])
def test_keras_file_of_keras_2(package: str, tmp_path: Path) -> None:
    """A file that tf-keras wrote, and the same as its predecessor named modules: inner models, called twice, ..."""
    path = tmp_path / "old.keras"
    with zipfile.ZipFile(DATA / "keras-2.keras") as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            target.writestr(name, source.read(name).replace(b'"tf_keras.', f'"{package}.'.encode()))
    check_old(path)


def test_h5_of_keras_2() -> None:
    check_old(DATA / "keras-2.h5")


def test_calls_of_tensorflow_in_an_old_file_are_named_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "old.h5"
    network().save(path)
    with h5py.File(path, "r+") as file:
        configuration = json.loads(file.attrs["model_config"])
        configuration["config"]["layers"][1] |= {"class_name": "TFOpLambda", "config": {"name": "tf.nn.relu"}}
        file.attrs["model_config"] = json.dumps(configuration).encode()
    with pytest.raises(ExportError, match=r"made by Keras 2, with TFOpLambda tf.nn.relu.*--build"):
        load(path)


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.onnx", "model.tflite"])
def test_what_downloads_leave_in_place_of_a_model(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    look = load if path.suffix in SUFFIXES else read
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1234\n")
    with pytest.raises(ExportError, match="git lfs pull"):
        look(path)
    path.write_bytes(b"\n<!DOCTYPE html><html><head><title>Sign in</title>")
    with pytest.raises(ExportError, match="a web page in place of the model"):
        look(path)


def test_a_description_that_is_too_deep_and_weights_that_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "deep.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "[" * 100_000 + "]" * 100_000)
    with pytest.raises(ExportError, match=r"deep\.keras"):
        load(path)
    broken = network()
    broken.layers[1].bias.assign([np.nan] * 4)
    broken.save(tmp_path / "broken.keras")
    with pytest.raises(ExportError, match="gives NaN or infinity"):
        load(tmp_path / "broken.keras")


def test_weights_alone_need_a_function(tmp_path: Path, pictures: Any) -> None:
    file = tmp_path / "theirs_net.py"
    file.write_text(LAYER)
    code: dict[str, Any] = {}
    exec(LAYER, code)  # what the file above says
    original = code["network"]()
    path = tmp_path / "theirs.weights.h5"
    original.save_weights(path)
    with pytest.raises(ExportError, match=r"weights without a model: .*--build module:function"):
        load(path)
    check_same(path, original, pictures, build=f"{file}:network")
    with pytest.raises(ExportError, match="has no function nothing"):
        load(path, build=f"{file}:nothing")
    image = keras.Input((SIDE, SIDE, 3))
    keras.Model(image, layers.Conv2D(3, 1)(layers.Conv2D(7, 3)(image))).save_weights(path)
    with pytest.raises(ExportError, match=r"its weights do not fit the model that .* makes"):
        load(path, build=f"{file}:network")


def test_custom_layers_come_from_the_file_that_the_user_names(tmp_path: Path, pictures: Any) -> None:
    file = tmp_path / "theirs_layer.py"
    file.write_text(LAYER)
    code: dict[str, Any] = {}
    exec(LAYER, code)
    original = code["network"]()
    path = tmp_path / "theirs.keras"
    original.save(path)
    with pytest.raises(ExportError, match=r"theirs\.keras: Doubled: a class .*--custom-objects FILE\.py"):
        load(path)
    check_same(path, original, pictures, custom_objects=file)
    file.write_text("import nothing_like_it")
    with pytest.raises(ExportError, match=r"theirs_layer\.py: raises ModuleNotFoundError"):
        load(path, custom_objects=file)
    keras.saving.get_custom_objects().clear()


def test_saved_model(tmp_path: Path, pictures: Any) -> None:
    original = network()
    original.export(tmp_path / "saved", verbose=False)
    check_same(tmp_path / "saved", original, pictures)


def test_folders_and_graphs_that_are_no_saved_model_of_keras(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"a folder without saved_model\.pb"):
        load(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(ExportError, match="TensorFlow cannot load it"):
        load(tmp_path)
    with pytest.raises(ExportError, match=r"of a frozen graph .* --graphdef"):
        load(tmp_path / "saved_model.pb")


@pytest.mark.parametrize("resource", [False, True])
def test_saved_model_of_tensorflow_1(resource: bool, tmp_path: Path, pictures: Any) -> None:
    """With sessions, and variables of either kind."""
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        image = v1.placeholder(tf.float32, (None, SIDE, SIDE, 3))
        kernel = v1.get_variable("kernel", (3, 3, 3, 3), use_resource=resource)
        result = tf.nn.softmax(tf.nn.conv2d(image, kernel, 1, "SAME"))
        session.run(v1.global_variables_initializer())
        signature = v1.saved_model.predict_signature_def({"image": image}, {"map": result})
        builder = v1.saved_model.Builder(str(tmp_path / "old"))
        builder.add_meta_graph_and_variables(session, ["serve"], {"serving_default": signature})
        builder.save()
        expected = session.run(result, {image: pictures / 255})
    np.testing.assert_allclose(load(tmp_path / "old")(pictures).numpy(), expected, atol=1e-6)


def test_mixed_precision_is_copied_into_float32(tmp_path: Path, pictures: Any) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        original = network(last="linear")
    finally:
        keras.config.set_dtype_policy("float32")
    original.save(tmp_path / "half.keras")
    made = load(tmp_path / "half.keras")
    assert {layer.compute_dtype for layer in made.layers if layer.weights} == {"float32"}
    expected = keras.ops.softmax(keras.ops.cast(original(pictures / 255), "float32")).numpy()
    np.testing.assert_allclose(made(pictures).numpy(), expected, atol=1e-2)


def test_nested_models_come_apart(tmp_path: Path, pictures: Any) -> None:
    inner = network(last="relu")
    block = keras.Sequential([layers.Conv2D(4, 1, name="conv2d"), layers.ReLU()], name="block")
    image = keras.Input((SIDE, SIDE, 3))
    x = block(inner(image))
    original = keras.Model(image, layers.Conv2D(3, 1, activation="softmax", name="conv2d")(x))
    original.save(tmp_path / "nested.keras")
    made = check_same(tmp_path / "nested.keras", original, pictures)
    names = [layer.name for layer in made.layers]
    assert "block_conv2d" in names
    assert not any(hasattr(layer, "layers") for layer in made.layers)


def test_a_normalization_that_learnt_its_mean_keeps_it(tmp_path: Path, pictures: Any) -> None:
    """As in the EfficientNets of keras.applications: it comes from the file's weights."""
    norm = layers.Normalization()
    norm.adapt(pictures / 255)
    image = keras.Input((SIDE, SIDE, 3))
    original = keras.Model(image, layers.Conv2D(3, 1, activation="softmax")(norm(image)))
    original.save(tmp_path / "theirs.keras")
    made = check_same(tmp_path / "theirs.keras", original, pictures)
    copy = keras.models.clone_model(made)
    copy.set_weights(made.get_weights())
    np.testing.assert_allclose(copy(pictures).numpy(), made(pictures).numpy(), atol=1e-6)


def test_a_transposed_convolution_with_a_stride_above_its_kernel(tmp_path: Path, pictures: Any) -> None:
    image = keras.Input((SIDE, SIDE, 3))
    for padding in ("same", "valid"):
        x = layers.Conv2D(4, 3, strides=3, padding="same")(image)
        x = layers.Conv2DTranspose(3, (2, 1), strides=3, padding=padding)(x)
        original = keras.Model(image, layers.Softmax()(x[:, :SIDE, :SIDE]))
        original.save(tmp_path / "theirs.keras")
        made = check_same(tmp_path / "theirs.keras", original, pictures)
        kernels = [layer.kernel_size for layer in made.layers if type(layer).__name__ == "Conv2DTranspose"]
        assert kernels == [(3, 3)]


def test_a_subclassed_model_is_called_as_a_whole(tmp_path: Path, pictures: Any) -> None:
    @keras.saving.register_keras_serializable("theirs")
    class Subclassed(keras.Model):  # type: ignore[misc]
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.head = layers.Conv2D(3, 3, padding="same", activation="softmax")

        def call(self, x: Any) -> Any:
            return self.head(x)

    original = Subclassed()
    original(pictures / 255)
    original.save(tmp_path / "theirs.keras")
    check_same(tmp_path / "theirs.keras", original, pictures, size=(SIDE, SIDE), head="softmax")


def test_sequential_and_a_batch_of_one(tmp_path: Path, pictures: Any) -> None:
    sequential = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Conv2D(3, 3, padding="same")])
    sequential.save(tmp_path / "chain.keras")
    assert load(tmp_path / "chain.keras").output_shape == (None, SIDE, SIDE, 3)
    single = keras.Input(batch_shape=(1, SIDE, SIDE, 3))
    original = keras.Model(single, layers.Conv2D(3, 1, activation="softmax")(single))
    original.save(tmp_path / "single.keras")
    made = load(tmp_path / "single.keras")
    assert made(pictures).shape[0] == 2


def test_code_inside_a_file_never_runs(tmp_path: Path) -> None:
    image = keras.Input((SIDE, SIDE, 3))
    x = layers.Lambda(lambda x: x, name="surprise")(image)
    for name in ("theirs.keras", "theirs.h5"):
        keras.Model(image, layers.Conv2D(3, 1)(x)).save(tmp_path / name)
        with pytest.raises(ExportError, match=r"Lambda surprise: such a layer is code .* --build function"):
            load(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("net.pt", "a PyTorch file: export it there with torch.onnx, expected .keras"),
        ("net.onnx", "an ONNX file, expected .keras.*unet-export adopt"),
        ("net.xyz", "suffix '.xyz', expected .keras"),
        ("net.h5", "no HDF5 file, or half of one"),
        ("net.keras", "no .keras file, which is a zip with a config.json"),
    ],
)
def test_files_that_are_no_keras_model(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"no model at all")
    with pytest.raises(ExportError, match=reason):
        load(tmp_path / name)
    with pytest.raises(ModelFileError, match="no such file or folder"):
        load(tmp_path / f"absent-{name}")

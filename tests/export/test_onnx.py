"""The ONNX graph: named after the layers, free of the machine, of any size where asked, refused by the layer's name."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from tests.helpers.colours import colour_spec
from tests.helpers.onnx_file import export_onnx
from tests.helpers.tiny import SIZE
from unet_export.errors import ExportError
from unet_export.formats import onnx_convert
from unet_export.formats.flatbuffer import Flatbuffer
from unet_export.formats.onnx_convert import build_onnx, finish
from unet_export.formats.onnx_graph import leave_out_empty_inputs, nodes_of
from unet_export.formats.onnx_optimizers import wrong_optimizers
from unet_export.formats.tflite_convert import export_tflite
from unet_export.quantization import Quantization
from unet_runtime.core.artifact import Artifact, read_artifact
from unet_runtime.core.errors import ModelFileError
from unet_runtime.core.spec import ModelSpec, OutputSpec
from unet_runtime.engines import load
from unet_training.models.unet import build


def run(proto: onnx.ModelProto, images: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})


@pytest.fixture(scope="module")
def plain(model: Any) -> onnx.ModelProto:
    return build_onnx(model, "tiny")


@pytest.fixture(scope="module")
def free(model: Any) -> onnx.ModelProto:
    """Any height and width, and labels."""
    return build_onnx(model, "tiny", dynamic=True, labels=True)


def test_every_layer_that_computes_has_its_node(plain: onnx.ModelProto, model: Any) -> None:
    operators = {node.name: node.op_type for node in plain.graph.node}
    for layer in model.layers:
        expected = {"Conv2D": "Conv", "Conv2DTranspose": "ConvTranspose", "MaxPooling2D": "MaxPool"}
        if kind := expected.get(type(layer).__name__):
            assert operators[layer.name] == kind
    assert {name for name in operators if name.startswith("/")} == {"/Cast_0", "/Transpose_2", "/Transpose_31"}
    assert {value.name for value in plain.graph.initializer} > {"logits_input1", "logits_input2"}
    assert len(operators) == len(plain.graph.node)


def test_batch_normalization_leaves_no_trace(plain: onnx.ModelProto, model: Any, images: Any) -> None:
    operators = [node.op_type for node in plain.graph.node]
    assert (operators.count("Mul"), operators.count("Add")) == (1, 0)  # 1 / 255
    np.testing.assert_allclose(run(plain, images)[0], model(images, training=False).numpy(), atol=1e-5)


def test_a_convolution_that_others_read_too_is_not_folded() -> None:
    rng = np.random.default_rng(2)
    image = keras.Input((16, 16, 3), dtype="uint8", name="image")
    raw = keras.layers.Conv2D(4, 3, padding="same", name="raw")(keras.layers.Rescaling(1 / 127.5, offset=-1)(image))
    norm = keras.layers.BatchNormalization(name="norm")
    x = keras.layers.Concatenate()([raw, norm(raw)])
    network = keras.Model(image, keras.layers.Conv2D(3, 1, activation="softmax", name="head")(x))
    norm.set_weights([rng.uniform(0.5, 2, 4) for _ in range(4)])
    proto = build_onnx(network, "branches")
    assert nodes_of(proto, ["norm"]) == ["norm", "norm/2"]  # Mul and Add
    photo = rng.integers(0, 256, (1, 16, 16, 3), np.uint8)
    np.testing.assert_allclose(run(proto, photo)[0], network(photo, training=False).numpy(), atol=1e-5)


def test_nodes_of_layers_are_found_and_unknown_layers_refused(plain: onnx.ModelProto) -> None:
    assert nodes_of(plain, ["logits", "encoder1_conv_a"]) == ["encoder1_conv_a", "logits"]
    with pytest.raises(ExportError, match=r"layers nonsense: no node.*logits"):
        nodes_of(plain, ["logits", "nonsense"])


def test_keras_own_names_are_told_apart() -> None:
    image = keras.Input((16, 16, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    shared = keras.layers.Conv2D(3, 3, padding="same", name="conv2d")
    x = shared(keras.layers.Activation("relu", name="conv2d_2")(shared(x)))
    x = keras.layers.Conv2D(3, 1, activation="softmax", name="conv2d_1")(x)
    proto = build_onnx(keras.Model(image, x), "twice")
    named = {node.name: node.op_type for node in proto.graph.node if node.name.startswith("conv2d")}
    assert named == {
        "conv2d": "Conv",
        "conv2d_2": "Relu",
        "conv2d/2": "Conv",
        "conv2d_1": "Conv",
        "conv2d_1/2": "Softmax",
    }
    assert nodes_of(proto, ["conv2d"]) == ["conv2d", "conv2d/2"]


def test_a_convolution_of_one_filter_keeps_its_name() -> None:
    """tf2onnx makes a new one, without it, to give it its bias."""
    image = keras.Input((16, 16, 3), dtype="uint8", name="image")
    x = keras.layers.Conv2D(1, 3, padding="same", name="one")(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Conv2D(3, 1, activation="softmax", name="head")(x)
    assert nodes_of(build_onnx(keras.Model(image, x), "one"), ["one"]) == ["one"]


def test_the_model_keeps_its_names_and_the_second_export_its_bytes(model: Any, plain: onnx.ModelProto) -> None:
    names = [layer.name for layer in model.layers]
    assert build_onnx(model, "tiny").SerializeToString(deterministic=True) == plain.SerializeToString(
        deterministic=True
    )
    assert [layer.name for layer in model.layers] == names


def test_another_size_that_is_not_square_equals_keras(free: onnx.ModelProto, model: Any) -> None:
    photos = np.random.default_rng(5).integers(0, 256, (2, 32, 112, 3), np.uint8)
    anysize = build(None, None, 3, filters=4, depth=2)
    anysize.set_weights(model.get_weights())
    probabilities, _ = run(free, photos)
    assert probabilities.shape == (2, 32, 112, 3)
    np.testing.assert_allclose(probabilities, anysize(photos, training=False).numpy(), atol=1e-5)
    sides = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in free.graph.output]
    assert sides == [["batch", "height", "width", 3], ["batch", "height", "width"]]


def test_a_size_left_open_costs_no_node(free: onnx.ModelProto, plain: onnx.ModelProto) -> None:
    assert [node.name for node in free.graph.node][: len(plain.graph.node)] == [node.name for node in plain.graph.node]
    assert [node.op_type for node in free.graph.node][len(plain.graph.node) :] == ["ArgMax", "Cast"]


def test_labels_are_the_most_probable_classes(free: onnx.ModelProto, images: Any) -> None:
    probabilities, labels = run(free, images)
    assert labels.dtype == np.uint8
    assert len(np.unique(labels)) == 3
    np.testing.assert_array_equal(labels, probabilities.argmax(-1))


def test_labels_of_equals_are_the_lower_id(model: Any) -> None:
    even = keras.models.clone_model(model)
    even.set_weights(model.get_weights())
    even.get_layer("logits").set_weights([np.zeros((1, 1, 4, 3)), np.array([0.0, 1.0, 1.0])])
    photo = np.zeros((1, SIZE, SIZE, 3), np.uint8)
    assert (run(build_onnx(even, "even", labels=True), photo)[1] == 1).all()


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_the_runtime_takes_probabilities_beside_labels(
    free: onnx.ModelProto, model: Any, spec: ModelSpec, images: Any, tmp_path: Path, backend: str
) -> None:
    pytest.importorskip(backend.replace("onnx", "onnxruntime"))
    (tmp_path / "tiny.onnx").write_bytes(finish(free, spec, "float32"))
    actual = load(backend, read_artifact(tmp_path / "tiny.onnx"), device="cpu").run(images)
    np.testing.assert_allclose(actual, model(images, training=False).numpy(), atol=1e-5)


def test_openvino_refuses_outputs_without_the_contracts_name(free: onnx.ModelProto, spec: ModelSpec) -> None:
    pytest.importorskip("openvino")
    other = onnx.compose.add_prefix(free, "x_", rename_inputs=False)
    with pytest.raises(ModelFileError, match=r"x_labels.*expected one named probabilities"):
        load("openvino", Artifact(Path("x.onnx"), spec, other.SerializeToString()), device="cpu")


def test_finish_adds_tools_and_provenance(plain: onnx.ModelProto, spec: ModelSpec, tmp_path: Path) -> None:
    (tmp_path / "tiny.onnx").write_bytes(finish(plain, spec, "int8", quantization={"method": "minmax"}))
    found = read_artifact(tmp_path / "tiny.onnx").spec
    assert found.precision == "int8"
    assert found.provenance.quantization == {"method": "minmax"}
    assert found.provenance.tools["onnxruntime"] == onnxruntime.__version__
    assert found.provenance.tools["keras"] == "before"


def test_nothing_of_the_machine_is_inside(model: Any, spec: ModelSpec, tmp_path: Path) -> None:
    content = export_onnx(model, spec)
    for secret in (Path.home(), Path.cwd(), tmp_path, Path(sys.prefix), os.sep + "tmp", "unk__", "StatefulPartitioned"):
        assert str(secret).encode() not in content or len(str(secret)) < 4, f"the file has {secret}"
    assert not any(node.doc_string for node in onnx.load_from_string(content).graph.node)


# --- what cannot be converted ----------------------------------------------------------------------


class Inverse(keras.layers.Layer):
    """An operator that ONNX has not."""

    def call(self, x: Any) -> Any:
        return keras.ops.erfinv(x)


def test_an_operator_that_onnx_lacks_is_refused_by_its_layer(tmp_path: Path) -> None:
    image = keras.Input((16, 16, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = Inverse(name="inverse_erf")(x)
    x = keras.layers.Conv2D(3, 1, activation="softmax", name="head")(x)
    with pytest.raises(ExportError, match=r"cannot convert layer inverse_erf: .*Erfinv") as raised:
        build_onnx(keras.Model(image, x), "bad")
    assert "head" not in str(raised.value).partition(":")[0]


@pytest.mark.parametrize("method", ["bicubic", "lanczos3"])
def test_smooth_resizing_is_the_same_in_every_engine(method: str, spec: ModelSpec, tmp_path: Path) -> None:
    """LiteRT has no such operator, ONNX no Lanczos, and OpenVINO's cubic is another one."""
    image = keras.Input((16, 16, 3), dtype="uint8", name="image")
    x = keras.layers.Resizing(24, 40, interpolation=method)(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.UpSampling2D((2, 3), interpolation="bicubic")(x)
    network = keras.Model(image, keras.layers.Conv2D(3, 1, activation="softmax")(x))
    pictures = np.random.default_rng(2).integers(0, 256, (1, 16, 16, 3), np.uint8)
    expected = network(pictures, training=False).numpy()
    proto = build_onnx(network, "smooth")
    assert "Resize" not in {node.op_type for node in proto.graph.node}
    np.testing.assert_allclose(run(proto, pictures)[0], expected, atol=1e-5)
    flatbuffer = Flatbuffer(export_tflite(network, "float32", spec, None, Quantization(), tmp_path))
    assert not any(entry.custom for entry in flatbuffer.operators)


def test_zeros_in_front_of_max_pooling_stay_zeros() -> None:
    """ONNX Runtime takes them for the padding of the pool, which is less than any value."""
    keras.utils.set_random_seed(4)
    image = keras.Input((16, 16, 3), dtype="uint8", name="image")
    x = keras.layers.Conv2D(6, 3, padding="same", bias_initializer=keras.initializers.Constant(-3))(
        keras.layers.Rescaling(1 / 255)(image)
    )
    x = keras.layers.MaxPooling2D(3, strides=2)(keras.layers.ZeroPadding2D(1)(x))
    network = keras.Model(image, keras.layers.Conv2D(3, 1, activation="softmax")(x))
    pictures = np.random.default_rng(2).integers(0, 256, (2, 16, 16, 3), np.uint8)
    actual = run(build_onnx(network, "pool"), pictures)[0]
    np.testing.assert_allclose(actual, network(pictures, training=False).numpy(), atol=1e-5)


def test_empty_inputs_of_a_resize_are_left_out() -> None:
    """Behind conversions to float16 they are no constants, and beside sizes ONNX Runtime refuses factors."""
    empty = numpy_helper.from_array(np.zeros(0, np.float32), "none")
    sizes = numpy_helper.from_array(np.array([1, 3, 8, 8], np.int64), "sizes")
    node = helper.make_node("Resize", ["x", "none", "none", "sizes"], ["y"])
    graph = helper.make_graph([node], "resize", [], [], [empty, sizes])
    leave_out_empty_inputs(graph)
    assert list(graph.node[0].input) == ["x", "", "", "sizes"]


def test_an_optimiser_that_gets_a_keras_model_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``adopt`` has it; without the guard against it, the one that is known."""
    monkeypatch.setattr(onnx_convert, "guard_zero_padding", lambda graph: None)
    image = keras.Input((32, 32, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(-1 / 255)(image)
    x = keras.layers.ZeroPadding2D(1)(keras.layers.DepthwiseConv2D(1, depthwise_initializer="ones", use_bias=False)(x))
    network = keras.Model(image, keras.layers.Activation("sigmoid")(keras.layers.MaxPooling2D(3, strides=2)(x)))
    spec = replace(colour_spec(), output=OutputSpec(16, 16, "sigmoid"))
    artifact = Artifact(Path("pool.onnx"), spec, export_onnx(network, spec))
    assert wrong_optimizers(artifact) == ("Pad_Fusion",)
    right = replace(spec, disabled_optimizers=("Pad_Fusion",))
    assert wrong_optimizers(artifact._replace(spec=right)) == ("Pad_Fusion",)
    assert wrong_optimizers(artifact._replace(spec=replace(spec, precision="int8"))) == ()


def test_constants_from_outside_are_no_inputs() -> None:
    image = keras.Input((16, 16, 3), dtype="uint8", name="image")
    x = keras.layers.Normalization(mean=(100, 120, 90), variance=(40, 50, 60))(image)
    x = keras.layers.Activation("gelu")(keras.layers.Conv2D(6, 3)(x))
    network = keras.Model(image, keras.layers.Conv2D(3, 1, activation="softmax")(x))
    pictures = np.random.default_rng(2).integers(0, 256, (2, 16, 16, 3), np.uint8)
    proto = build_onnx(network, "normal")
    assert [value.name for value in proto.graph.input] == ["image"]
    np.testing.assert_allclose(run(proto, pictures)[0], network(pictures, training=False).numpy(), atol=1e-5)


def test_a_transpose_of_the_models_own_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    image = keras.Input((16, 16, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(3, 3, padding="same")(keras.layers.Permute((2, 1, 3))(x))
    x = keras.layers.Conv2D(3, 1, activation="softmax")(keras.layers.Permute((3, 1, 2))(x))
    build_onnx(keras.Model(image, x), "odd")
    assert "Transpose nodes, where the layouts of input and output need 2" in caplog.text


ODD_LAYERS = {
    "96 of 200 pixels is 95.99 in float32": (200, lambda: [keras.layers.Resizing(96, 96)]),
    "the same by nearest pixels": (50, lambda: [keras.layers.Resizing(24, 24, interpolation="nearest")]),
    "means of areas": (20, lambda: [keras.layers.Resizing(9, 7, interpolation="area")]),
    "convolutions in groups": (
        16,
        lambda: [
            keras.layers.Conv2D(6, 3, groups=3, strides=2),
            keras.layers.Conv2D(4, 3, groups=2, activation="relu"),
        ],
    ),
    "transposed with gaps": (
        16,
        lambda: [
            keras.layers.Conv2D(4, 3, strides=4, padding="same"),
            keras.layers.Conv2DTranspose(6, 2, strides=4, padding="same", bias_initializer="ones"),
        ],
    ),
    "transposed with gaps, other sizes": (
        15,
        lambda: [
            keras.layers.Conv2D(4, 3, strides=3, padding="same"),
            keras.layers.Conv2DTranspose(6, (2, 1), strides=3, padding="same"),
        ],
    ),
}


@pytest.mark.parametrize("case", ODD_LAYERS)
def test_what_tf2onnx_converts_wrongly_or_not_at_all(case: str) -> None:
    keras.utils.set_random_seed(5)
    size, layers = ODD_LAYERS[case]
    image = keras.Input((size, size, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    for layer in layers():
        x = layer(x)
    network = keras.Model(image, keras.layers.Conv2D(3, 1, activation="softmax")(x))
    pictures = np.random.default_rng(2).integers(0, 256, (2, size, size, 3), np.uint8)
    actual = run(build_onnx(network, "odd"), pictures)[0]
    np.testing.assert_allclose(actual, network.predict(pictures, verbose=0), atol=1e-5)


@pytest.mark.parametrize("factors", [(2, 2), (3, 2)])
def test_repeated_pixels_are_one_operator_in_every_format(
    factors: tuple[int, int], images: Any, spec: ModelSpec, tmp_path: Path
) -> None:
    """Keras repeats rows and columns by reshapes and tiles of five dimensions, which no converter sees through."""
    image = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="image")
    x = keras.layers.Conv2D(4, 3, strides=factors, padding="same", name="down")(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.UpSampling2D(factors, name="enlarge")(x)
    x = keras.layers.Conv2D(3, 1, activation="softmax", name="probabilities")(x[:, :SIZE, :SIZE])
    network = keras.Model(image, x)
    before = network.get_layer("enlarge").call
    proto = build_onnx(network, "enlarging")
    assert [node.op_type for node in proto.graph.node].count("Resize") == 1
    assert not {"Tile", "Shape"} & {node.op_type for node in proto.graph.node}
    np.testing.assert_allclose(run(proto, images)[0], network(images, training=False).numpy(), atol=1e-5)
    flatbuffer = Flatbuffer(export_tflite(network, "float32", spec, None, Quantization(), tmp_path))
    assert [entry.kind for entry in flatbuffer.operators].count("RESIZE_NEAREST_NEIGHBOR") == 1
    assert network.get_layer("enlarge").call == before

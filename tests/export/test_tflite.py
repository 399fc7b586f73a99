"""An int8 file is integer throughout, fed with the photo's own bytes, and its head tells classes apart."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert.compiled_model import CompiledModel
from ai_edge_litert.interpreter import Interpreter

from tests.helpers.tiny import SIZE
from unet_export.errors import ExportError
from unet_export.formats.flatbuffer import WEIGHTED, Flatbuffer
from unet_export.formats.tflite_check import check
from unet_export.formats.tflite_convert import export_tflite
from unet_export.formats.tflite_head import decisive
from unet_export.formats.tflite_quantize import sample
from unet_export.photos import sha256
from unet_export.quantization import Quantization
from unet_runtime import Segmenter
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.spec import ModelSpec

Export = Callable[..., bytes]


@pytest.fixture(scope="module")
def export(model: Any, spec: ModelSpec, images: Any, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """An int8 file of the tiny model, quantised as the keywords say."""

    def build(calibration: Any = images, **quantization: Any) -> bytes:
        work = tmp_path_factory.mktemp("work")
        settings = Quantization(photos=len(calibration), **quantization)
        return export_tflite(model, "int8", spec, calibration, settings, work)

    return build


@pytest.fixture(scope="module")
def int8(export: Export) -> bytes:
    return export()


def small_model(*layers: Any, size: int = 32) -> keras.Model:
    """A network that holds ``layers`` between its first convolution and its head."""
    image = x = keras.Input((size, size, 3), dtype="uint8", name="image")
    x = keras.layers.Conv2D(8, 3, strides=2, padding="same", name="down")(keras.layers.Rescaling(1 / 255)(x))
    for layer in layers:
        x = layer(x)
    x = keras.layers.Conv2D(3, 1, name="logits")(keras.layers.UpSampling2D(2)(x))
    return keras.Model(image, keras.layers.Softmax(name="probabilities")(x), name="small")


def activation_types(content: bytes) -> dict[str, str]:
    """Type of the output of each operator with weights, by the first of its names."""
    flatbuffer = Flatbuffer(content)
    weighted = [entry.outputs[0] for entry in flatbuffer.operators if entry.kind in WEIGHTED]
    return {flatbuffer.name(index): flatbuffer.type(index) for index in weighted}


@pytest.fixture(scope="module")
def finer(export: Export) -> bytes:
    """The same with 16-bit probabilities."""
    return export(finer_head=True)


def probabilities(content: bytes, images: Any, folder: Path) -> Any:
    """What the runtime makes of a file's output, one photo at a time."""
    path = folder / "file.tflite"
    path.write_bytes(content)
    with Segmenter(path) as segmenter:
        return np.concatenate([segmenter.infer(image[np.newaxis]) for image in images])


def test_the_input_is_the_photo_and_the_output_are_logits_in_8_bits(int8: bytes, tmp_path: Path) -> None:
    interpreter = Interpreter(model_content=int8)
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert source["dtype"] is np.uint8
    assert source["shape"].tolist() == [1, SIZE, SIZE, 3]
    assert source["quantization"] == (1.0, 0)
    assert result["dtype"] is np.int8
    scale, zero_point = result["quantization"]
    assert scale * (-128 - zero_point) > -6  # what decides a pixel, and no more
    (tmp_path / "tiny.int8.tflite").write_bytes(int8)
    assert read_artifact(tmp_path / "tiny.int8.tflite").spec.output.logits


def test_no_tensor_has_more_than_8_bits_but_biases_and_sizes(int8: bytes) -> None:
    flatbuffer = Flatbuffer(int8)
    types = {flatbuffer.type(index) for index in range(len(flatbuffer.graph.tensors))}
    assert types <= {"UINT8", "INT8", "INT32"}
    for entry in flatbuffer.operators:
        assert {flatbuffer.type(index) for index in entry.outputs} == {"INT8"}


def test_the_compiled_model_api_gives_what_the_interpreter_gives(int8: bytes, images: Any) -> None:
    interpreter: Any = Interpreter(model_content=int8)
    interpreter.allocate_tensors()
    compiled: Any = CompiledModel.from_buffer(int8)
    (source,), (result,) = compiled.create_input_buffers(0), compiled.create_output_buffers(0)
    for image in images[:4]:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[np.newaxis])
        interpreter.invoke()
        expected = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
        source.write(image.ravel())
        compiled.run_by_index(0, [source], [result])
        output = result.read(expected.size, np.int8).reshape(expected.shape)
        assert (output.argmax(-1) == expected.argmax(-1)).mean() > 0.999


def test_only_a_finer_head_works_on_int16(finer: bytes) -> None:
    types = activation_types(finer)
    wide = [name for name, kind in types.items() if kind == "INT16"]
    assert len(wide) == 1
    assert "logits" in wide[0]
    assert set(types.values()) == {"INT8", "INT16"}
    (result,) = Interpreter(model_content=finer).get_output_details()
    assert result["dtype"] is np.int16
    assert result["quantization"] == (1 / 32768, 0)
    check(finer, "int8", wide=True)
    with pytest.raises(ExportError, match=r"not int8: .* are not 8-bit integers"):
        check(finer, "int8")


def test_masks_are_those_of_the_trained_model(
    int8: bytes, finer: bytes, model: Any, images: Any, tmp_path: Path
) -> None:
    expected = model(images, training=False).numpy()
    for content in (int8, finer):
        prediction = probabilities(content, images, tmp_path)
        assert (prediction.argmax(-1) == expected.argmax(-1)).mean() > 0.99
        assert len(np.unique(prediction)) > 256  # more levels than 8 bits have
        np.testing.assert_allclose(prediction.sum(axis=-1), 1, atol=1e-3)


def test_odds_survive_where_a_third_class_takes_nearly_all(
    int8: bytes, model: Any, images: Any, tmp_path: Path
) -> None:
    """An opacity is made of them; probabilities in 8 bits would be 0 to 0 there."""
    expected = model(images, training=False).numpy()
    prediction = probabilities(int8, images, tmp_path)
    rest = np.sort(expected, axis=-1)[..., :2].sum(axis=-1)
    hidden = (rest < 1 / 256) & (rest > 1e-3)
    assert hidden.any()
    assert np.unique(prediction[hidden].min(axis=-1)).size > 10


def test_logits_of_second_classes_are_never_clipped() -> None:
    logits = np.array([[9.0, 8.0, -17.0], [20.0, -10.0, -10.0]], np.float32)
    assert decisive(logits, 5).tolist() == [[8.0, 8.0, -5.0], [8.0, -5.0, -5.0]]
    assert decisive(logits[:, :1], 5).max() == 5


def test_biases_take_up_what_rounding_the_weights_moves(spec: ModelSpec, images: Any, tmp_path: Path) -> None:
    """Where all weights round up by a quarter of a step, behind a ReLU, the errors add up."""
    layer = keras.layers.Conv2D(3, 1, name="mixed")
    network = small_model(keras.layers.ReLU(), layer, size=SIZE)
    kernel, bias = layer.get_weights()
    kernel[:] = np.float32(3.75 / 127)
    kernel[:, :, 0] = 1.0
    layer.set_weights([kernel, bias])
    content = export_tflite(network, "int8", spec, images, Quantization(photos=len(images)), tmp_path)
    expected = network(images[:8], training=False).numpy()
    assert np.abs(probabilities(content, images[:8], tmp_path) - expected).mean() < 0.004


def test_the_spec_says_how_it_was_quantised(int8: bytes, images: Any, tmp_path: Path) -> None:
    path = tmp_path / "tiny.int8.tflite"
    path.write_bytes(int8)
    spec = read_artifact(path).spec
    assert spec.precision == "int8"
    assert spec.provenance.calibration_sha256 == sha256(images)
    assert spec.provenance.quantization == Quantization(photos=len(images)).as_dict()
    assert {"tensorflow", "ai-edge-quantizer", "keras"} <= spec.provenance.tools.keys()


def test_equal_models_and_photos_give_equal_bytes(
    int8: bytes, model: Any, spec: ModelSpec, images: Any, tmp_path: Path
) -> None:
    assert (
        export_tflite(model, "int8", spec, images, Quantization(photos=len(images)), tmp_path) == int8
    )  # TensorFlow's own metadata names the folder


def test_photos_without_black_and_white_give_the_same_input(export: Export, images: Any) -> None:
    interpreter = Interpreter(model_content=export(images // 2 + 40))
    assert interpreter.get_input_details()[0]["quantization"] == (1.0, 0)


def test_a_precise_layer_gets_int16_activations(export: Export) -> None:
    types = activation_types(export(precise=("bridge_conv_a", "probabilities")))  # the last layer: a finer head
    wide = [name for name, kind in types.items() if kind == "INT16"]
    assert len(wide) == 2
    assert any("bridge_conv_a" in name for name in wide)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bridge", r"precise layers bridge: the model has .*bridge_conv_a"),
        ("rescale", "precise layer rescale: .*folded"),
    ],
)
def test_a_precise_layer_that_is_not_there_is_an_error(export: Export, name: str, expected: str) -> None:
    with pytest.raises(ExportError, match=expected):
        export(precise=(name,))


def test_percentile_clips_rare_activations(export: Export, int8: bytes) -> None:
    clipped, whole = Flatbuffer(export(method="percentile")), Flatbuffer(int8)

    def scales(flatbuffer: Flatbuffer) -> list[float]:
        found = [flatbuffer.scaling(e.outputs[0]) for e in flatbuffer.operators if e.kind == "CONV_2D"]
        return [entry[0] for entry in found if entry]

    narrower = np.array(scales(clipped)) < np.array(scales(whole))
    assert narrower.mean() > 0.5


def test_percentiles_see_all_channels() -> None:
    values = np.broadcast_to(np.arange(16, dtype=np.float32), (1, 160, 160, 16))  # each value is its channel
    seen, counts = np.unique(sample(values), return_counts=True)
    assert seen.tolist() == list(range(16))
    assert counts.max() <= counts.min() + 1
    assert counts.sum() > 4000


def test_a_method_that_a_tflite_does_not_have_is_an_error(export: Export) -> None:
    with pytest.raises(ExportError, match=r"calibration method entropy: a \.tflite has minmax and percentile"):
        export(method="entropy")


def test_values_that_are_not_finite_are_an_error(spec: ModelSpec, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)  # TensorFlow clamps an infinite bias: the head's weights must bring it past the end
    network = small_model()
    kernel, bias = network.get_layer("down").get_weights()
    network.get_layer("down").set_weights([kernel, np.full_like(bias, np.inf)])
    with pytest.raises(ExportError, match=r"calibration: \S+ has values that are not finite"):
        export_tflite(network, "int8", spec, np.zeros((2, 32, 32, 3), np.uint8), Quantization(), tmp_path)


class Determinant(keras.layers.Layer):
    """Adds the determinant of the first channel, which LiteRT cannot compute."""

    def call(self, x: Any) -> Any:
        return x + keras.ops.det(x[..., 0])[:, None, None, None]


def test_a_layer_that_litert_lacks_is_named(spec: ModelSpec, tmp_path: Path) -> None:
    network = small_model(Determinant(name="det"))
    with pytest.raises(ExportError, match=r"to float32: layer det \(MatrixDeterminant\): LiteRT has no such operator"):
        export_tflite(network, "float32", spec, None, Quantization(), tmp_path)


def test_a_layer_that_stays_float_is_named(spec: ModelSpec, images: Any, tmp_path: Path) -> None:
    network = small_model(keras.layers.Activation("elu", name="bend"))
    with pytest.raises(ExportError, match=r"not int8: no int8 kernel for ELU \(1\): 1 of 4 operators compute"):
        check(export_tflite(network, "int8", spec, images[:2, :32, :32], Quantization(), tmp_path), "int8")


def test_an_activation_that_is_dead_on_every_calibration_photo_has_a_range_all_the_same(
    images: Any, spec: ModelSpec, tmp_path: Path
) -> None:
    """LiteRT ends the whole process where one scale is next to nothing beside another."""
    norm = keras.layers.BatchNormalization(name="norm")
    joined = keras.layers.Add(name="joined")

    def dead_beside(x: Any) -> Any:
        dead = keras.layers.ReLU(name="dead")(norm(keras.layers.MaxPooling2D(1)(x)))
        return joined([x, keras.layers.Conv2D(8, 1, name="after")(dead)])

    network = small_model(dead_beside, size=SIZE)
    norm.beta.assign(np.full(8, -50.0))
    content = export_tflite(network, "int8", spec, images, Quantization(photos=len(images)), tmp_path)
    prediction = probabilities(content, images[:8], tmp_path)
    expected = network(images[:8], training=False).numpy()
    assert np.abs(prediction - expected).max() < 0.05


@pytest.mark.parametrize(
    ("kind", "precision", "weight"),
    [
        *product(("Conv2D", "Conv2DTranspose", "DepthwiseConv2D"), ("int8", "int16x8"), (0.0,)),
        ("Conv2D", "int8", 1e-9),
        ("Conv2D", "int16x8", 1e-3),
    ],
)
def test_a_channel_that_training_left_only_a_bias_keeps_it(
    kind: str, precision: str, weight: float, spec: ModelSpec, images: Any, tmp_path: Path
) -> None:
    """Weight decay does that to what is not used; counted in such weights a bias is beyond 32 bits."""
    layers = keras.layers
    faded = layers.DepthwiseConv2D(3) if kind == "DepthwiseConv2D" else getattr(layers, kind)(8, 3, padding="same")
    network = small_model(faded, layers.ReLU(), layers.ZeroPadding2D(int(kind == "DepthwiseConv2D")), size=SIZE)
    kernel, bias = faded.get_weights()  # of a transposed convolution (h, w, out, in), else the other way round
    np.moveaxis(kernel, 2 if kind != "Conv2D" else 3, 0)[0] = weight
    bias[0] = 5.0
    faded.set_weights([kernel, bias])
    content = export_tflite(network, precision, spec, images, Quantization(photos=len(images)), tmp_path)
    prediction = probabilities(content, images[:8], tmp_path)
    expected = network(images[:8], training=False).numpy()
    assert np.abs(prediction - expected).max() < 0.05


def test_convolutions_in_groups_are_one_integer_operator_each(spec: ModelSpec, tmp_path: Path) -> None:
    keras.utils.set_random_seed(3)
    image = keras.Input((16, 16, 3), dtype="uint8", name="image")
    x = keras.layers.Conv2D(8, 3, padding="same")(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Conv2D(8, 3, padding="same", groups=4, activation="relu")(x)
    x = keras.layers.Conv2D(6, 1, groups=2)(x)
    network = keras.Model(image, keras.layers.Conv2D(3, 1, activation="softmax")(x))
    images = np.random.default_rng(1).integers(0, 256, (8, 16, 16, 3), np.uint8)
    for precision in ("int8", "float16"):
        content = export_tflite(network, precision, spec, images, Quantization(), tmp_path / precision)
        kinds = [
            entry.kind for entry in Flatbuffer(content).operators if entry.kind in ("CONV_2D", "SPLIT", "CONCATENATION")
        ]
        assert kinds == ["CONV_2D"] * 4

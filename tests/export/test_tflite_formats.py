"""Each TFLite precision is what it says: run by the runtime, and refused under any other name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from unet_export.errors import ExportError
from unet_export.formats.flatbuffer import Flatbuffer, layers_in
from unet_export.formats.saved_model import layer_names, write_graph
from unet_export.formats.tflite_check import check
from unet_export.formats.tflite_convert import export_tflite
from unet_export.quantization import Quantization
from unet_runtime import Segmenter
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.spec import ModelSpec

# Largest difference of one probability; of integers the decisions count, and the tiny model's are steep.
TOLERANCES = {"float32": 1e-5, "float16": 5e-3, "dynamic-range": 0.1, "int8": 0.3, "int16x8": 0.1}


@pytest.fixture(scope="module")
def files(model: Any, spec: ModelSpec, images: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Precision -> file of the tiny model."""
    work = tmp_path_factory.mktemp("work")
    settings = Quantization(photos=len(images))
    return {precision: export_tflite(model, precision, spec, images, settings, work) for precision in TOLERANCES}


@pytest.fixture(scope="module")
def saved_model(model: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SavedModel with float32 input of batch 1."""
    folder = tmp_path_factory.mktemp("float")
    write_graph(model, folder, batch=1, dtype="float32")
    return str(folder)


@pytest.mark.parametrize("precision", TOLERANCES)
def test_the_runtime_predicts_what_the_trained_model_does(
    precision: str, files: dict[str, bytes], model: Any, images: Any, tmp_path: Path
) -> None:
    path = tmp_path / f"tiny.{precision}.tflite"
    path.write_bytes(files[precision])
    with Segmenter(path) as segmenter:
        prediction = segmenter.infer(images)
        assert segmenter.spec.precision == precision
        assert segmenter.spec.output.logits == (precision == "int8")
    expected = model(images, training=False).numpy()
    assert prediction.dtype == np.float32
    assert np.abs(prediction - expected).max() < TOLERANCES[precision]
    assert (prediction.argmax(-1) == expected.argmax(-1)).mean() > 0.99


@pytest.mark.parametrize("precision", TOLERANCES)
def test_a_file_passes_under_its_own_name_only(precision: str, files: dict[str, bytes]) -> None:
    check(files[precision], precision)
    for other in TOLERANCES.keys() - {precision}:
        with pytest.raises(ExportError, match=f"not {other}: "):
            check(files[precision], other)


@pytest.mark.parametrize("precision", TOLERANCES)
def test_the_photo_itself_goes_in(precision: str, files: dict[str, bytes]) -> None:
    flatbuffer = Flatbuffer(files[precision])
    (source,) = flatbuffer.graph.inputs
    (signature,) = flatbuffer.model.signatureDefs
    assert flatbuffer.type(source) == "UINT8"
    assert [(entry.name, entry.tensorIndex) for entry in signature.inputs] == [(b"image", source)]
    assert [(entry.name, entry.tensorIndex) for entry in signature.outputs] == [
        (b"logits" if precision == "int8" else b"probabilities", flatbuffer.graph.outputs[0])
    ]


def test_a_float16_file_keeps_biases_and_the_smallest_kernels_in_float32(files: dict[str, bytes]) -> None:
    flatbuffer = Flatbuffer(files["float16"])
    half = exact = 0
    for entry in flatbuffer.weighted():
        kernel = flatbuffer.source(entry.inputs[1])
        if flatbuffer.type(kernel) == "FLOAT16":
            half += flatbuffer.size(kernel)
        else:
            exact += flatbuffer.size(kernel)
        assert all(flatbuffer.type(index) == "FLOAT32" for index in entry.inputs[2:])
    assert 0 < exact <= 0.05 * (half + exact)


def test_smaller_weights_make_smaller_files(files: dict[str, bytes]) -> None:
    weights = {
        name: sum(len(b.data) for b in Flatbuffer(c).model.buffers if b.data is not None) for name, c in files.items()
    }
    assert weights["float16"] < 0.6 * weights["float32"]
    assert max(weights["int8"], weights["int16x8"]) < 0.4 * weights["float32"]
    # TensorFlow leaves kernels of fewer than 1,024 values in float32, which are many in so small a network.
    assert weights["dynamic-range"] < 0.6 * weights["float32"]


@pytest.mark.parametrize("precision", ["float32", "dynamic-range"])
def test_a_float_file_says_nothing_of_quantisation(precision: str, files: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "tiny.tflite"
    path.write_bytes(files[precision])
    provenance = read_artifact(path).spec.provenance
    assert (provenance.quantization, provenance.calibration_sha256) == ({}, "")


def test_nothing_tells_where_a_file_was_made(files: dict[str, bytes]) -> None:
    for content in files.values():
        assert [entry.name for entry in Flatbuffer(content).model.metadata] == [b"min_runtime_version"]


def test_a_float_file_named_int8_is_refused_at_its_ends_too(saved_model: str) -> None:
    content = tf.lite.TFLiteConverter.from_saved_model(saved_model).convert()
    with pytest.raises(ExportError, match=r"tensors are not 8-bit integers.*input is FLOAT32.*output is FLOAT32"):
        check(content, "int8")


def test_int8_weights_alone_are_not_int8(saved_model: str) -> None:
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with pytest.raises(ExportError, match=r"not 8-bit integers, the first: \S+ \(FLOAT32"):
        check(converter.convert(), "int8")


def test_a_flex_operator_is_refused_in_any_precision() -> None:
    function = tf.function(tf.linalg.det, input_signature=[tf.TensorSpec((1, 3, 3), tf.float32)])
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], tf.Module())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.SELECT_TF_OPS]
    content = converter.convert()
    for precision in TOLERANCES:
        with pytest.raises(ExportError, match=r"operators that LiteRT does not have: .*FlexMatrixDeterminant"):
            check(content, precision)


def test_another_input_scale_is_refused(files: dict[str, bytes]) -> None:
    flatbuffer = Flatbuffer(files["int8"])
    flatbuffer.graph.tensors[flatbuffer.graph.inputs[0]].quantization.scale = [0.5]
    with pytest.raises(ExportError, match=r"input has \(scale, zero point\) \(0\.5, 0\), expected \(1\.0, 0\)"):
        check(flatbuffer.pack(), "int8")


def test_buffers_are_aligned(files: dict[str, bytes]) -> None:
    content = files["int16x8"]
    model = Flatbuffer(content).model
    found = [
        content.find(bytes(buffer.data))
        for buffer in model.buffers
        if buffer.data is not None and len(buffer.data) > 64
    ]
    assert found
    assert {position % 16 for position in found} == {0}


def test_layers_are_read_from_a_tensors_name() -> None:
    names = ("conv", "conv_1", "norm")
    assert list(layers_in("net_1/norm_1/add;net_1/conv_1_1/convolution", names)) == ["norm", "conv_1"]
    assert list(layers_in("net/other/add", names)) == []


def test_layers_of_a_nested_model_count() -> None:
    inner = keras.Sequential([keras.layers.Input((4, 4, 3)), keras.layers.Conv2D(2, 1, name="deep")], name="inner")
    outer = keras.Sequential([keras.layers.Input((4, 4, 3)), inner])
    assert {"inner", "deep"} <= set(layer_names(outer))

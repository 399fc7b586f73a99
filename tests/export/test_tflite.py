"""An int8 file is integer throughout, and fed with the photo's own bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from tests.export.conftest import SIZE, Export
from unet_export.calibration import calibration_images, sha256
from unet_export.errors import ExportError
from unet_export.saved_model import write_graph
from unet_export.tflite import check_full_integer, export_int8
from unet_runtime.labelled import read_split
from unet_runtime.spec import ModelSpec


@pytest.fixture(scope="module")
def saved_model(model: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SavedModel with float32 input of batch 1."""
    folder = tmp_path_factory.mktemp("float")
    write_graph(model, folder, batch=1, dtype="float32")
    return str(folder)


def test_the_input_is_the_photo(exported: Export) -> None:
    interpreter = Interpreter(model_path=str(exported.folder / "tiny.int8.tflite"))
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert source["dtype"] is np.uint8
    assert source["shape"].tolist() == [1, SIZE, SIZE, 3]
    assert source["quantization"] == (1.0, 0)
    assert result["dtype"] is np.uint8
    assert result["quantization"] == (1 / 256, 0)


def test_no_tensor_is_float(exported: Export) -> None:
    interpreter = Interpreter(model_path=str(exported.folder / "tiny.int8.tflite"))
    types = {np.dtype(tensor["dtype"]).kind for tensor in interpreter.get_tensor_details()}
    assert types == {"i", "u"}
    check_full_integer((exported.folder / "tiny.int8.tflite").read_bytes())  # does not mind spec and digest behind


def test_a_float_file_is_refused(saved_model: str) -> None:
    content = tf.lite.TFLiteConverter.from_saved_model(saved_model).convert()
    with pytest.raises(ExportError, match=r"tensors are not integer.*input is FLOAT32.*output is FLOAT32"):
        check_full_integer(content)


def test_a_file_with_int8_weights_only_is_refused(saved_model: str) -> None:
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    with pytest.raises(ExportError, match="not integer"):
        check_full_integer(converter.convert())


def test_a_flex_operator_is_refused() -> None:
    function = tf.function(tf.linalg.det, input_signature=[tf.TensorSpec((1, 3, 3), tf.float32)])
    module = tf.Module()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.SELECT_TF_OPS]
    with pytest.raises(ExportError, match=r"operators that LiteRT does not have: .*FlexMatrixDeterminant"):
        check_full_integer(converter.convert())


def test_another_input_scale_is_refused(model: Any, spec: ModelSpec, images: Any, tmp_path: Path) -> None:
    dull = images // 2 + 40  # neither black nor white
    with pytest.raises(ExportError, match=r"input has \(scale, zero point\) \(0\.\d+, \d+\), expected \(1\.0, 0\)"):
        export_int8(model, spec, dull, tmp_path)


def test_calibration_has_black_and_white(data: Path, spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = read_split(data, "official", "trainval")[:2]
    grey = np.full((1, SIZE, SIZE, 3), 90, np.uint8)
    monkeypatch.setattr("unet_export.calibration.model_input", lambda image, spec: grey.copy())
    images = calibration_images(photos, spec.input)
    assert (images.min(), images.max()) == (0, 255)
    assert (images == 90).sum() == images.size - 6  # one pixel each
    assert sha256(images) != sha256(grey)

"""What an export writes: every format equal to the model, described by itself, and clean."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

from tests.helpers.exported import ONNX, TFLITE, Export
from tests.helpers.onnx_file import export_onnx
from tests.helpers.tiny import SIZE, TRAIN
from unet_export.formats.saved_model import write_graph
from unet_export.photos import calibration_images, inputs, labelled, sha256
from unet_runtime import Segmenter
from unet_runtime.core.artifact import read_artifact, read_saved_model_spec
from unet_runtime.core.datasets import open_dataset, read_split
from unet_runtime.core.errors import ModelFileError
from unet_runtime.core.spec import ModelSpec
from unet_runtime.engines import load

INT8_ONNX = f"tiny-{SIZE}.int8.onnx"


@pytest.fixture(scope="module")
def graph(exported: Export) -> onnx.GraphProto:
    return onnx.load(exported.folder / ONNX).graph


@pytest.fixture(scope="module")
def expected(model: Any, images: Any) -> Any:
    return model(images, training=False).numpy()


def test_an_export_holds_these_and_nothing_else(exported: Export) -> None:
    assert sorted(path.name for path in exported.folder.iterdir()) == [
        "README.md",
        "parity.json",
        "report.html",
        "saved_model",
        ONNX,
        INT8_ONNX,
        TFLITE,
    ]
    assert list(exported.folder.parent.iterdir()) == [exported.folder]
    assert all(result.path.exists() for result in exported.results)


def test_onnx_equals_the_model(exported: Export, images: Any, expected: Any) -> None:
    backend = load("onnx", read_artifact(exported.folder / ONNX), device="cpu")
    for count in (1, 3):
        actual = backend.run(images[:count])
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected[:count], atol=1e-5)


def test_saved_model_equals_the_model(exported: Export, images: Any, expected: Any) -> None:
    loaded = tf.saved_model.load(str(exported.folder / "saved_model"))
    serve = loaded.signatures["serving_default"]
    assert serve.structured_input_signature[1] == {"image": tf.TensorSpec((None, SIZE, SIZE, 3), tf.uint8, "image")}
    for count in (1, 3):
        outputs = serve(image=tf.constant(images[:count]))
        assert list(outputs) == ["probabilities"]
        np.testing.assert_allclose(outputs["probabilities"].numpy(), expected[:count], atol=1e-5)


@pytest.mark.parametrize(("backend", "name"), [("tflite", TFLITE), ("onnx", INT8_ONNX), ("openvino", INT8_ONNX)])
def test_int8_agrees_with_the_model(exported: Export, images: Any, expected: Any, backend: str, name: str) -> None:
    with Segmenter(exported.folder / name, backend=backend, device="cpu") as segmenter:
        actual = segmenter.infer(images)
    assert (actual.argmax(-1) == expected.argmax(-1)).mean() > 0.98
    assert np.abs(actual - expected).mean() < 0.02


def test_a_saved_model_holds_each_weight_once(exported: Export, model: Any) -> None:
    shapes = [shape for _, shape in tf.train.list_variables(str(exported.folder / "saved_model/variables/variables"))]
    assert sum(int(np.prod(shape)) for shape in shapes if shape) == model.count_params()


def test_every_format_carries_the_spec(exported: Export, spec: ModelSpec, data: Path) -> None:
    specs = {
        "saved_model": read_saved_model_spec(exported.folder / "saved_model"),
        ONNX: read_artifact(exported.folder / ONNX).spec,
        INT8_ONNX: read_artifact(exported.folder / INT8_ONNX).spec,
        TFLITE: read_artifact(exported.folder / TFLITE).spec,
    }
    for name, found in specs.items():
        assert found.classes == spec.classes
        # LiteRT's int8 file gives logits, the others probabilities.
        assert (found.input, found.output) == (spec.input, replace(spec.output, logits=name == TFLITE))
        assert found.precision == ("int8" if "int8" in name else "float32")
        assert bool(found.provenance.quantization) == ("int8" in name)
        assert found.provenance.weights_sha256 == spec.provenance.weights_sha256
        assert found.provenance.tools["keras"] == "before"
        assert found.provenance.tools["tensorflow"] == tf.__version__
    assert specs[ONNX].provenance.tools["onnx"] == onnx.__version__
    assert "tf2onnx" in specs[ONNX].provenance.tools
    photos = labelled(read_split(open_dataset(data), "official", "trainval"))
    fed = calibration_images(inputs(photos, spec.input))
    assert len(fed) == TRAIN
    assert specs[TFLITE].provenance.calibration_sha256 == specs[INT8_ONNX].provenance.calibration_sha256 == sha256(fed)
    assert specs[ONNX].provenance.calibration_sha256 == ""


def test_a_saved_model_that_cannot_be_written_is_an_os_error(model: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="director"):  # and no TensorFlow error, which nobody would catch
        write_graph(model, tmp_path / "file" / "saved_model", batch=None, dtype="uint8")


@pytest.mark.parametrize("name", [ONNX, TFLITE])
@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.9, "spec", "digest"])
def test_a_flipped_byte_is_refused(exported: Export, tmp_path: Path, name: str, place: float | str) -> None:
    content = bytearray((exported.folder / name).read_bytes())
    if place == "spec":
        index = content.rindex(b"neutral")
    elif place == "digest":
        index = len(content) - 10
    else:
        index = int(len(content) * float(place))
    content[index] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelFileError, match=r"damaged|digest"):
        read_artifact(tmp_path / name)


@pytest.mark.parametrize("part", ["saved_model.pb", "assets.extra/unet_edge.json"])
def test_a_flipped_byte_of_a_saved_model_is_refused(exported: Export, tmp_path: Path, part: str) -> None:
    folder = tmp_path / "saved_model"
    shutil.copytree(exported.folder / "saved_model", folder)
    content = bytearray((folder / part).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / part).write_bytes(content)
    with pytest.raises(ModelFileError, match=part):
        read_saved_model_spec(folder)


# --- the ONNX graph --------------------------------------------------------------------------------


def test_the_graph_passes_the_checker_with_its_spec_appended(exported: Export) -> None:
    proto = onnx.load(exported.folder / ONNX)
    onnx.checker.check_model(proto, full_check=True)
    assert [entry.key for entry in proto.metadata_props] == ["unet_edge", "unet_edge.sha256"]


def test_the_graph_is_clean(graph: onnx.GraphProto) -> None:
    operators = Counter(node.op_type for node in graph.node)
    assert operators["BatchNormalization"] == 0
    assert operators["Transpose"] == 2
    assert {node.domain for node in graph.node} == {""}


def test_ends_have_their_names(exported: Export) -> None:
    session = onnxruntime.InferenceSession(exported.folder / ONNX, providers=["CPUExecutionProvider"])
    (source,), (result,) = session.get_inputs(), session.get_outputs()
    assert (source.name, source.type, source.shape) == ("image", "tensor(uint8)", ["batch", SIZE, SIZE, 3])
    assert (result.name, result.type, result.shape) == ("probabilities", "tensor(float)", ["batch", SIZE, SIZE, 3])


def test_the_file_tells_nothing_of_the_machine(exported: Export) -> None:
    for path in (path for path in exported.folder.rglob("*") if path.is_file()):
        content = path.read_bytes()
        for secret in (str(Path.home()), str(exported.folder.parent), sys.prefix, "keras_tensor", "unk__"):
            assert secret.encode() not in content or len(secret) < 4, f"{path.name} has {secret}"


_EXPORT = """
import hashlib, pathlib, sys
from tests.helpers.onnx_file import export_onnx
from unet_export.foreign.load import load_model
print(hashlib.sha256(export_onnx(*load_model(pathlib.Path(sys.argv[1])))).hexdigest())
"""


def test_the_same_model_gives_the_same_bytes(exported: Export, model: Any, spec: ModelSpec, model_file: Path) -> None:
    written = (exported.folder / ONNX).read_bytes()
    assert export_onnx(model, spec) == written  # later in this process, with other counters in tf2onnx
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    fresh = subprocess.run(
        [sys.executable, "-c", _EXPORT, str(model_file)], env=environment, capture_output=True, text=True, check=True
    )
    assert fresh.stdout.strip() == hashlib.sha256(written).hexdigest()

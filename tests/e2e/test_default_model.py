"""The committed model: one training, three files, the same answers, as good as its spec says."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.paths import REPOSITORY
from unet_export.foreign.load import load_model
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_runtime import Segmenter
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets import evenly, open_dataset, open_labels, read_split
from unet_runtime.core.geometry import model_input
from unet_runtime.core.metrics import confusion, iou
from unet_runtime.core.photo import open_photo

KERAS = REPOSITORY / "training/unet_training/weights/pets-edge.keras"
MODELS = REPOSITORY / "runtime/unet_runtime/models"
ONNX, TFLITE = MODELS / "pets-edge-160.float32.onnx", MODELS / "pets-edge-160.int8.tflite"
INT8_ONNX = MODELS / "pets-edge-160.int8.onnx"


def test_one_training_four_files() -> None:
    keras, onnx, int8, tflite = (read_artifact(path).spec for path in (KERAS, ONNX, INT8_ONNX, TFLITE))
    assert {spec.provenance.weights_sha256 for spec in (onnx, int8, tflite)} == {keras.provenance.weights_sha256}
    assert [spec.precision for spec in (keras, onnx, int8, tflite)] == ["float32", "float32", "int8", "int8"]
    assert int8.provenance.calibration_sha256 != ""
    assert tflite.provenance.calibration_sha256 != ""
    assert tflite.output.logits
    assert keras.provenance.command.startswith("unet-train ")
    assert keras.provenance.metrics["split"] == "test"
    assert keras.provenance.metrics["mean_iou"] >= 0.76


def test_size() -> None:
    for path in (ONNX, INT8_ONNX, TFLITE):
        assert path.stat().st_size < 12e6
    assert KERAS.stat().st_size < 12e6


def test_keras_and_onnx_agree_on_the_sample(sample_photo: Path) -> None:
    artifact = read_artifact(KERAS)
    batch = model_input(open_photo(sample_photo), artifact.spec.input)
    expected = load_model(artifact.path)[0](batch, training=False).numpy()
    for backend, tolerance, agreement in (("onnx", 1e-5, 0.9999), ("openvino", 1e-4, 0.999), ("tflite", 1.0, 0.98)):
        model = TFLITE if backend == "tflite" else ONNX
        actual = Segmenter(model, backend=backend).infer(batch)
        assert np.abs(actual - expected).max() <= tolerance, backend
        assert (actual.argmax(-1) == expected.argmax(-1)).mean() >= agreement, backend


def test_export_passes_its_gate_on_real_photos(pets_dir: Path, tmp_path: Path) -> None:
    """The whole export again, from the committed .keras, every gate passed."""
    model = tmp_path / "model.keras"
    shutil.copy(KERAS, model)
    # The other formats are made of the same graphs: tests/export/test_pipeline.py makes them all.
    formats = ("saved-model", "onnx", "onnx-int8", "tflite-int8")
    results = export_model(model, PhotoSource(pets_dir, parity_count=64), tmp_path / "export", ExportOptions(formats))
    assert tuple(result.format for result in results) == formats
    assert all(result.passed for result in results)


@pytest.mark.parametrize("backend", ["onnx", "tflite"])
def test_as_good_as_its_spec_says(backend: str, pets_dir: Path) -> None:
    """Mean IoU over 200 test photos, at their own size, through the whole Segmenter."""
    photos = evenly(read_split(open_dataset(pets_dir), "official", "test"), 200)
    segmenter = Segmenter(backend=backend)
    matrix = confusion((open_labels(item) for item in photos), (segmenter(item.photo).mask for item in photos), 3)
    claimed = segmenter.spec.provenance.metrics["mean_iou"]
    assert abs(float(iou(matrix).mean()) - claimed) < 0.03, f"claimed {claimed} on the whole test split"

"""The committed model: one training, three files, the same answers, as good as its spec says."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.bundled import FLOAT_ONNX, INT8_ONNX, INT8_TFLITE, KERAS
from unet_export.foreign.load import load_model
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_runtime import Segmenter
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets import evenly, open_dataset, open_labels, read_split
from unet_runtime.core.geometry import model_input
from unet_runtime.core.metrics import confusion, iou
from unet_runtime.core.photo import open_photo
from unet_runtime.engines import MODELS

LARGEST = 12e6
"""Bytes of a file that every wheel carries, at most."""

FLOAT_FORMATS = {"float32": "onnx", "float16-weights": "onnx-float16-weights"}
"""Precision of the bundled float file -> the format that it is exported as."""

CLOSE = {"float32": (1e-5, 0.9999), "float16-weights": (5e-3, 0.999), "int8": (1.0, 0.98)}
"""Precision -> largest difference of a probability from the trained model, smallest share of pixels that agree."""


def test_one_training_four_files() -> None:
    keras, onnx, int8, tflite = (read_artifact(path).spec for path in (KERAS, FLOAT_ONNX, INT8_ONNX, INT8_TFLITE))
    assert {spec.provenance.weights_sha256 for spec in (onnx, int8, tflite)} == {keras.provenance.weights_sha256}
    assert [spec.precision for spec in (keras, int8, tflite)] == ["float32", "int8", "int8"]
    assert onnx.precision in FLOAT_FORMATS
    assert int8.provenance.calibration_sha256 != ""
    assert tflite.provenance.calibration_sha256 != ""
    assert tflite.output.logits
    assert keras.provenance.command.startswith("unet-train ")
    assert keras.provenance.metrics["split"] == "test"
    assert keras.provenance.metrics["mean_iou"] >= 0.79


def test_files_are_called_what_their_specs_say() -> None:
    for path in (FLOAT_ONNX, INT8_ONNX, INT8_TFLITE):
        spec = read_artifact(path).spec
        assert path.name == f"{spec.name}-{spec.input.height}.{spec.precision}{path.suffix}"
    assert {path for path in MODELS.iterdir() if path.is_file()} == {FLOAT_ONNX, INT8_ONNX, INT8_TFLITE}


def test_size() -> None:
    for path in (KERAS, FLOAT_ONNX, INT8_ONNX, INT8_TFLITE):
        assert path.stat().st_size < LARGEST


def test_keras_and_onnx_agree_on_the_sample(sample_photo: Path) -> None:
    artifact = read_artifact(KERAS)
    batch = model_input(open_photo(sample_photo), artifact.spec.input)
    expected = load_model(artifact.path)[0](batch, training=False).numpy()
    for backend in ("onnx", "openvino", "tflite"):
        model = Segmenter(INT8_TFLITE if backend == "tflite" else FLOAT_ONNX, backend=backend)
        tolerance, agreement = CLOSE[model.spec.precision]
        actual = model.infer(batch)
        assert np.abs(actual - expected).max() <= tolerance, backend
        assert (actual.argmax(-1) == expected.argmax(-1)).mean() >= agreement, backend


def test_export_passes_its_gate_on_real_photos(pets_dir: Path, tmp_path: Path) -> None:
    """The whole export again, from the committed .keras, every gate passed."""
    model = tmp_path / "model.keras"
    shutil.copy(KERAS, model)
    # The other formats are made of the same graphs: tests/export/test_pipeline.py makes them.
    formats: tuple[str, ...] = (FLOAT_FORMATS[read_artifact(FLOAT_ONNX).spec.precision], "tflite-int8")
    if os.environ.get("SLOW_TESTS"):
        formats += ("saved-model", "onnx-int8")
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

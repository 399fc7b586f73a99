"""A model with a sigmoid head, whose probabilities do not sum to 1: exported whole, and used as a device uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from tests.export.conftest import FORMATS, SIZE, SPEC, TEST, Export
from unet_export import keras_model
from unet_export.errors import ExportError
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_runtime import Segmenter
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets.oxford_pets import open_trimap, read_split
from unet_runtime.core.geometry import model_input, model_labels
from unet_runtime.core.photo import open_photo
from unet_runtime.core.spec import ModelSpec, OutputSpec
from unet_training.evaluate import evaluate, load_model
from unet_training.models.unet import build

ONNX, TFLITE = f"sigmoid-{SIZE}.float32.onnx", f"sigmoid-{SIZE}.int8.tflite"
SIGMOID = replace(SPEC, name="sigmoid", output=OutputSpec(SIZE, SIZE, activation="sigmoid"))


def _share_loss(truth: Any, probabilities: Any) -> Any:
    """Cross-entropy of each class's share of the sum, (n, h, w)."""
    clipped = ops.clip(probabilities, 1e-7, 1.0)
    share = clipped / ops.sum(clipped, axis=-1, keepdims=True)
    return -ops.sum(ops.one_hot(ops.cast(truth, "int32"), 3) * ops.log(share), axis=-1)


@pytest.fixture(scope="module")
def trained(data: Path) -> Any:
    keras.utils.set_random_seed(3)
    photos = read_split(data, "official", "trainval")
    x = np.concatenate([model_input(open_photo(entry.photo), SPEC.input) for entry in photos])
    y = np.stack([model_labels(open_trimap(entry.trimap), SPEC.input) for entry in photos])
    network = build(SIZE, SIZE, 3, filters=4, depth=2, activation="sigmoid")
    network.compile(keras.optimizers.Adam(5e-3), _share_loss, jit_compile=False)
    network.fit(x, y, batch_size=8, epochs=60, verbose=0)
    return network


@pytest.fixture(scope="module")
def truth(data: Path) -> Any:
    photos = read_split(data, "official", "test")
    return np.stack([model_labels(open_trimap(entry.trimap), SPEC.input) for entry in photos])


@pytest.fixture(scope="module")
def file(trained: Any, write_model: Callable[..., Path]) -> Path:
    return write_model(trained, SIGMOID)


@pytest.fixture(scope="module")
def export(file: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    folder = tmp_path_factory.mktemp("sigmoid") / "export"
    return Export(folder, export_model(file, PhotoSource(data), folder, ExportOptions(FORMATS)))


def test_its_probabilities_do_not_sum_to_1(trained: Any, images: Any) -> None:
    """Or nothing here would be tested."""
    sums = trained(images, training=False).numpy().sum(axis=-1)
    assert np.abs(sums - 1).max() > 0.1


def test_all_formats_pass_the_gate(export: Export) -> None:
    assert [(result.format, result.failures) for result in export.results] == [(name, ()) for name in FORMATS]
    metrics = [entry.metrics for result in export.results for entry in result.checked]
    assert len(metrics) >= len(FORMATS)
    assert all(entry is not None and (entry.mean_iou or 0) > 0.5 for entry in metrics)


def test_every_engine_measures_what_training_minimised(
    export: Export, file: Path, data: Path, trained: Any, images: Any, truth: Any
) -> None:
    expected = float(np.mean(_share_loss(truth, trained(images, training=False).numpy())))
    measured = {
        path.suffix: evaluate(load_model(path), data) for path in (file, export.folder / ONNX, export.folder / TFLITE)
    }
    assert [result.overall.photos for result in measured.values()] == [TEST] * 3
    assert measured[".keras"].overall.loss == pytest.approx(expected, abs=1e-5)
    assert measured[".onnx"].overall.loss == pytest.approx(expected, abs=1e-5)
    assert measured[".tflite"].overall.loss == pytest.approx(expected, abs=0.05)
    for result in measured.values():
        # The confidence of a class among three: no less than a third, which a sigmoid's largest may well be.
        assert all(row.confidence >= 1 / 3 - 1e-6 for row in result.calibration if row.pixels)


@pytest.mark.parametrize("name", [ONNX, TFLITE])
def test_masks_and_cut_outs(export: Export, data: Path, trained: Any, name: str) -> None:
    segmenter = Segmenter(export.folder / name, device="cpu")
    assert read_artifact(export.folder / name).spec.output.activation == "sigmoid"
    entry = read_split(data, "official", "test")[0]
    photo = open_photo(entry.photo).resize((SIZE, SIZE))  # as large as the grid: nothing is resampled
    result = segmenter(photo)
    expected = trained(model_input(photo, SIGMOID.input), training=False).numpy()[0]  # (h, w, classes)
    assert (result.mask == expected.argmax(axis=-1)).mean() > 0.98
    alpha = np.asarray(result.cutout())[..., 3] / 255
    odds = expected[..., 0] / (expected[..., 0] + expected[..., 1])
    assert np.abs(alpha - odds).mean() < 0.02
    assert 0.1 < (alpha > 0.5).mean() < 0.9


def test_a_sigmoid_model_that_says_softmax_is_refused(trained: Any, write_model: Callable[..., Path]) -> None:
    wrong: ModelSpec = replace(SIGMOID, output=SPEC.output)
    with pytest.raises(ExportError, match=r"probabilities sum to .* on a black photo, expected the 1 of a softmax"):
        keras_model.load(read_artifact(write_model(trained, wrong)))

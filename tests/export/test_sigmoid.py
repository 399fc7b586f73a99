"""A model with a sigmoid head, whose probabilities do not sum to 1: exported whole, and used as a device uses it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.exported import FORMATS, Export
from tests.helpers.tiny import SIGMOID_FILE, SIGMOID_SPEC, SIZE, SPEC, TEST, share_loss
from unet_export.errors import ExportError
from unet_export.foreign import load
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_runtime import Segmenter
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets import open_dataset, open_labels, read_split
from unet_runtime.core.geometry import model_input, model_labels
from unet_runtime.core.photo import open_photo
from unet_runtime.core.spec import ModelSpec
from unet_training.evaluate import evaluate, load_model

ONNX, TFLITE = f"sigmoid-{SIZE}.float32.onnx", f"sigmoid-{SIZE}.int8.tflite"


@pytest.fixture(scope="module")
def trained() -> Any:
    return load.load_model(SIGMOID_FILE)[0]


@pytest.fixture(scope="module")
def truth(data: Path) -> Any:
    photos = read_split(open_dataset(data), "official", "test")
    return np.stack([model_labels(open_labels(entry), SPEC.input) for entry in photos])


@pytest.fixture(scope="module")
def export(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Export:
    folder = tmp_path_factory.mktemp("sigmoid") / "export"
    return Export(folder, export_model(SIGMOID_FILE, PhotoSource(data), folder, ExportOptions(FORMATS)))


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
    export: Export, data: Path, trained: Any, images: Any, truth: Any
) -> None:
    expected = float(np.mean(share_loss(truth, trained(images, training=False).numpy())))
    measured = {
        path.suffix: evaluate(load_model(path), data)
        for path in (SIGMOID_FILE, export.folder / ONNX, export.folder / TFLITE)
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
    entry = read_split(open_dataset(data), "official", "test")[0]
    photo = open_photo(entry.photo).resize((SIZE, SIZE))  # as large as the grid: nothing is resampled
    result = segmenter(photo)
    expected = trained(model_input(photo, SIGMOID_SPEC.input), training=False).numpy()[0]  # (h, w, classes)
    assert (result.mask == expected.argmax(axis=-1)).mean() > 0.98
    alpha = np.asarray(result.cutout())[..., 3] / 255
    odds = expected[..., 0] / (expected[..., 0] + expected[..., 1])
    assert np.abs(alpha - odds).mean() < 0.02
    assert 0.1 < (alpha > 0.5).mean() < 0.9


def test_a_sigmoid_model_that_says_softmax_is_refused(trained: Any, write_model: Callable[..., Path]) -> None:
    wrong: ModelSpec = replace(SIGMOID_SPEC, output=SPEC.output)
    with pytest.raises(ExportError, match=r"probabilities sum to .* on a black photo, expected the 1 of a softmax"):
        load.load_model(write_model(trained, wrong))

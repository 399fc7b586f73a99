"""The gate: what it measures, and everything that must not pass it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.export.conftest import SIZE, TEST, Export
from unet_export import parity
from unet_export.errors import ExportError
from unet_export.gate import FLOAT_GATE, INT8_GATE, Figures, ParityResult, judge
from unet_export.onnx import export_onnx
from unet_export.parity import Candidate
from unet_export.report import as_json, table
from unet_runtime.artifact import append_to_onnx, read_artifact
from unet_runtime.backends import load
from unet_runtime.labelled import LabelledPhoto, model_labels, open_trimap, read_split
from unet_runtime.spec import ModelSpec, OutputSpec

PERFECT = Figures(max_abs=0.0, mean_abs=0.0, agreement=1.0, reference_mean_iou=0.8, mean_iou=0.8)


@pytest.fixture(scope="module")
def photos(data: Path) -> list[LabelledPhoto]:
    return read_split(data, "official", "test")


def prove_one(model: Any, candidate: Candidate, photos: list[LabelledPhoto], spec: ModelSpec) -> ParityResult:
    (result,) = parity.prove(lambda images: model(images, training=False).numpy(), [candidate], photos, spec)
    return result


# --- tolerances ------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", [FLOAT_GATE, INT8_GATE])
def test_an_equal_artifact_passes(gate: Any) -> None:
    assert judge(PERFECT, gate) == ()


@pytest.mark.parametrize(
    ("gate", "worse", "reason"),
    [
        (FLOAT_GATE, {"max_abs": 1.1e-5}, "max|dp| 1.1e-05, tolerance 1e-05"),
        (FLOAT_GATE, {"agreement": 0.9998}, "agreement 99.980%, at least 99.99%"),
        (FLOAT_GATE, {"mean_iou": 0.799}, "mean IoU drops 0.100 points, tolerance 0.05"),
        (INT8_GATE, {"agreement": 0.9799}, "agreement 97.990%, at least 98.00%"),
        (INT8_GATE, {"mean_iou": 0.7949}, "mean IoU drops 0.510 points, tolerance 0.5"),
    ],
)
def test_a_worse_one_fails_with_its_number(gate: Any, worse: dict[str, float], reason: str) -> None:
    assert judge(PERFECT._replace(**worse), gate) == (reason,)


@pytest.mark.parametrize("within", [{"agreement": 0.98}, {"mean_iou": 0.7951}, {"mean_iou": 0.9}, {"max_abs": 0.9}])
def test_int8_may_differ_within_its_tolerances(within: dict[str, float]) -> None:
    assert judge(PERFECT._replace(**within), INT8_GATE) == ()


@pytest.mark.parametrize("gate", [FLOAT_GATE, INT8_GATE])
@pytest.mark.parametrize("name", ["max_abs", "agreement", "mean_iou", "reference_mean_iou"])
def test_nan_fails(gate: Any, name: str) -> None:
    assert len(judge(PERFECT._replace(**{name: math.nan}), gate)) == 1


def test_every_failed_criterion_is_named() -> None:
    assert len(judge(Figures(0.5, 0.1, 0.5, 0.8, 0.4), FLOAT_GATE)) == 3


# --- measuring -------------------------------------------------------------------------------------


def test_figures_are_those_of_a_plain_computation(
    exported: Export, model: Any, images: Any, photos: list[LabelledPhoto], spec: ModelSpec
) -> None:
    result = next(result for result in exported.results if result.format == "tflite")
    expected = model(images, training=False).numpy()
    actual = load("tflite", read_artifact(result.path)).run(images)
    labels = np.stack([model_labels(open_trimap(entry.trimap), spec.input) for entry in photos])

    def mean_iou(mask: Any) -> float:
        pairs = [((labels == c) & (mask == c), (labels == c) | (mask == c)) for c in range(3)]
        return float(np.mean([both.sum() / either.sum() for both, either in pairs]))

    figures = result.figures
    assert len(images) == TEST > parity._BATCH  # so more than one batch was summed
    assert figures.max_abs == pytest.approx(np.abs(expected - actual).max(), abs=1e-6)
    assert figures.mean_abs == pytest.approx(np.abs(expected - actual).mean(), abs=1e-6)
    assert figures.agreement == pytest.approx((expected.argmax(-1) == actual.argmax(-1)).mean(), abs=1e-4)
    assert figures.mean_iou == pytest.approx(mean_iou(actual.argmax(-1)), abs=1e-9)
    assert figures.reference_mean_iou == pytest.approx(mean_iou(expected.argmax(-1)), abs=1e-4)


def test_a_margin_is_cut_from_the_truth(photos: list[LabelledPhoto], spec: ModelSpec) -> None:
    """A model that answers for the middle only is compared with the middle of the trimaps."""
    middle = slice(8, SIZE - 8)
    spec = replace(spec, output=OutputSpec(SIZE - 16, SIZE - 16, margin=8))
    seen: list[Any] = []
    for images, labels in parity._batches(photos, spec):
        assert len(images) == len(labels) == 8
        seen.extend(labels)
    whole = np.stack([model_labels(open_trimap(entry.trimap), spec.input) for entry in photos])
    np.testing.assert_array_equal(np.stack(seen), whole[:, middle, middle])


# --- what must not pass ----------------------------------------------------------------------------


def test_another_model_fails(
    other_model: Any, model: Any, photos: list[LabelledPhoto], spec: ModelSpec, tmp_path: Path
) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(export_onnx(other_model, spec))
    result = prove_one(model, Candidate("onnx", path, FLOAT_GATE), photos, spec)
    assert not result.passed
    assert len(result.failures) == 3
    assert prove_one(other_model, Candidate("onnx", path, FLOAT_GATE), photos, spec).passed


@pytest.mark.parametrize("gate", [FLOAT_GATE, INT8_GATE])
def test_an_artifact_that_answers_nan_fails(
    model: Any, photos: list[LabelledPhoto], spec: ModelSpec, tmp_path: Path, gate: Any
) -> None:
    path = tmp_path / "nan.onnx"
    path.write_bytes(append_to_onnx(_nan_model(), spec))
    result = prove_one(model, Candidate("onnx", path, gate), photos, spec)
    assert result.failures[0].startswith("max|dp| nan")
    report = json.loads(as_json([result], spec, [], photos))
    assert report["passed"] is False
    assert report["artifacts"][0]["figures"]["max_abs"] is None


def _nan_model() -> bytes:
    """Of the right shape, and every probability 0 / 0."""
    shape = ["batch", SIZE, SIZE, 3]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["float", "float"], ["zero"]),
        helper.make_node("Div", ["zero", "zero"], ["probabilities"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind in (("image", TensorProto.UINT8), ("probabilities", TensorProto.FLOAT))
    ]
    graph = helper.make_graph(nodes, "nan", ends[:1], ends[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(proto)
    return proto.SerializeToString()


def test_an_engine_that_is_not_installed_fails(
    exported: Export, model: Any, photos: list[LabelledPhoto], spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unet_runtime.backends.installed", lambda name: False)
    result = prove_one(model, Candidate("onnx", exported.folder / "tiny.onnx", FLOAT_GATE), photos, spec)
    assert len(result.failures) == 1
    assert "not checked: backend onnx needs onnxruntime" in result.failures[0]
    assert "pip install" in result.failures[0]
    assert math.isnan(result.figures.max_abs)
    assert "FAILED" in table([result])


def test_a_damaged_artifact_fails(
    exported: Export, model: Any, photos: list[LabelledPhoto], spec: ModelSpec, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes((exported.folder / "tiny.onnx").read_bytes()[:-1])
    result = prove_one(model, Candidate("onnx", path, FLOAT_GATE), photos, spec)
    assert "digest" in result.failures[0]


def test_an_artifact_of_another_size_fails(
    exported: Export, model: Any, photos: list[LabelledPhoto], spec: ModelSpec
) -> None:
    def reference(images: Any) -> Any:
        return model(images, training=False).numpy()[..., :2]

    candidate = Candidate("onnx", exported.folder / "tiny.onnx", FLOAT_GATE)
    (result,) = parity.prove(reference, [candidate], photos, spec)
    assert result.failures == (f"not checked: output (8, {SIZE}, {SIZE}, 3), expected (8, {SIZE}, {SIZE}, 2)",)


def test_trimaps_of_more_classes_than_the_model_are_refused(photos: list[LabelledPhoto], spec: ModelSpec) -> None:
    with pytest.raises(ExportError, match=r"class 2, but the model has 2 classes \(pet, background\)"):
        parity.prove(lambda images: images.astype(np.float32), [], photos, replace(spec, classes=spec.classes[:2]))

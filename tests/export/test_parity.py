"""The gate: what it measures, and everything that must not pass it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.helpers.exported import ONNX, Export
from tests.helpers.onnx_file import export_onnx
from tests.helpers.results import artifact, engine, metrics
from tests.helpers.tiny import SIZE, TEST
from unet_export.errors import ExportError
from unet_export.formats import FORMATS
from unet_export.gate import parity
from unet_export.gate.gate import (
    GATES,
    Gate,
    Metrics,
    ParityResult,
    changed_gates,
    exact_tolerance,
    judge,
    smallest_gate,
)
from unet_export.gate.parity import Candidate
from unet_export.gate.runners import exact_runner
from unet_export.gate.tally import Tally
from unet_export.photos import Photo, PhotoSets
from unet_export.report.report import Report, as_json, table
from unet_runtime import Segmenter
from unet_runtime.core.artifact import append_to_onnx, read_artifact
from unet_runtime.core.datasets import open_dataset, open_labels, read_split
from unet_runtime.core.geometry import model_labels
from unet_runtime.core.spec import InputSpec, ModelSpec, OutputSpec

FLOAT, INT8 = GATES["float32"], GATES["int8"]

PERFECT = Metrics(
    max_abs=0.0,
    p999_abs=0.0,
    mean_abs=0.0,
    agreement=1.0,
    keras_iou={"pet": 1.0, "background": 1.0, "border": 1.0},
    reference_iou={"pet": 0.95, "background": 0.95, "border": 0.5},
    iou={"pet": 0.95, "background": 0.95, "border": 0.5},
    pixels={"pet": 100_000, "background": 200_000, "border": 50_000},
)


def changed(**worse: Any) -> Metrics:
    """``PERFECT`` with other values; of ``iou`` only the classes that are named change."""
    return PERFECT._replace(**worse | {"iou": PERFECT.iou | worse.get("iou", {})})


@pytest.fixture(scope="module")
def photos(data: Path) -> list[Photo]:
    return [Photo(*entry) for entry in read_split(open_dataset(data), "official", "test")]


def prove_one(model: Any, candidate: Candidate, photos: list[Photo], spec: ModelSpec) -> ParityResult:
    (result,) = parity.prove(lambda images: model(images, training=False).numpy(), [candidate], photos, spec)
    return result


def onnx_file(path: Path, gate: Gate = FLOAT) -> Candidate:
    return Candidate(FORMATS["onnx"], path, gate)


# --- tolerances ------------------------------------------------------------------------------------


@pytest.mark.parametrize("gate", GATES.values())
def test_an_equal_artifact_passes(gate: Any) -> None:
    assert judge(PERFECT, gate) == ()


@pytest.mark.parametrize(
    ("gate", "worse", "reason"),
    [
        (FLOAT, {"max_abs": 1.1e-5}, "max|dp| 1.1e-05, tolerance 1e-05 (would pass at 1.1e-05)"),
        (FLOAT, {"agreement": 0.9998}, "agreement 99.980%, at least 99.99% (would pass at 0.9998)"),
        (
            replace(FLOAT, iou_drop=0.01),
            {"iou": {"pet": 0.9496}},
            "mean IoU drops 0.013 points, tolerance 0.01 (would pass at 0.02)",
        ),
        (GATES["float16"], {"max_abs": 5.1e-3}, "max|dp| 0.0051, tolerance 0.005 (would pass at 0.0051)"),
        (GATES["float16"], {"agreement": 0.9989}, "agreement 99.890%, at least 99.90% (would pass at 0.9989)"),
        (INT8, {"agreement": 0.98991}, "agreement 98.991%, at least 99.00% (would pass at 0.98991)"),
        (
            INT8,
            {"iou": {"pet": 0.9456, "background": 0.9455, "border": 0.49975}},
            "mean IoU drops 0.305 points, tolerance 0.3 (would pass at 0.31)",
        ),
        (INT8, {"iou": {"border": 0.49485}}, "border IoU drops 0.515 points, tolerance 0.5 (would pass at 0.52)"),
        (INT8, {"iou": {"pet": 0.94185}}, "pet IoU drops 0.815 points, tolerance 0.5 (would pass at 0.82)"),
    ],
)
def test_a_worse_one_fails_with_its_number(gate: Any, worse: dict[str, float], reason: str) -> None:
    assert judge(changed(**worse), gate) == (reason,)


@pytest.mark.parametrize(
    "within",
    [
        {"agreement": 0.99},
        {"iou": {"pet": 0.9461, "border": 0.4959}},
        {"iou": {"border": 0.9}},
        {"iou": {"border": 0.4951}},
        {"max_abs": 0.9},
    ],
)
def test_int8_may_differ_within_its_tolerances(within: dict[str, float]) -> None:
    assert judge(changed(**within), INT8) == ()


@pytest.mark.parametrize("gate", GATES.values())
@pytest.mark.parametrize("name", ["max_abs", "agreement"])
def test_nan_fails(gate: Any, name: str) -> None:
    assert len(judge(changed(**{name: math.nan}), gate)) == 1


@pytest.mark.parametrize("gate", GATES.values())
@pytest.mark.parametrize("name", ["pet", "border"])
def test_a_class_whose_iou_is_nan_fails(gate: Any, name: str) -> None:
    failures = judge(changed(iou={name: math.nan}), gate)
    assert len(failures) == 2
    assert failures[1].startswith(f"{name} IoU drops nan points")


def test_several_classes_that_fail_are_counted_and_the_worst_is_named() -> None:
    (_, reason) = judge(changed(iou={"pet": 0.94, "border": 0.4}), INT8)
    assert reason.startswith("border IoU drops 10.000 points, tolerance 0.5, and that of 1 more classes does")


def test_a_class_may_lose_what_one_pixel_makes_and_no_more() -> None:
    small = {"pixels": PERFECT.pixels | {"border": 130}}  # a pixel makes 0.77 points
    assert judge(changed(iou={"border": 0.4925}, **small), INT8) == ()
    assert smallest_gate(changed(iou={"border": 0.4925}, **small)).class_drop == 0
    assert len(judge(changed(iou={"border": 0.492}, **small), INT8)) == 1


def test_a_class_that_no_photo_shows_is_said_to_be_unknown() -> None:
    unseen = metrics(0)._replace(pixels={"red": 5, "green": 5})
    text = table([artifact("onnx", 4000, engine("onnx", 20.0, unseen))])
    assert text.splitlines()[-1] == "in no label mask of these photos, so nothing is known of it: blue"
    assert "in no label mask" not in table([artifact("onnx", 4000, engine("onnx", 20.0, metrics(0)))])


def test_a_class_that_the_truth_lacks_is_not_judged() -> None:
    """The trained model never predicts it, the artifact does in one pixel: its IoU is 0 after nothing."""
    absent = {"pixels": {"pet": 100_000, "background": 200_000}}
    found = changed(reference_iou=PERFECT.iou | {"border": math.nan}, iou={"border": 0.0}, **absent)
    assert judge(found, FLOAT) == ()
    assert (found.iou_change, found.worst_change) == (0, 0)
    assert found.mean_iou == pytest.approx(1.9 / 3)  # it counts there, as in every other command
    assert found.reference_mean_iou == pytest.approx(0.95)


def test_every_failed_criterion_is_named() -> None:
    worse = changed(max_abs=0.5, agreement=0.5, iou={"border": 0.1})
    assert len(judge(worse, FLOAT)) == 4


@pytest.mark.parametrize(
    "worse",
    [
        {"max_abs": 3.9123e-6, "agreement": 0.99999},
        {"max_abs": 0.2647, "agreement": 0.994923, "iou": {"pet": 0.9491, "border": 0.4937}},
        {"max_abs": 1.0, "agreement": 0.1, "iou": {"pet": 0.1, "border": 0.0}},
        {"max_abs": 9.96e-3},
    ],
)
def test_the_smallest_gate_passes_and_nothing_much_smaller_does(worse: dict[str, float]) -> None:
    metrics = changed(**worse)
    gate = smallest_gate(metrics)
    assert judge(metrics, gate) == ()
    for name, value in (
        ("max_abs", 0.94 * gate.max_abs),
        ("agreement", gate.agreement + 2e-5),
        ("iou_drop", gate.iou_drop - 0.02),
        ("class_drop", gate.class_drop - 0.02),
    ):
        if getattr(gate, name) not in (0, 1):
            assert judge(metrics, replace(gate, **{name: value})), name


def test_a_user_may_set_tolerances() -> None:
    gates = changed_gates(["int8.agreement=0.98", "float32.max_abs=2e-5"])
    assert gates["int8"] == replace(INT8, agreement=0.98)
    assert gates["float32"] == replace(FLOAT, max_abs=2e-5)
    assert gates["float16"] == GATES["float16"]


@pytest.mark.parametrize(
    "setting",
    [
        "int8",
        "int8.agreement",
        "int7.agreement=1",
        "int8.iou=1",
        "int8.agreement=nan",
        "int8.agreement=-1",
        "int8.agreement=much",
    ],
)
def test_other_tolerances_are_refused(setting: str) -> None:
    with pytest.raises(ExportError, match=r"expected PRECISION\.CRITERION=VALUE"):
        changed_gates([setting])


# --- measuring -------------------------------------------------------------------------------------


def test_metrics_are_those_of_a_plain_computation(
    exported: Export, model: Any, images: Any, photos: list[Photo], spec: ModelSpec
) -> None:
    result = next(result for result in exported.results if result.format == "tflite-int8")
    expected = model(images, training=False).numpy()
    actual = Segmenter(result.path).infer(images)
    labels = np.stack([model_labels(open_labels(entry), spec.input) for entry in photos])

    def ious(truth: Any, mask: Any) -> list[float]:
        pairs = [((truth == c) & (mask == c), (truth == c) | (mask == c)) for c in range(3)]
        return [float(both.sum() / either.sum()) for both, either in pairs]

    (entry,) = result.checked
    metrics = entry.metrics
    difference = np.abs(expected - actual)
    wanted, mask = expected.argmax(-1), actual.argmax(-1)
    assert len(images) == TEST > parity._BATCH  # so more than one batch was summed
    assert metrics.max_abs == pytest.approx(difference.max(), abs=1e-6)
    assert metrics.mean_abs == pytest.approx(difference.mean(), abs=1e-6)
    assert np.quantile(difference, 0.999) * 0.999 <= metrics.p999_abs <= np.quantile(difference, 0.999) * 1.03
    assert metrics.agreement == pytest.approx((wanted == mask).mean(), abs=1e-4)
    assert metrics.mean_iou == pytest.approx(np.mean(ious(labels, mask)), abs=1e-9)
    assert list(metrics.iou.values()) == pytest.approx(ious(labels, mask), abs=1e-9)
    assert metrics.reference_mean_iou == pytest.approx(np.mean(ious(labels, wanted)), abs=1e-4)
    assert metrics.keras_mean_iou == pytest.approx(np.mean(ious(wanted, mask)), abs=1e-3)
    assert sum(entry.histogram) == difference.size
    assert entry.histogram[-1] == (difference >= 1).sum()
    assert entry.histogram[-2] == pytest.approx((difference >= 0.1).sum(), abs=3)


def test_a_histogram_loses_nothing(spec: ModelSpec) -> None:
    """Neither 0, which has no logarithm, nor NaN, nor what is off either end."""
    tally = Tally(spec)
    expected = np.zeros((1, 1, 3, 3), np.float32)
    actual = np.array([[[[0, 1e-30, 5e-9], [2e-5, 0.5, 1.0], [np.nan, np.inf, 3]]]], np.float32)
    tally.add(expected, actual, None)
    assert tally.histogram() == (3, 0, 0, 0, 1, 0, 0, 0, 1, 4)


def test_without_trimaps_nothing_is_said_of_the_truth(
    exported: Export, model: Any, photos: list[Photo], spec: ModelSpec
) -> None:
    bare = [replace(photo, labels=None) for photo in photos]
    result = prove_one(model, onnx_file(exported.folder / ONNX), bare, spec)
    assert result.passed
    for entry in result.checked:
        metrics = entry.metrics
        assert (metrics.mean_iou, metrics.worst_change, metrics.iou_change) == (None, None, None)
        assert entry.metrics.keras_mean_iou == pytest.approx(1, abs=1e-3)


def test_a_margin_is_cut_from_the_truth(photos: list[Photo], spec: ModelSpec) -> None:
    """A model that answers for the middle only is compared with the middle of the trimaps."""
    middle = slice(8, SIZE - 8)
    margin = InputSpec(SIZE, SIZE, margin=8)
    spec = replace(spec, input=margin, output=OutputSpec(SIZE - 16, SIZE - 16))
    seen: list[Any] = []
    for images, labels in parity._batches(photos, spec):
        assert len(images) == len(labels) == 8
        seen.extend(labels)
    whole = np.stack([model_labels(open_labels(entry), spec.input) for entry in photos])
    np.testing.assert_array_equal(np.stack(seen), whole[:, middle, middle])


# --- what must not pass ----------------------------------------------------------------------------


def test_another_model_fails(
    other_model: Any, model: Any, photos: list[Photo], spec: ModelSpec, tmp_path: Path
) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(export_onnx(other_model, spec))
    result = prove_one(model, onnx_file(path), photos, spec)
    assert not result.passed
    assert [entry.verdict for entry in result.engines] == ["FAILED", "not checked", "FAILED"]
    assert all(len(entry.failures) == 4 for entry in result.checked)
    assert prove_one(other_model, onnx_file(path), photos, spec).passed


@pytest.mark.parametrize("gate", [FLOAT, INT8])
def test_an_artifact_that_answers_nan_fails(
    model: Any, photos: list[Photo], spec: ModelSpec, tmp_path: Path, gate: Any
) -> None:
    path = tmp_path / "nan.onnx"
    path.write_bytes(append_to_onnx(_nan_model(), spec))
    result = prove_one(model, onnx_file(path, gate), photos, spec)
    assert "NaN or infinity" in result.failures[0]
    report = json.loads(as_json(Report("nan.keras", spec, PhotoSets([], [], photos, ""), [result])))
    assert report["passed"] is False
    assert report["artifacts"][0]["engines"][0]["figures"] == {}


def _nan_model() -> bytes:
    """The output has the right shape, and every probability 0 / 0."""
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
    exported: Export, model: Any, photos: list[Photo], spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unet_export.gate.runners.installed", lambda name: False)
    result = prove_one(model, onnx_file(exported.folder / ONNX), photos, spec)
    assert [entry.verdict for entry in result.engines] == ["not checked"] * len(result.engines)
    assert len(result.failures) == 1
    assert "not checked: ONNX Runtime is not installed" in result.failures[0]
    assert "pip install" in result.failures[0]
    assert result.checked == ()
    assert "not checked: OpenVINO: OpenVINO is not installed" in table([result])


def test_an_engine_that_is_not_installed_is_no_failure_beside_one_that_is(
    exported: Export, model: Any, photos: list[Photo], spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unet_export.gate.runners.installed", lambda name: name == "onnx")
    result = prove_one(model, onnx_file(exported.folder / ONNX), photos, spec)
    assert result.passed
    assert [entry.verdict for entry in result.engines] == ["passed", "not checked", "not checked"]
    assert " passed" in table([result])
    assert "not checked: OpenVINO: OpenVINO is not installed" in table([result])


def test_an_engine_that_breaks_on_the_way_fails(
    exported: Export, model: Any, photos: list[Photo], spec: ModelSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, images: Any) -> Any:
        raise RuntimeError("kernel died")

    monkeypatch.setattr("unet_runtime.engines.openvino.OpenVINOBackend.run", broken)
    result = prove_one(model, onnx_file(exported.folder / ONNX), photos, spec)
    assert [entry.verdict for entry in result.engines] == ["passed", "not checked", "FAILED"]
    assert "cannot run it: kernel died" in result.failures[0]


def test_a_damaged_artifact_fails(
    exported: Export, model: Any, photos: list[Photo], spec: ModelSpec, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.onnx"
    path.write_bytes((exported.folder / ONNX).read_bytes()[:-1])
    result = prove_one(model, onnx_file(path), photos, spec)
    assert "digest" in result.failures[0]


def test_an_artifact_of_another_size_fails(exported: Export, model: Any, photos: list[Photo], spec: ModelSpec) -> None:
    def reference(images: Any) -> Any:
        return model(images, training=False).numpy()[..., :2]

    (result,) = parity.prove(reference, [onnx_file(exported.folder / ONNX)], photos, spec)
    assert len(result.failures) == 2
    assert f"output (8, {SIZE}, {SIZE}, 3), expected (8, {SIZE}, {SIZE}, 2)" in result.failures[0]


# --- the trained model's own rounding --------------------------------------------------------------


def test_a_reference_that_is_wrong_by_more_than_the_artifact_does_not_fail_it(
    model: Any, photos: list[Photo], spec: ModelSpec, exported: Export
) -> None:
    """Where Keras rounds badly, as float32 may, the artifact is compared with float64."""

    def rounding(images: Any) -> Any:
        return model(images, training=False).numpy() + np.float32(1.5e-5)

    candidate = onnx_file(exported.folder / ONNX)
    (alone,) = parity.prove(rounding, [candidate], photos, spec)
    assert "max|dp| " in alone.failures[0]
    (result,) = parity.prove(rounding, [candidate], photos, spec, partial(exact_runner, model))
    exact = result.checked[0].exact
    assert result.passed
    assert exact is not None
    assert exact.max_abs < 1e-5 < exact.noise < 3e-5
    assert exact.tolerance == 2 * exact.noise
    assert f"tolerance {exact.tolerance:.2g}; the trained model in float32 by {exact.noise:.2g}" in table([result])


def test_a_file_that_is_wrong_stays_wrong_in_float64(
    model: Any, photos: list[Photo], spec: ModelSpec, exported: Export
) -> None:
    proto = onnx.load_from_string(read_artifact(exported.folder / ONNX).content)
    wrong = exported.folder.parent / "wrong.onnx"
    head = next(entry for entry in proto.graph.initializer if entry.name == "logits_input2")
    head.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(head) + np.float32([0, 0, 1e-4]), head.name))
    wrong.write_bytes(append_to_onnx(proto.SerializeToString(), spec))

    def reference(images: Any) -> Any:
        return model(images, training=False).numpy()

    (result,) = parity.prove(reference, [onnx_file(wrong)], photos, spec, partial(exact_runner, model))
    assert "max|dp| " in result.failures[0]
    exact = result.checked[0].exact
    assert exact is not None
    assert exact.noise < exact.tolerance == 1e-5 < exact.max_abs


def test_a_tolerance_that_was_changed_is_kept(
    model: Any, photos: list[Photo], spec: ModelSpec, exported: Export
) -> None:
    def rounding(images: Any) -> Any:
        return model(images, training=False).numpy() + np.float32(1.5e-5)

    candidate = onnx_file(exported.folder / ONNX, replace(FLOAT, max_abs=1.2e-5))
    (result,) = parity.prove(rounding, [candidate], photos, spec, partial(exact_runner, model))
    assert not result.passed
    assert result.checked[0].exact is None


def test_the_default_gate_is_no_looser_while_the_model_keeps_it_itself() -> None:
    assert exact_tolerance(0.0) == exact_tolerance(9e-6) == GATES["float32"].max_abs
    assert exact_tolerance(1.3e-5) == 2.6e-5

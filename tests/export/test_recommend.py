"""Which artifact the page names for which device, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from tests.helpers.results import FLOAT, HALF, INT8, SAVED, WORSE, artifact, engine, metrics, quantized, report
from unet_export.report.recommend import Recommendation, activation_bytes, recommend


@pytest.fixture(autouse=True)
def memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The results made by hand have no files."""
    monkeypatch.setattr("unet_export.report.recommend.activation_bytes", lambda path: 54321)


def by_device(results: Sequence[Recommendation]) -> dict[str, Recommendation]:
    return {entry.device: entry for entry in results}


def test_the_fastest_that_passed_is_for_a_cpu() -> None:
    choice = by_device(recommend(report(SAVED, FLOAT, INT8)))["CPU"]
    assert choice.artifact == "colours-16.int8.tflite"
    assert "8.00 ms per photo in LiteRT 1.0, 2.5 times as fast as ONNX Runtime float32" in choice.reason
    assert "0.5 times as fast as TensorFlow on the SavedModel" in choice.reason
    assert "Mean IoU changes by -0.10 points, blue IoU, which loses most, by -0.20." in choice.reason.replace(
        "\N{MINUS SIGN}", "-"
    )


def test_an_artifact_that_failed_is_never_recommended() -> None:
    choices = by_device(recommend(report(FLOAT, WORSE)))
    assert choices["CPU"].artifact == "colours-16.float32.onnx"
    assert "16.0 ms per photo in OpenVINO 1.0" in choices["CPU"].reason
    assert choices["Small Arm CPU"] == Recommendation("Small Arm CPU", "", "No TFLite passed.")
    assert choices["Microcontroller"].artifact == ""


def test_one_engine_that_fails_rules_the_artifact_out() -> None:
    half_right = artifact("onnx", 4000, engine("onnx", 1.0, metrics()), engine("openvino", 1.0, metrics(max_abs=0.1)))
    assert [choice.artifact for choice in recommend(report(half_right))] == [""] * 4


def test_a_small_arm_cpu_gets_the_smallest_int8_or_else_the_smallest_tflite() -> None:
    wide = quantized("tflite-int16x8", 800, 9.0)
    assert by_device(recommend(report(INT8, wide)))["Small Arm CPU"].artifact == "colours-16.int8.tflite"
    fallback = by_device(recommend(report(WORSE, wide)))["Small Arm CPU"]
    assert fallback.artifact == "colours-16.int16x8.tflite"
    assert "No int8 TFLite passed" in fallback.reason
    assert "not measured on such a CPU" in fallback.reason


def test_a_gpu_that_was_not_there_is_not_spoken_of_as_measured() -> None:
    choice = by_device(recommend(report(FLOAT, HALF, INT8)))["GPU"]
    assert choice.artifact == "colours-16.float16.onnx"
    assert "Not measured on a GPU: no CUDA driver here." in choice.reason
    assert " ms" not in choice.reason


def test_on_a_gpu_that_was_there_the_fastest_float_onnx_is_chosen() -> None:
    half = artifact("onnx-float16", 2000, engine("onnx", 30.0, metrics()), engine("onnx", 3.0, metrics(), "cuda"))
    whole = artifact("onnx", 4000, engine("onnx", 20.0, metrics()), engine("onnx", 2.0, metrics(), "cuda"))
    choice = by_device(recommend(report(half, whole)))["GPU"]
    assert choice.artifact == "colours-16.float32.onnx"
    assert "measured on CUDA here: 2.00 ms per photo in ONNX Runtime 1.0 CUDA." in choice.reason
    assert by_device(recommend(report(half, whole)))["CPU"].reason.startswith("The fastest on this machine: 20.0 ms")


def test_a_microcontroller_gets_integers_with_bytes_and_what_is_not_known() -> None:
    choice = by_device(recommend(report(INT8)))["Microcontroller"]
    assert "1,000 bytes of flash, and by its graph at least 54,321 bytes of RAM" in choice.reason
    assert "Not checked: whether" in choice.reason


def chain(*operators: tuple[list[int], int], sizes: Sequence[tuple[int, int]], constant: int) -> bytes:
    """A ``.tflite`` of operators (tensors in, tensor out) on tensors of (elements, type); the graph begins with tensor
    0 and ends with the last operator's; the file holds the values of ``constant``."""
    model, graph, code = schema.ModelT(), schema.SubGraphT(), schema.OperatorCodeT()
    values = schema.BufferT()
    values.data = np.zeros(1000, np.uint8)
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    graph.tensors, graph.operators = [], []
    for index, (size, kind) in enumerate(sizes):
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer = np.array([1, size], np.int32), kind, int(index == constant)
        graph.tensors.append(tensor)
    for sources, target in operators:
        operator = schema.OperatorT()
        operator.inputs, operator.outputs = np.array(sources, np.int32), np.array([target], np.int32)
        graph.operators.append(operator)
    graph.inputs, graph.outputs = np.array([0], np.int32), np.array([operators[-1][1]], np.int32)
    model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [graph], [code], [schema.BufferT(), values]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def test_activations_are_counted_while_somebody_still_needs_them(tmp_path: Path) -> None:
    """0 -> 1 -> 2 -> 3, which needs 1 again; tensor 4 is a constant."""
    int8, int16 = schema.TensorType.INT8, schema.TensorType.INT16
    sizes = [(50, int8), (30, int16), (20, int8), (10, int8), (1000, int8)]
    direct = chain(([0, 4], 1), ([1], 2), ([2], 3), sizes=sizes, constant=4)
    (tmp_path / "direct.tflite").write_bytes(direct)
    assert activation_bytes(tmp_path / "direct.tflite") == 50 + 60
    skipping = chain(([0, 4], 1), ([1], 2), ([2, 1, 4], 3), sizes=[(5, int8), *sizes[1:]], constant=4)
    (tmp_path / "skipping.tflite").write_bytes(skipping)
    assert activation_bytes(tmp_path / "skipping.tflite") == 60 + 20 + 10

"""Tables, sentences, JSON and the picture, of rows that are known."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.rows import MACHINE, row
from unet_runtime.bench import advice, plot
from unet_runtime.bench.advice import advise
from unet_runtime.bench.measure import Row, Settings
from unet_runtime.bench.plan import Refusal
from unet_runtime.bench.report import Report, to_json, to_text
from unet_runtime.core.install import pip_command

SETTINGS = Settings((Path("a.jpg"),), rounds=2, photos_a_round=20)


def report(*rows: Row, refused: tuple[Refusal, ...] = ()) -> Report:
    return Report(MACHINE, SETTINGS, rows, refused, advise(rows, MACHINE))


def test_the_table_is_aligned_and_has_every_measurement() -> None:
    rows = [row(10, mean_iou=0.75), row(100, backend="tflite", precision="int8", threads=16, mean_iou=0.74)]
    text = to_text(report(*rows))
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("model "))
    first, second = lines[lines.index(head) + 1 : lines.index(head) + 3]
    for column in ("threads", "ms per photo", "inference", "photos/s", "cold start", "memory", "file", "mean IoU"):
        end = head.index(column) + len(column)
        assert first[end - 1] != " ", column
        assert second[end - 1] != " ", column
    values = second.split()
    assert " ".join(values) == "m.int8.tflite LiteRT 2.3.0 cpu 16 104.0 100.0 9.6 500 ms 100 MB 2.0 MB 0.7400"
    assert "100.0 / 200.0 / 300.0" in text
    assert "mean 0.7500  red 0.7500  green 0.7500  7 photos" in text


def test_accuracy_has_no_column_where_there_is_none() -> None:
    assert "IoU" not in to_text(report(row(10)))


def test_failures_are_named_beside_what_was_measured() -> None:
    failed = Row(row(1, backend="openvino").combination, error="its library is missing")
    result = report(row(10), failed, refused=(Refusal(Path("x.onnx"), "x.onnx: damaged"),))
    text = to_text(result)
    assert "failed: m.float32.onnx, openvino, auto, 1 thread: its library is missing" in text
    assert "failed: x.onnx: damaged" in text
    assert (result.failed, len(result.measured)) == (2, 1)
    content = json.loads(to_json(result))
    assert [entry["error"] for entry in content["rows"]] == ["", "its library is missing"]
    assert content["rows"][1]["cold_start"] is None
    assert content["refused"] == [{"file": "x.onnx", "reason": "x.onnx: damaged"}]


def test_models_of_one_name_in_two_folders_are_told_apart() -> None:
    text = to_text(report(row(10, folder="old"), row(11, folder="new")))
    assert "old/m.float32.onnx" in text
    assert "new/m.float32.onnx" in text


def test_a_busy_machine_is_named_as_such() -> None:
    busy = replace(MACHINE, load=3.0)
    text = to_text(Report(busy, SETTINGS, (row(10),), (), ()))
    assert "load 3.0\nThe machine is busy" in text
    assert "busy" not in to_text(report(row(10)))


def test_a_busy_machine_advises_nothing_but_the_command() -> None:
    rows = [row(10), row(15, backend="tflite", precision="int8")]
    sentences = advise(rows, replace(MACHINE, load=3.0))
    assert sentences[0] == "No advice: the machine was busy with other work. Measure again when it is quiet"
    assert not any(word in " ".join(sentences) for word in ("Fastest", "slower"))
    assert sentences[-1] == (
        "To run the first line:\n  unet-run photo.jpg --model models/m.float32.onnx --backend onnx --threads 1"
    )


def test_what_cannot_be_told_from_the_fastest_is_named_with_it() -> None:
    """By a twentieth in general, by more where the rounds were apart; the command takes the more accurate."""
    rows = [row(10, mean_iou=0.7), row(10.5, backend="openvino", mean_iou=0.8), row(12, backend="tflite")]
    sentences = advise(rows, MACHINE)
    assert sentences[0].startswith("Fastest: m.float32.onnx, ONNX Runtime 1.31.1, 1 thread: 14.0 ms")
    assert (
        sentences[1] == "As fast, within what two runs differ by: m.float32.onnx, OpenVINO 2026.4.1, 1 thread: 14.5 ms"
    )
    assert not any("LiteRT" in sentence for sentence in sentences)
    assert "--backend openvino" in sentences[-1]
    restless = [rows[0], replace(rows[2], spread=0.3)]
    assert any("As fast" in sentence and "LiteRT" in sentence for sentence in advise(restless, MACHINE))


def test_the_table_begins_with_the_fastest() -> None:
    text = to_text(report(row(30), row(10, backend="openvino")))
    assert text.index("OpenVINO 2026.4.1") < text.index("ONNX Runtime 1.31.1")


def test_the_fastest_and_the_most_accurate_are_named() -> None:
    rows = [row(30, mean_iou=0.8), row(10, backend="openvino", threads=2, mean_iou=0.7)]
    sentences = advise(rows, MACHINE)
    assert sentences[0].startswith("Fastest: m.float32.onnx, OpenVINO 2026.4.1, 2 threads: 14.0 ms per photo")
    assert sentences[1] == "Most accurate: m.float32.onnx, ONNX Runtime 1.31.1: mean IoU 0.8000"


def test_int8_that_is_slower_is_named_with_the_reason_on_this_cpu() -> None:
    rows = [row(10), row(15, backend="tflite", precision="int8")]
    text = " ".join(advise(rows, MACHINE))
    assert "int8 is slower here with 1 thread: m.int8.tflite, LiteRT 2.3.0 takes 15.0 ms" in text
    assert "10.0 ms: 1.5 times as long" in text
    assert "This CPU has no VNNI or AMX instructions" in text
    able = " ".join(advise(rows, replace(MACHINE, features=("avx512_vnni",))))
    assert "This CPU has VNNI or AMX instructions, so" in able
    arm = replace(MACHINE, architecture="aarch64", features=("neon",))
    assert "This CPU has no dot-product instructions (dotprod, i8mm)" in " ".join(advise(rows, arm))
    assert "does not say whether" in " ".join(advise(rows, replace(MACHINE, features=None)))


@pytest.mark.parametrize(
    "other",
    [
        row(5, backend="tflite", precision="int8"),  # faster
        row(10.2, backend="tflite", precision="int8"),  # within what two runs differ by
        row(15, backend="tflite", precision="int8", weights="b" * 64),
        row(15, backend="tflite", precision="int8", threads=2),
        row(15, backend="tflite", precision="float16"),
    ],
)
def test_int8_is_not_called_slow_without_need(other: Row) -> None:
    assert "slower" not in " ".join(advise([row(10), other], MACHINE))


def test_int8_is_compared_in_the_same_engine_or_else_with_the_fastest() -> None:
    rows = [row(20), row(30, precision="int8"), row(5, backend="openvino"), row(8, backend="tflite", precision="int8")]
    slower = [line for line in advise(rows, MACHINE) if "slower" in line]
    assert len(slower) == 2
    assert "m.int8.tflite, LiteRT 2.3.0 takes 8.0 ms" in slower[0]
    assert "5.0 ms: 1.6 times" in slower[0]
    assert "m.int8.onnx, ONNX Runtime 1.31.1 takes 30.0 ms" in slower[1]
    assert "20.0 ms: 1.5 times" in slower[1]


def test_an_engine_that_is_not_installed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "installed", lambda name: name != "openvino")
    expected = f"Not installed, so not measured: openvino ({pip_command('openvino')})"
    assert expected in advise([row(10)], MACHINE)
    tried = Row(row(1, backend="openvino").combination, error="not installed")
    assert expected not in advise([row(10), tried], MACHINE)  # its row says so already


def picture(result: Report) -> np.ndarray:
    buffer = io.BytesIO()
    plot.draw(result, buffer)
    return np.asarray(Image.open(buffer).convert("RGB"))


def test_the_picture_has_a_bar_of_each_stage_s_colour_in_proportion() -> None:
    pixels = picture(report(row(40), row(10, backend="openvino")))
    inference = (pixels == (0xD5, 0x5E, 0x00)).all(-1)
    lengths = inference.sum(axis=1)
    bars = sorted(set(lengths[lengths > 60]))  # the legend's patch is shorter
    assert max(bars) / min(bars) == pytest.approx(4, rel=0.05)
    postprocess = (pixels == (0xF0, 0xE4, 0x42)).all(-1).sum(axis=1)
    assert max(bars) / np.median(postprocess[postprocess > 0]) == pytest.approx(40, rel=0.35)


def test_accuracy_has_a_panel_of_its_own() -> None:
    plain = picture(report(row(40), row(10, backend="openvino")))
    scored = picture(report(row(40, mean_iou=0.7), row(10, backend="openvino", mean_iou=0.8)))
    assert scored.shape[0] > plain.shape[0] + 300
    assert scored.shape[1] == plain.shape[1]

"""What is measured: files, engines, devices, threads, and what is refused."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from unet_runtime.bench import plan as plans
from unet_runtime.bench.plan import model_files, plan
from unet_runtime.core.cores import usable_cores
from unet_runtime.core.errors import ModelFileError
from unet_runtime.engines import ENGINES, MODELS, installed
from unet_runtime.engines.base import FLOAT_ONNX


def test_the_bundled_models_are_measured_when_none_is_named() -> None:
    assert {path.suffix for path in model_files([])} == {".onnx", ".tflite"}


def test_of_the_bundled_models_those_are_measured_that_the_named_engines_read() -> None:
    assert [path.suffix for path in model_files([], ["tflite"])] == [".tflite"]


def test_a_folder_stands_for_the_models_in_it_once(colour_model: Path, tmp_path: Path) -> None:
    (tmp_path / "b.onnx").write_bytes(colour_model.read_bytes())
    (tmp_path / "notes.txt").write_text("no model")
    assert model_files([tmp_path, tmp_path / "b.onnx", colour_model]) == [tmp_path / "b.onnx", colour_model]
    (tmp_path / "c.tflite").write_text("not read here")
    assert model_files([tmp_path], ["tflite"]) == [tmp_path / "c.tflite"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelFileError, match=r"empty: no model in this folder, expected .onnx or .tflite"):
        model_files([tmp_path / "empty"])


def test_every_installed_engine_that_reads_a_file_runs_it_on_each_device_with_each_number_of_threads() -> None:
    combinations, refusals = plan([FLOAT_ONNX], [], ["auto", "cpu"], [1, 2])
    engines = [name for name, engine in ENGINES.items() if ".onnx" in engine.suffixes and installed(name)]
    expected = [(engine, device, count) for engine in engines for device in ("auto", "cpu") for count in (1, 2)]
    assert [(c.backend, c.device, c.threads) for c in combinations] == expected
    assert refusals == []
    model = combinations[0].model
    content = model.path.read_bytes()
    assert (model.bytes, model.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_a_named_engine_that_is_not_installed_is_planned_so_that_its_row_says_so(
    colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "installed", lambda name: name != "openvino")
    assert [c.backend for c in plan([colour_model], [], ["cpu"], [1])[0]] == ["onnx"]
    assert [c.backend for c in plan([colour_model], ["openvino"], ["cpu"], [1])[0]] == ["openvino"]


def test_what_cannot_be_measured_is_refused_with_the_reason_and_the_others_go_on(
    colour_model: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.onnx"
    content = bytearray(colour_model.read_bytes())
    content[10] ^= 1
    damaged.write_bytes(content)
    files = [damaged, tmp_path / "absent.onnx", *MODELS.glob("*.tflite"), colour_model]
    combinations, refusals = plan(files, ["onnx"], ["cpu"], [1])
    assert [c.model.path for c in combinations] == [colour_model]
    reasons = [refusal.reason for refusal in refusals]
    assert "damaged.onnx: damaged" in reasons[0]
    assert "no such model file" in reasons[1]
    assert "none of onnx reads .tflite files, tflite" in reasons[2]


def test_cores_are_those_that_this_process_may_use() -> None:
    everywhere = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(everywhere)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, everywhere)
    assert usable_cores() <= len(everywhere)

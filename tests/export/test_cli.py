"""``unet-export`` as a shell sees it: output and exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import unet_export
from tests.helpers.exported import ONNX
from unet_export.cli.command import main

Command = Callable[..., int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Arguments -> exit code."""

    def run(*arguments: Any) -> int:
        monkeypatch.setattr(sys, "argv", ["unet-export", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0)

    return run


def test_a_good_export_prints_a_table_and_exits_0(
    command: Command, small_file: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    formats = "saved-model,onnx,tflite"
    assert command(small_file, "--data", data, "--output", tmp_path / "out", "--formats", formats) == 0
    printed, errors = capfd.readouterr()
    lines = [line.split() for line in printed.splitlines()]
    passed = [line[0] for line in lines if line[-1] == "passed"]
    assert list(dict.fromkeys(passed)) == ["saved_model", ONNX, ONNX.replace("onnx", "tflite")]
    assert passed.count(ONNX) == 2  # ONNX Runtime and OpenVINO
    assert "not checked: ONNX Runtime CUDA: device cuda" in printed
    assert printed.splitlines()[-1] == f"accepted: {tmp_path / 'out'}"
    lines = errors.splitlines()
    assert lines[-1] == "proving 3 artifacts on 16 photos"
    assert all(line.split()[0] in ("calibrating", "proving", "exporting") for line in lines)  # nothing of TensorFlow's


def test_a_failed_gate_exits_4_and_shows_why(
    command: Command, small_file: Path, data: Path, tmp_path: Path, mixed_up: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command(small_file, "--data", data, "--output", tmp_path / "out", "--formats", "onnx") == 4
    printed, errors = capfd.readouterr()
    assert f"{ONNX}: ONNX Runtime" in printed
    assert "max|dp|" in printed
    assert f"error: {ONNX}: too different from" in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["rejected"]
    assert sorted(path.name for path in (tmp_path / "out/rejected").iterdir()) == ["parity.json", "report.html", ONNX]


def test_wrong_usage_exits_2(command: Command, model_file: Path, data: Path) -> None:
    assert command(model_file) == 2
    assert command(model_file, "--data", data, "--calibration-count", 199) == 2
    assert command(model_file, "--data", data, "--parity-count", 63) == 2
    assert command(model_file, "--data", data, "--formats", "onnx,onnx-int7") == 2
    assert command(model_file, "--data", data, "--size", "160") == 2  # of a model that says its own
    assert command(model_file, "--calibration", data) == 2  # and what proves?
    assert command(model_file, "--data", data, "--classes", "a,b", "--size", "0x3") == 2


def test_json_is_all_that_is_printed_and_quiet_is_quiet(
    command: Command, small_file: Path, data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = ("--data", data, "-o", tmp_path / "out", "--formats", "onnx", "--json", "-q")
    assert command(small_file, *options) == 0
    printed, errors = capfd.readouterr()
    assert json.loads(printed) == json.loads((tmp_path / "out" / "parity.json").read_text())
    assert errors == ""


def test_a_misspelt_command_gets_a_suggestion(command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("bundel") == 2
    assert "Did you mean 'bundle'?" in capfd.readouterr().err
    assert command("absent.keras", "--data", ".") == 3


def test_missing_data_exits_1_and_names_it(
    command: Command, model_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert command(model_file, "--data", tmp_path / "nowhere", "--output", tmp_path / "out") == 1
    assert str(tmp_path / "nowhere") in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_models_that_cannot_be_exported_exit_3(
    command: Command,
    model_file: Path,
    model: Any,
    colour_model: Path,
    data: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    damaged = tmp_path / "damaged.keras"
    content = bytearray(model_file.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    foreign = tmp_path / "foreign.keras"
    model.save(foreign)
    cases = {
        damaged: "damaged",
        foreign: "was not made by",
        tmp_path / "missing.keras": "no such model file",
        colour_model: "export that again",
    }
    for path, reason in cases.items():
        assert command(path, "--data", data, "--output", tmp_path / "out") == 3
        error = capfd.readouterr().err
        assert str(path) in error
        assert reason in error
    assert not (tmp_path / "out").exists()


def test_ctrl_c_exits_130(
    command: Command, model_file: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unet_export.pipeline.load_model", interrupted)
    assert command(model_file, "--data", data, "--output", tmp_path / "out") == 130
    assert list(tmp_path.iterdir()) == []


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **paths, **environment}, capture_output=True, text=True
    )


def test_help_does_not_wait_for_the_engines() -> None:
    code = "import sys, unet_export.cli.command; print(sorted({'tensorflow', 'keras', 'onnx'} & set(sys.modules)))"
    assert python(code).stdout.strip() == "[]"


def test_the_public_names_are_imported_when_they_are_used() -> None:
    code = (
        "import sys, unet_export; print('tensorflow' in sys.modules, 'keras' in sys.modules);"
        "from unet_export import *; print(export_model.__module__, PhotoSource.__module__)"
    )
    assert python(code).stdout.split() == ["False", "False", "unet_export.pipeline", "unet_export.photos"]
    with pytest.raises(AttributeError, match="no attribute 'exportmodel'"):
        unet_export.exportmodel  # noqa: B018


def test_another_keras_backend_exits_3(model_file: Path, data: Path, tmp_path: Path) -> None:
    arguments = ["unet-export", str(model_file), "--data", str(data), "--output", str(tmp_path / "out")]
    answer = python(
        f"import sys; sys.argv = {arguments}; from unet_export.cli.command import main; main()", KERAS_BACKEND="jax"
    )
    assert answer.returncode == 3
    assert answer.stderr.startswith("error: Keras runs on jax, expected tensorflow")

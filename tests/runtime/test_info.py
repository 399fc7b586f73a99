"""unet-info: what it says about model files and this machine, and that no broken engine ends it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.helpers import bundled
from tests.helpers.colours import colour_spec
from unet_runtime.cli import info, machine
from unet_runtime.core.artifact import write_keras, write_saved_model_spec
from unet_runtime.engines import ENGINES, MODELS, choose

MAIN = [sys.executable, "-c", "from unet_runtime.cli.info import main; main()"]


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MAIN, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a plain ``pip install unet-edge-runtime``."""
    monkeypatch.setattr(machine, "installed", lambda name: False)


def invoke(*arguments: str | Path) -> tuple[int, str, str]:
    done = CliRunner().invoke(info.command, [*map(str, arguments)], standalone_mode=False)
    assert done.exception is None, done.output
    return done.return_value, done.stdout, done.stderr


def test_this_machine_for_programs() -> None:
    done = run("--json")
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    models = {Path(entry["path"]).name: entry for entry in report["models"]}
    assert set(models) == {path.name for path in MODELS.iterdir()}
    for name, entry in models.items():
        assert entry["sha256"] == (MODELS / name).read_bytes()[-64:].decode()
        assert entry["undamaged"] is True
        assert entry["spec"]["provenance"]["metrics"]["mean_iou"] > 0.7
    engines = {engine["name"]: engine for engine in report["engines"]}
    for name in ("onnx", "tflite", "openvino"):
        cpu = engines[name]["devices"][0]
        assert (cpu["device"], cpu["runs"]) == ("cpu", True), cpu
        assert cpu["engine"][-1].isdigit()
    cuda = engines["onnx"]["devices"][1]
    assert (cuda["device"], cuda["runs"]) == ("cuda", False)
    assert "pip" not in cuda["reason"]  # no driver here: another wheel would not help
    assert "no NVIDIA driver was found here: install that of the GPU first" in cuda["reason"]
    default = choose(list(ENGINES))
    assert (report["default_engine"], Path(report["default_model"])) == (default.engine, default.model)
    assert report["default_reason"] == default.why
    assert 1 <= report["machine"]["usable_cores"] <= report["machine"]["logical_cores"]


def test_a_model_says_what_it_is(no_engine: None) -> None:
    code, text, _ = invoke(bundled.INT8_TFLITE)
    assert code == 0
    spec = bundled.SPEC
    for expected in (
        f"{spec.name}, architecture {spec.architecture}, int8",
        f"{bundled.INT8_TFLITE.stat().st_size / 1e6:.1f} MB, undamaged (SHA-256 ",
        f"{spec.input.width}x{spec.input.height} pixels, RGB: a photo of any size",
        "pet (foreground), background (background), border (neutral)",
        f"{spec.provenance.data}",
        f"mean IoU {spec.provenance.metrics['mean_iou']:.4f}",
        "on 2922 test photos, in float32",
        "method minmax, photos 200",
        "Apache-2.0",
        'nothing yet: pip install "ai-edge-litert',
    ):
        assert expected in text, text


def test_a_machine_without_an_engine_gets_the_commands(no_engine: None) -> None:
    code, text, _ = invoke()
    assert code == 0
    assert "No engine is installed, so nothing runs yet." in text
    for package in ("onnxruntime", "ai-edge-litert", "openvino"):
        assert f'not installed: pip install "{package}' in text


def test_damaged_models_are_exit_code_3_and_the_others_are_described(no_engine: None, tmp_path: Path) -> None:
    content = bytearray(bundled.INT8_TFLITE.read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "damaged.tflite").write_bytes(content)
    good = bundled.FLOAT_ONNX
    code, text, errors = invoke(tmp_path / "damaged.tflite", tmp_path / "absent.onnx", good)
    assert code == 3
    assert "damaged.tflite: damaged: its bytes have SHA-256" in errors
    assert "absent.onnx: no such model file" in errors
    assert f"architecture {bundled.SPEC.architecture}, float" in text
    code, text, _ = invoke("--json", tmp_path / "damaged.tflite", good)
    assert code == 3
    damaged, right = json.loads(text)["models"]
    assert "damaged" in damaged["error"]
    assert right["spec"]["name"] == bundled.SPEC.name


def test_files_that_no_engine_runs_are_read_all_the_same(no_engine: None, tmp_path: Path) -> None:
    """A SavedModel's folder and a .keras file, with a spec that records nothing of its training."""
    import zipfile

    folder = tmp_path / "saved_model"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"graph")
    write_saved_model_spec(folder, colour_spec(fit="letterbox"))
    write_keras(lambda path: zipfile.ZipFile(path, "w").close(), tmp_path / "model.keras", colour_spec())
    code, text, _ = invoke(folder, tmp_path / "model.keras")
    assert code == 0
    assert text.count("colours, architecture none, float32") == 2
    assert text.count("trained on not recorded") == 2
    assert text.count("no engine of this package: unet-export makes .onnx and .tflite files") == 2
    assert "its aspect ratio kept" in text


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("raise OSError('GLIBC_2.38 not found')", "cannot be imported (GLIBC_2.38 not found)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGILL)", "Illegal instruction): is its wheel made for this"),
        ("import os; os._exit(7)", "the process ended without a result: exit status 7"),
        ("import time; time.sleep(60)", "took more than 3 s"),
    ],
    ids=["raises", "crashes", "exits", "hangs"],
)
def test_an_engine_that_is_broken_does_not_break_it(
    source: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ai_edge_litert").mkdir()
    (tmp_path / "ai_edge_litert" / "__init__.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(machine, "_SECONDS", 3 if "sleep" in source else 60)
    state, _ = machine._try_devices(ENGINES["tflite"])
    assert (state.device, state.runs) == ("cpu", False)
    assert reason in state.reason


def test_devices_are_listed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with a GPU and a broken LiteRT."""
    states = (
        machine.DeviceState("cpu", True, "", "ONNX Runtime 1.31.1"),
        machine.DeviceState("cuda", True, "9 of the model's 49 nodes run on the CPU", "ONNX Runtime 1.31.1"),
        machine.DeviceState("tensorrt", None, "its libraries load"),
    )
    engines = [
        machine.EngineState("onnx", (".onnx",), True, "pip install onnx", 4, states),
        machine.EngineState("tflite", (".tflite",), True, "", 4, (machine.DeviceState("cpu", False, "it crashes"),)),
    ]
    monkeypatch.setattr(machine, "engine_states", lambda: engines)
    monkeypatch.setattr("unet_runtime.engines.choice.has_gpu_wheel", lambda package: True)
    code, text, _ = invoke()
    assert code == 0
    lines = [line.strip() for line in text.splitlines()]
    for expected in (
        "onnx      ONNX Runtime 1.31.1, reads .onnx, 4 threads",
        "cpu      runs",
        "tensorrt not tried: its libraries load",
        "cuda     runs: 9 of the model's 49 nodes run on the CPU",
        "runs on    onnx (cpu, cuda)",
        "tflite    installed, but broken, reads .tflite, 4 threads",
        "cpu      does not run: it crashes",
    ):
        assert expected in lines, text
    assert f"unet-run takes onnx on cuda with {bundled.FLOAT_ONNX.name} if no option says otherwise: " in text
    monkeypatch.setattr(machine, "engine_states", lambda: engines[1:])
    assert "unet-run takes tflite, which does not run: see below" in invoke()[1]


def test_the_report_goes_to_a_file(no_engine: None, tmp_path: Path) -> None:
    code, text, _ = invoke("--json", "-o", tmp_path / "new" / "machine.json")
    assert (code, text) == (0, "")
    assert json.loads((tmp_path / "new" / "machine.json").read_text())["default_engine"] is None


def test_wrong_use() -> None:
    done = run("--backend", "onnx")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_model_is_not_replaced(tmp_path: Path, colour_model: Path) -> None:
    (tmp_path / "m.bin").hardlink_to(colour_model)
    for arguments in ([colour_model, "-o", colour_model], [colour_model, "-o", tmp_path / "m.bin"], ["-o", "new.onnx"]):
        done = CliRunner().invoke(info.command, [*map(str, arguments)])
        assert done.exit_code == 2, done.output
        assert "would replace a model" in done.output
    assert colour_model.read_bytes() == (tmp_path / "m.bin").read_bytes()

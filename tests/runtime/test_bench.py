"""unet-bench as a user runs it: real engines, the bundled models, and whatever can be wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.live import wait_for
from unet_runtime.bench.worker import STAGES
from unet_runtime.cli import bench, exits
from unet_runtime.core.errors import INTERRUPTED, TERMINATED
from unet_runtime.engines import ENGINES, MODELS, installed

COMMAND = [sys.executable, "-c", "from unet_runtime.cli.bench import main; main()"]
QUICK = ["--rounds", "1", "--photos-a-round", "2", "--threads", "1"]


def run(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def without(folder: Path, package: str) -> dict[str, str]:
    """Environment of processes in which ``package`` is not installed."""
    (folder / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, package=None: None if name == {package!r} else find(name, package)\n"
    )
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


def called(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Exit code of the command in this process."""
    monkeypatch.setattr(sys, "argv", ["unet-bench", *arguments])
    with pytest.raises(SystemExit) as end:
        exits.run(bench.command)
    return int(end.value.code or 0)


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_the_bundled_models_run_in_every_engine(tmp_path: Path) -> None:
    done = run(*QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("round 1 of 1, 1 of ")
    content = read(tmp_path / "unet-bench" / "bench.json")
    expected = {
        (path.name, name)
        for path in MODELS.glob("*.*")
        for name, engine in ENGINES.items()
        if path.suffix in engine.suffixes and installed(name)
    }
    assert {(Path(row["model"]["file"]).name, row["backend"]) for row in content["rows"]} == expected
    for row in content["rows"]:
        assert set(row["stages"]) == {*STAGES, "total"}
        assert all(0 < values["p50"] <= values["p95"] <= values["p99"] for values in row["stages"].values())
        assert row["cold_start"]["total"] > 0
        assert row["engine"] in done.stdout
        assert row["accuracy"] is None
    assert f"\n  unet-run photo.jpg --model {MODELS}/" in done.stdout  # the fastest, but for a machine that is busy
    with Image.open(tmp_path / "unet-bench" / "bench.png") as picture:
        assert picture.width > 1000
    assert sorted(path.name for path in (tmp_path / "unet-bench").iterdir()) == ["bench.json", "bench.png"]


def test_a_damaged_model_does_not_stop_the_good_one(colour_model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(colour_model.read_bytes()[:-1])
    done = run(*QUICK, "--backend", "onnx", "bad.onnx", colour_model, "--json", "to/here.json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "failed: bad.onnx: " in done.stdout
    content = read(tmp_path / "to" / "here.json")
    assert [row["error"] for row in content["rows"]] == [""]
    assert content["refused"][0]["file"] == "bad.onnx"
    assert not (tmp_path / "unet-bench" / "bench.json").exists()


def test_json_on_standard_output_and_silence(colour_model: Path, tmp_path: Path) -> None:
    done = run(*QUICK, "--backend", "onnx", colour_model, "-o", "out", "-q", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert json.loads(done.stdout) == read(tmp_path / "out" / "bench.json")


def test_an_engine_that_is_not_installed_is_named_with_the_command(tmp_path: Path) -> None:
    environment = without(tmp_path, "ai_edge_litert")
    tflite = next(MODELS.glob("*.tflite"))
    for arguments in ([tflite], [tflite, "--backend", "tflite"]):
        done = run(*QUICK, *arguments, cwd=tmp_path, **environment)
        assert done.returncode == 3
        assert 'pip install "ai-edge-litert' in done.stdout
        assert "Traceback" not in done.stderr


def test_without_matplotlib_there_are_table_and_json_and_a_note(colour_model: Path, tmp_path: Path) -> None:
    done = run(*QUICK, "--backend", "onnx", colour_model, cwd=tmp_path, **without(tmp_path, "matplotlib"))
    assert done.returncode == 0, done.stderr
    assert 'no plot: matplotlib is not installed: pip install "matplotlib' in done.stderr
    assert f"\n  unet-run photo.jpg --model {colour_model} --backend onnx --threads 1" in done.stdout
    assert [path.name for path in (tmp_path / "unet-bench").iterdir()] == ["bench.json"]


def test_a_photo_that_cannot_be_read_is_left_out_and_said(colour_model: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    name = os.fsdecode(b"good \xff.png")  # no Unicode text, as a name may be
    Image.new("RGB", (64, 48), "red").save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "bad.jpg").write_text("text")
    done = run(*QUICK, "--backend", "onnx", colour_model, "--photos", "photos", cwd=tmp_path)
    assert done.returncode == 1
    assert "bad.jpg: not an image" in done.stderr
    assert [Path(path).name for path in read(tmp_path / "unet-bench/bench.json")["settings"]["photos"]] == [name]


def test_accuracy_on_the_test_part_of_a_dataset(pets_dir: Path, tmp_path: Path) -> None:
    done = run(*QUICK, "--backend", "tflite", "--data", pets_dir, "--count", "5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    content = read(tmp_path / "unet-bench" / "bench.json")
    [row] = content["rows"]
    assert (row["accuracy"]["photos"], content["settings"]["truth"]) == (5, 5)
    assert set(row["accuracy"]["class_iou"]) == {"pet", "background", "border"}
    assert 0.6 < row["accuracy"]["mean_iou"] < 0.95
    assert f"mean {row['accuracy']['mean_iou']:.4f}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--backend", "caffe"], 2, "'caffe', expected some of onnx,tflite,openvino"),
        (["--device", "abacus"], 2, "'abacus', expected some of auto,cpu"),
        (["--threads", "0"], 2, "'0', expected numbers from 1 to"),
        (["--threads", "1,many"], 2, "'many', expected numbers from 1 to"),
        (["--rounds", "0"], 2, "--rounds"),
        (["--save", "poster"], 2, "poster"),
        (["absent.onnx"], 3, "no such model file"),
        (["notes.txt"], 3, "suffix '.txt'"),
        (["empty"], 3, "no model in this folder"),
        (["--photos", "empty"], 1, "no photo in this folder"),
        (["--photos", "absent"], 1, "no such folder"),
        (["--data", "empty"], 1, "no photo in this folder"),
        (["--output", "notes.txt/deep"], 1, "cannot be written"),
        (["--json", "notes.txt/deep/x.json"], 1, "cannot be written"),
        (["--json", "m.onnx"], 2, "--json m.onnx would replace a model"),
    ],
)
def test_wrong_use_is_an_error_before_anything_is_measured(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("a file")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(bench, "bench", lambda combos, *rest: _nothing_to_measure(combos, *rest))
    assert called(arguments, monkeypatch) == code
    output = capsys.readouterr()
    assert message in output.err + output.out


_real_bench = bench.bench


def _nothing_to_measure(combinations: list[object], *rest: Any) -> Any:
    assert not combinations, "a combination would have been measured"
    return _real_bench([], *rest)


def test_threads_are_numbers_or_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "usable_cores", lambda: 4)
    for text, expected in (("1,all", (1, 4)), ("4, all,2", (4, 2))):
        with bench.command.make_context("unet-bench", ["--threads", text]) as context:
            assert context.params["threads"] == expected


@pytest.mark.parametrize(
    ("number", "delay", "code"),
    [(signal.SIGINT, 0.0, INTERRUPTED), (signal.SIGTERM, 2.5, TERMINATED)],  # at its start, at its work
)
def test_a_signal_ends_the_child_and_writes_nothing(number: int, delay: float, code: int, tmp_path: Path) -> None:
    process = subprocess.Popen(  # rounds of minutes
        [*COMMAND, "--photos-a-round", "5000"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(lambda: children.read_text())
    child = children.read_text().split()
    time.sleep(delay)
    process.send_signal(number)  # to the command alone: what a terminal sends, its child gets too
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    # One that was just started, and never given a job, ends by itself.
    wait_for(lambda: not Path(f"/proc/{child[0]}").exists())
    assert list((tmp_path / "unet-bench").iterdir()) == []


def test_the_command_imports_no_engine_and_no_matplotlib() -> None:
    script = "import sys, unet_runtime.cli.bench; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded
    assert not set(loaded) & {"matplotlib", "onnxruntime", "ai_edge_litert", "openvino"}

"""benchmarks/gpu.py without a GPU: its parts, its verdicts, and with SLOW_TESTS=1 the whole rehearsal on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_steps
from tests.helpers.paths import REPOSITORY

SLOW = pytest.mark.skipif(not os.environ.get("SLOW_TESTS"), reason="some minutes: set SLOW_TESTS=1")


@pytest.fixture
def content(tmp_path: Path) -> Path:
    folder = tmp_path / "content"
    (folder / "wheels").mkdir(parents=True)
    (folder / "wheels" / "large.whl").write_bytes(os.urandom(300_000))
    (folder / "about.json").write_text("{}")
    return folder


def test_a_large_file_is_cut_and_put_together(content: Path, tmp_path: Path) -> None:
    names = gpu.write_parts(content, tmp_path / "parcel", 100_000)
    assert len(names) == 4
    assert all((tmp_path / "parcel" / name).stat().st_size <= 100_000 for name in names)
    assert (tmp_path / "parcel" / "gpu.py").read_bytes() == Path(gpu.__file__).read_bytes()
    gpu.read_parts(tmp_path / "parcel", tmp_path / "there")
    for path in filter(Path.is_file, content.rglob("*")):
        assert (tmp_path / "there" / path.relative_to(content)).read_bytes() == path.read_bytes()


def test_fewer_parts_take_the_place_of_more(content: Path, tmp_path: Path) -> None:
    gpu.write_parts(content, tmp_path / "parcel", 50_000)
    names = gpu.write_parts(content, tmp_path / "parcel", 200_000)
    assert sorted(path.name for path in (tmp_path / "parcel").glob("part-*")) == names


@pytest.mark.parametrize("number", [1, 4])
def test_a_part_that_is_damaged_or_missing_is_named(number: int, content: Path, tmp_path: Path) -> None:
    parcel = tmp_path / "parcel"
    gpu.write_parts(content, parcel, 100_000)
    part = parcel / f"part-{number:03}"
    damaged = bytearray(part.read_bytes())
    damaged[-1] ^= 1
    part.write_bytes(damaged)
    with pytest.raises(SystemExit, match=f"part-{number:03}: damaged on the way"):
        gpu.read_parts(parcel, tmp_path / "there")
    part.unlink()
    with pytest.raises(SystemExit, match=f"part-{number:03}: not there"):
        gpu.read_parts(parcel, tmp_path / "there2")


def row(**changes: object) -> dict[str, object]:
    return {"used": "cuda", "max_abs": 2e-6, "same_class": 1.0, "io_binding": True, "binding_max_abs": 0.0} | changes


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"used": "cpu"}, "asked for cuda, runs on cpu"),
        ({"max_abs": 2e-5}, "tolerance 1e-05"),
        ({"max_abs": float("nan")}, "tolerance 1e-05"),
        ({"same_class": 0.9998}, "same class 99.98"),
        ({"io_binding": False}, "no IO binding"),
        ({"binding_max_abs": 1e-4}, "bound and unbound differ"),
    ],
)
def test_what_is_no_proof_says_why(changes: dict[str, object], problem: str) -> None:
    found = gpu_steps.judged(row(**changes), "float32", "cuda").get("problem", "")
    assert problem in found
    assert bool(found) == bool(problem)


def test_results_are_there_after_each_row(tmp_path: Path) -> None:
    results = gpu_steps.Results(tmp_path)
    results.add("training", {"epoch": 1, "seconds": 9.0, "loss": 0.5, "val_loss": 0.4, "article_loss": 0.7482})
    assert "| 1 | 0.7482 | 0.5000 |  | 0.4000 |  | 9.0 |" in (tmp_path / "gpu.md").read_text()
    gpu_steps.Results(tmp_path).add("providers", {"device": "cuda", "model": "m.onnx", "problem": "no driver"})
    assert set(json.loads((tmp_path / "gpu.json").read_text())) == {"training", "providers"}
    assert "| cuda | m.onnx |  |  |  |  |  |  |  | no: no driver |" in (tmp_path / "gpu.md").read_text()


def test_a_step_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gpu_steps.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(gpu, "GRACE", 0)
    options = gpu.parsed(["--steps", "providers", "--seconds", "0.5"])
    assert gpu.run_steps(tmp_path, tmp_path / "results", dict(os.environ), options) == gpu.GATE_FAILED


@SLOW
def test_the_rehearsal(tmp_path: Path) -> None:
    command = [sys.executable, REPOSITORY / "benchmarks/gpu.py", "--rehearse", "--output", tmp_path / "results"]
    done = subprocess.run([*command, "--work", tmp_path], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    known = json.loads((tmp_path / "results" / "gpu.json").read_text())
    assert [entry["proven"] for entry in known["providers"]] == [True] * 4
    assert [entry["epoch"] for entry in known["training"]] == [1, 2]
    assert known["tools"]["backend"].startswith("jax ")

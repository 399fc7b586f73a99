"""A process for each combination: what it measures, and every way it can fail."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from unet_runtime.bench import children
from unet_runtime.bench.plan import Combination, plan
from unet_runtime.bench.worker import STAGES
from unet_runtime.core.errors import BackendError


@pytest.fixture
def combination(colour_model: Path) -> Combination:
    return plan([colour_model], ["onnx"], ["cpu"], [1])[0][0]


def engine(folder: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    """Put another onnxruntime before the installed one, in child processes."""
    (folder / "onnxruntime").mkdir()
    (folder / "onnxruntime" / "__init__.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)


def test_each_photo_is_timed_by_stage_in_a_process_whose_memory_is_its_own(
    combination: Combination, sample_photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('not the json that was meant')")
    monkeypatch.chdir(tmp_path)
    ballast = np.ones(400_000_000, np.uint8)  # in the parent process; not part of the child's peak
    result = children.run_worker(combination, [sample_photo] * 4)
    samples = np.array(result["samples"])
    assert samples.shape == (4, len(STAGES))
    assert (samples > 0).all()
    start = result["cold_start"]  # milliseconds
    assert start["total"] > start["load"] + start["first"] > start["first"] > samples.sum(1).min() * 1000
    assert result["engine"].startswith("ONNX Runtime ")
    assert result["device"] == "cpu"
    assert 20e6 < result["peak_memory"] < ballast.nbytes


def test_a_model_that_its_engine_refuses_is_an_error_in_its_own_words(
    combination: Combination, sample_photo: Path
) -> None:
    with pytest.raises(BackendError, match="expected one of"):
        children.run_worker(Combination(combination.model, "onnx", "abacus", 1), [sample_photo])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("print('hello'); raise OSError('libgomp.so.1: cannot open')", r"libgomp\.so\.1: cannot open"),
        ("import os; os.kill(os.getpid(), 11)", r"ended without a result: signal 11 \(Segmentation fault\)"),
        ("import os, sys; print('last words', file=sys.stderr, flush=True); os._exit(7)", "exit status 7: last words"),
    ],
)
def test_a_broken_engine_is_an_error_that_says_how(
    source: str,
    message: str,
    combination: Combination,
    sample_photo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine(tmp_path, monkeypatch, source)
    with pytest.raises(BackendError, match=message):
        children.run_worker(combination, [sample_photo])


def test_an_engine_that_hangs_is_ended(
    combination: Combination, sample_photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = tmp_path / "pid"
    engine(tmp_path, monkeypatch, f"import os, time; open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)")
    with pytest.raises(BackendError, match="took more than 3 s"):
        children.run_worker(combination, [sample_photo], limit=3)
    if note.exists():  # it got as far as the engine
        with pytest.raises(ProcessLookupError):
            os.kill(int(note.read_text()), 0)

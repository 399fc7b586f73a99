"""Damaged photos, videos, specs and model files: a clear error or a right result each time.

Right is what an oracle says: Pillow and ffprobe, each in a process of its own. The work is done in child processes: a
decoder or an engine that crashes or hangs takes its whole process along. With SLOW_TESTS=1 there are 5,000 files.
"""

from __future__ import annotations

import importlib.util
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections import Counter

import pytest

from tests.helpers.paths import REPOSITORY
from tests.robustness.attempts import FAULT

COUNTS = {
    # task: (files in every run of the tests, with SLOW_TESTS=1)
    "photos": (220, 2640),
    "videos": (16, 500),
    "specs": (150, 700),
    "models": (60, 360),
    "folders": (40, 200),
    "keras": (30, 100),
    "onnx": (40, 250),
    "openvino": (20, 150),
    "tflite": (60, 100),
}
CLOCK_SECONDS = 300
"""For one file; the machine may be busy. What a file takes of the processor is counted in the child."""

CRASHES = {"openvino": 0.02, "tflite": 0.02}
"""Share of files with a forged digest in which an engine may end its process: no accident makes such a file."""

_NEEDS = {
    "videos": ("cv2", "onnxruntime"),
    "onnx": ("onnxruntime",),
    "openvino": ("openvino",),
    "tflite": ("ai_edge_litert",),
}


@pytest.mark.parametrize("task", COUNTS)
def test_damaged_files(task: str) -> None:
    for module in _NEEDS.get(task, ()):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"no {module}")
    if task == "videos" and not (shutil.which("ffmpeg") and shutil.which("ffprobe")):
        pytest.skip("no ffmpeg: apt-get install ffmpeg")
    count = COUNTS[task][bool(os.environ.get("SLOW_TESTS"))]
    outcomes = run(task, count)
    print(task, count, dict(sorted(outcomes.items())))
    faults = [outcome for outcome in outcomes if FAULT in outcome]
    crashes = [fault for fault in faults if fault.startswith("crash")]
    # One at least where an engine may: a short run has too few files for a share.
    allowed = max(1, int(CRASHES[task] * count)) if task in CRASHES else 0
    assert len(crashes) <= allowed, crashes
    assert faults == crashes, faults
    assert outcomes.total() == count
    assert any("refused" in outcome or "error" in outcome for outcome in outcomes), "nothing was damaged"
    assert len(outcomes) > 1, "nothing was read"


def run(task: str, count: int) -> Counter[str]:
    """How the files of the seeds below ``count`` ended."""
    outcomes: Counter[str] = Counter()
    first = 0
    while first < count:
        command = [
            sys.executable,
            "-X",
            "faulthandler",
            "-m",
            "tests.robustness.attempts",
            task,
            str(first),
            str(count),
        ]
        first = _watch(command, first, outcomes)
    return outcomes


def _watch(command: list[str], first: int, outcomes: Counter[str]) -> int:
    """Count what a child prints until it ends or hangs; returns the seed to go on with."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", cwd=REPOSITORY
    ) as child:
        lines: queue.Queue[str] = queue.Queue()
        errors: list[str] = []
        readers = [
            threading.Thread(target=_read, args=(child.stdout, lines.put)),
            threading.Thread(target=_read, args=(child.stderr, errors.append)),
        ]
        for reader in readers:
            reader.start()
        seed, last = first - 1, "begun"
        try:
            while line := lines.get(timeout=CLOCK_SECONDS):
                seed, last = json.loads(line)
                if last != "begun":
                    outcomes[last if FAULT not in last else f"seed {seed}: {last}"] += 1
        except queue.Empty:
            child.kill()
            outcomes[f"hang {FAULT}seed {seed}"] += 1
            return seed + 1
        finally:
            for reader in readers:
                reader.join(CLOCK_SECONDS)
        if child.wait() == 0:
            return int(command[-1])
        assert seed >= first, f"{command}: {''.join(errors)[-3000:]}"
        outcomes[f"crash {FAULT}seed {seed}: {child.returncode} {_reason(errors)}"] += 1
        return seed + 1


def _read(stream: object, put: object) -> None:
    for line in stream:  # type: ignore[attr-defined]
        put(line)  # type: ignore[operator]
    put("")  # type: ignore[operator]


def _reason(errors: list[str]) -> str:
    found = [line.strip() for line in errors if "Fatal" in line or "Error" in line or "error" in line]
    return found[-1] if found else ""

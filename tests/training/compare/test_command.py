"""``unet-train compare`` with the real commands, on a network of next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from PIL import Image

from tests.helpers.colours import colour_spec
from tests.helpers.trained import unet_train
from unet_export.formats import FORMATS
from unet_runtime.core.artifact import write_keras
from unet_runtime.core.errors import GATE
from unet_training.compare import steps
from unet_training.compare.steps import StepError, Steps

TINY = ("--preset", "demo", "--size", 32, "--epochs", 1, "--batch-size", 4)


def test_networks_are_trained_exported_timed_once(
    pictures: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "EXPORT_FORMATS", "onnx,onnx-int8")  # an untrained tflite-int8 is repaired in vain
    words = ("edge-fast:2:1", "--data", pictures, "--output", tmp_path / "out", *TINY)
    for is_trained in (False, True):
        ended = unet_train("compare", *words, "--parity-count", 64, "--rounds", 1)
        steps_told = capfd.readouterr().err  # the processes that it starts
        assert ended.code in (0, 4), steps_told  # a network trained for five steps may fail a gate
        assert ("training begins" in steps_told) is not is_trained
        timed = json.loads((tmp_path / "out" / "bench.json").read_text())
        monkeypatch.setattr(Steps, "bench", lambda self, artifacts, timed=timed: timed)  # it is timed each time
    content = json.loads((tmp_path / "out" / "compare.json").read_text())
    (row,) = content["rows"]
    assert row["label"] == "edge-fast:2:1"
    ways = {f"{one['backend']} {one['precision']}" for one in row["artifacts"]}
    assert {"onnx float32", "onnx int8", "openvino float32", "openvino int8"} <= ways
    assert all(one["milliseconds"] > 0 and one["iou_change"] is not None for one in row["artifacts"])
    mark, _, table = (tmp_path / "out" / "compare.md").read_text().partition("\n")
    assert mark.startswith("<!-- unet-edge")
    assert table in ended.out
    with Image.open(tmp_path / "out" / "compare.png") as picture:
        assert picture.width > 1000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("unet:x",), "expected NAME[:WIDTH[:DEPTH]][@SIZE]"),
        (("unet2015:4",), "architecture unet2015: input size 160x160, expected"),
        (("unet:4", "--epochs", 0), "--epochs"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_trained(
    arguments: tuple[object, ...], words: str, pictures: Path, tmp_path: Path
) -> None:
    ended = unet_train("compare", *arguments, "--data", pictures, "--output", tmp_path / "out")
    assert ended.code == 2
    assert words in ended.err
    assert not (tmp_path / "out").exists()


def test_all_of_the_formats_exist() -> None:
    assert {*steps.EXPORT_FORMATS.split(",")} <= {*FORMATS}


def test_a_command_that_fails_is_named(tmp_path: Path) -> None:
    steps = Steps(tmp_path, tmp_path / "out", [], 64, 1)
    with pytest.raises(StepError, match=r"unet-bench .*absent\.onnx.* ended with exit code"):
        steps.bench([tmp_path / "absent.onnx"])


def test_an_export_that_fails_is_not_passed_over_for_an_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older one is of weights that are no more."""
    files = ("a.float32.onnx", "a.int8.onnx")

    def fail(words: list[str], allowed: tuple[int, ...]) -> None:
        assert GATE in allowed
        place = tmp_path / "export" / "rejected"
        place.mkdir(parents=True)
        (place / "parity.json").write_text(json.dumps({"artifacts": [{"file": name} for name in files]}))

    write_keras(
        lambda path: keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]).save(path),
        tmp_path / "model.keras",
        colour_spec(160),
    )
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "parity.json").write_text(json.dumps({"artifacts": [{"file": "older.onnx"}]}))
    monkeypatch.setattr(steps, "_run", fail)
    paths, parity = Steps(tmp_path, tmp_path, [], 64, 1).export(tmp_path)
    assert paths == [tmp_path / "export" / "rejected" / name for name in files]
    assert [entry["file"] for entry in parity["artifacts"]] == [*files]


INTERRUPTED = """
import sys
from unet_training.compare import steps
try:
    steps._run([sys.executable, *sys.argv[1:]])
except KeyboardInterrupt:
    print("interrupted")
"""

SLOW = """
import os, pathlib, signal, sys, time
def end(*_):
    time.sleep(0.3)
    pathlib.Path(sys.argv[1]).write_text("clean")
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
time.sleep(0.5)  # until it is waited for
os.kill(os.getppid(), signal.SIGINT)
time.sleep(60)
"""


def test_an_interruption_waits_for_the_command_to_clean_up(tmp_path: Path) -> None:
    """Only the comparison is sent a signal, as by a supervisor: its command is interrupted, and ends as it wants to.

    In a process of its own: a signal sent to the one that runs the tests has ended it.
    """
    (tmp_path / "slow.py").write_text(SLOW)
    words = [sys.executable, "-c", INTERRUPTED, str(tmp_path / "slow.py"), str(tmp_path / "done")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
    assert (tmp_path / "done").read_text() == "clean"

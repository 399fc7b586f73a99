"""SIGKILL at random moments: nothing damaged, nothing lost that was reported, and --resume comes to the same end.

With SLOW_TESTS=1 there are 100 kills of a folder's run, 100 of a training and 100 of an export; KILLS=25 makes it 25 of
each, so that they can be done in parts, and KILLS_SEED repeats those of a failure.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.paths import REPOSITORY

SLOW = bool(os.environ.get("SLOW_TESTS"))
MANY = int(os.environ.get("KILLS", "100"))
KILLS = {"folder": MANY if SLOW else 6, "training": MANY, "export": MANY}
PHOTOS = 30

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def kills(task: str, folder: Path) -> dict[str, Any]:
    seed = int(os.environ.get("KILLS_SEED", random.randrange(1 << 32)))
    print("seed", seed)  # what pytest shows of a failure
    command = [sys.executable, "-m", "tests.robustness.kills", task, str(folder), str(KILLS[task]), str(seed)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(task, {name: outcome[name] for name in ("kills", "ends")})
    return outcome


def test_a_folder(colour_model: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "model.onnx").write_bytes(colour_model.read_bytes())
    generator = np.random.default_rng(7)
    for index in range(PHOTOS):
        small = Image.fromarray(generator.integers(0, 256, (4, 5, 3), np.uint8))
        small.resize((300 + index, 200)).save(tmp_path / "photos" / f"{index:02d}.png")
    outcome = kills("folder", tmp_path)
    assert outcome["problems"] == []
    assert (outcome["kills"], outcome["ends"] > 0) == (KILLS["folder"], True)


LONG = pytest.mark.skipif(
    not SLOW, reason="many minutes: set SLOW_TESTS=1; test_resume.py and test_staging.py have some kills"
)


@LONG
def test_a_training(tmp_path: Path) -> None:
    synthetic = pytest.importorskip("unet_training.data.synthetic")
    synthetic.ensure_dataset(tmp_path / "pictures", train=20, test=4, size=48, seed=1)
    outcome = kills("training", tmp_path)
    assert outcome["problems"] == []
    assert (outcome["kills"], outcome["ends"] > 0) == (KILLS["training"], True)


@LONG
def test_an_export(tmp_path: Path) -> None:
    from tests.helpers import tiny

    (tmp_path / "data").mkdir()
    tiny.write_dataset(tmp_path / "data")
    (tmp_path / "model.keras").write_bytes(tiny.SOFTMAX_FILE.read_bytes())
    outcome = kills("export", tmp_path)
    assert outcome["problems"] == []
    assert (outcome["kills"], outcome["ends"] > 0) == (KILLS["export"], True)

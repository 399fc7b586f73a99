"""Forty photos with masks of 0 and 255, from the folder to pictures, a command for each step."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.cats_and_dogs import write
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.metrics import confusion, iou

SLOW = pytest.mark.skipif(not os.environ.get("SLOW_TESTS"), reason="ten minutes: set SLOW_TESTS=1")

COMMANDS = Path(sys.executable).parent


def run(*words: str | Path) -> None:
    done = subprocess.run([str(COMMANDS / words[0]), *map(str, words[1:])], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@SLOW
def test_forty_photos_from_the_folder_to_pictures(pets_dir: Path, tmp_path: Path) -> None:
    data, held_out, trained = tmp_path / "pets-40", tmp_path / "held-out", tmp_path / "trained"
    write(pets_dir, data, 40, binary=True, parts=("train",))
    write(pets_dir, held_out, 100, binary=True, parts=("test",))
    run("unet-train", "--data", data, "--preset", "few", "-o", trained)
    run("unet-export", trained / "model.keras", "--data", data, "--formats", "onnx", "-o", tmp_path / "out")
    (model,) = (tmp_path / "out").glob("*.onnx")
    assert model.name == "pets-40-few-128.float32.onnx"
    spec = read_artifact(model).spec
    assert spec.license == "weights trained on pets-40, CC BY-SA 4.0 (Oxford-IIIT Pet)"
    run("unet-run", held_out / "images", "--model", model, "--save", "mask,overlay", "--output-dir", tmp_path / "seen")
    matrix = np.zeros((2, 2), np.int64)
    for path in (held_out / "masks").iterdir():
        with Image.open(path) as truth, Image.open(tmp_path / "seen" / f"{path.stem}.mask.png") as mask:
            matrix += confusion([(np.asarray(truth) > 0).astype(np.uint8)], [np.asarray(mask)], 2)
    assert iou(matrix)[1] > 0.75

"""The ten commands of docs/own-data.md, on a small dataset of black-and-white masks: from a folder to an overlay."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.layouts import drawn_animals
from tests.helpers.paths import REPOSITORY
from unet_runtime.core.artifact import read_artifact

BIN = Path(sys.executable).parent

SHORTER = {
    "unet-train --data": "--epochs 1 --size 64 --batch-size 8",
    "unet-export": "--formats onnx,tflite",
    "unet-bench": "--rounds 1 --photos-a-round 2 --threads 1",
}
"""Beginning of a command -> what makes it one of seconds: the way is the same, the model is worth nothing."""


def ten_commands() -> list[str]:
    text = (REPOSITORY / "docs" / "own-data.md").read_text(encoding="utf-8")
    block = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[0]
    lines = [re.sub(r"\s+# (\d+ .*)", "", line) for line in block.splitlines()]
    assert len(lines) == 10
    return lines


def test_ten_commands_lead_from_a_folder_to_overlays(tmp_path: Path) -> None:
    for animal in drawn_animals(24, (64, 64)):
        for folder in ("images", "masks"):
            (tmp_path / "welds" / folder).mkdir(parents=True, exist_ok=True)
        animal.photo.save(tmp_path / "welds" / "images" / f"{animal.name}.jpg")
        mask = np.isin(animal.labels, (1, 2)) * np.uint8(255)
        Image.fromarray(mask).save(tmp_path / "welds" / "masks" / f"{animal.name}.png")
    animal.photo.save(tmp_path / "photo.jpg")
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    for line in ten_commands():
        for beginning, more in SHORTER.items():
            if line.startswith(beginning):
                line += f" {more}"
        done = subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if line.endswith("--write-classes"):
            names = tmp_path / "welds" / "classes.yaml"
            assert "foreground" in names.read_text()
            names.write_text(names.read_text().replace('"foreground"', '"seam"', 1))
    assert (tmp_path / "check.html").is_file()
    spec = read_artifact(tmp_path / "better" / "model.keras").spec
    assert spec.class_names == ("background", "seam")
    with Image.open(tmp_path / "photo.overlay.png") as overlay:
        assert overlay.size == (64, 64)
    assert len(list((tmp_path / "found").glob("*.mask.png"))) == 24

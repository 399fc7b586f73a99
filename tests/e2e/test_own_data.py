"""The ten commands of docs/own-data.md, on a small dataset of black-and-white masks: from a folder to an overlay."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.layouts import drawn_animals
from tests.helpers.paths import REPOSITORY
from tests.helpers.trained import Ended, typed
from unet_runtime.core.artifact import read_artifact

BIN = Path(sys.executable).parent

SHORTER = {
    "unet-train --data": "--epochs 1 --size 64 --depth 3 --batch-size 8",
    "unet-export": "--formats onnx",
    "unet-bench": "--rounds 1 --photos-a-round 2 --threads 1",
}
"""Beginning of a command -> what makes it one of seconds: the way is the same, the model is worth nothing."""


def run(line: str, folder: Path) -> Ended:
    """Run a command that is typed in ``folder``, the current one."""
    if line.startswith(("unet-train ", "unet-export ")):
        return typed(line)
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", "-c", line]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return Ended(done.returncode, done.stdout, done.stderr)


def ten_commands() -> list[str]:
    text = (REPOSITORY / "docs" / "own-data.md").read_text(encoding="utf-8")
    block = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[0]
    lines = [re.sub(r"\s+# (\d+ .*)", "", line) for line in block.splitlines()]
    assert len(lines) == 10
    return lines


def test_ten_commands_lead_from_a_folder_to_overlays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for animal in drawn_animals(24, (64, 64)):
        for folder in ("images", "masks"):
            (tmp_path / "welds" / folder).mkdir(parents=True, exist_ok=True)
        animal.photo.save(tmp_path / "welds" / "images" / f"{animal.name}.jpg")
        mask = np.isin(animal.labels, (1, 2)) * np.uint8(255)
        Image.fromarray(mask).save(tmp_path / "welds" / "masks" / f"{animal.name}.png")
    animal.photo.save(tmp_path / "photo.jpg")
    for line in ten_commands():
        for beginning, more in SHORTER.items():
            if line.startswith(beginning):
                line += f" {more}"
        ended = run(line, tmp_path)
        assert ended.code == 0, f"{line}\n{ended.out}\n{ended.err}"
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

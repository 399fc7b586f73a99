"""What the README tells people to type, typed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.conftest import REPOSITORY
from unet_export.cli import command as exporting
from unet_training.cli import command as training

BIN = Path(sys.executable).parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")
DEMO_SECONDS = 360

# The environment that runs the tests is the one that `make setup` made: nothing is installed again.
MAKE = ["make", f"VENV={BIN.parent}"]


def shell_lines() -> list[str]:
    """Every line of the README's ``sh`` blocks, comments removed."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [shlex.join(words) for words in lines if words]


def run(command: list[str], cwd: Path = REPOSITORY, timeout: int = 900) -> str:
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_readme_has_its_commands() -> None:
    lines = shell_lines()
    assert {"make demo", "make test"} <= set(lines)
    assert any(line.startswith("unet-run --backend onnx") for line in lines)
    # All are typed below, but for trainings and exports of minutes to hours: those are read by the command, no more.
    assert all(
        line.removeprefix("KERAS_BACKEND=jax ").split()[0] in {"make", "unet-export", "unet-run", "unet-train"}
        for line in lines
    )


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("make ")])
def test_make_commands_exist(line: str) -> None:
    run([*MAKE, "--dry-run", *shlex.split(line)[1:]])


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("unet-run ")])
def test_run_commands(line: str, sample_photo: Path, tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    for name in ("photo.jpg", "holiday/cat.jpg"):
        shutil.copy(sample_photo, tmp_path / name)
    run(shlex.split(line), cwd=tmp_path)
    assert list(tmp_path.rglob("*.png"))


def test_python_snippets(sample_photo: Path, tmp_path: Path) -> None:
    shutil.copy(sample_photo, tmp_path / "photo.jpg")
    snippets = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert snippets
    for snippet in snippets:
        run([sys.executable, "-c", snippet], cwd=tmp_path)


def test_help_lists_every_target() -> None:
    targets = re.findall(r"^([a-z]+):.*##", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    listed = run([*MAKE, "help"])
    assert {"setup", "train", "export", "run", "demo", "test", "bench", "lint", "dist"} <= set(targets)
    assert all(f"make {target} " in listed for target in targets)


def is_training(line: str) -> bool:
    words = line.removeprefix("KERAS_BACKEND=jax ").split()
    return words[0] == "unet-train" and (len(words) == 1 or words[1].startswith("-"))


@pytest.mark.parametrize("line", [line for line in shell_lines() if is_training(line)])
def test_trainings_are_understood(line: str) -> None:
    """Every option and value is one that the command takes; test_recipe_options trains with them."""
    words = shlex.split(line)
    with training.make_context("unet-train", words[words.index("unet-train") + 1 :]) as context:
        assert context.params["seed"] == 1


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("unet-export ")])
def test_exports_are_understood(line: str) -> None:
    words = shlex.split(line)[1:]
    name = words.pop(0) if words[0] in exporting.commands else "model"
    with exporting.commands[name].make_context(name, words) as context:
        assert context.params


def made_by_the_demo(line: str, folder: Path) -> list[str]:
    """A ``unet-train`` line of the README, on the demo's data and model instead of the real ones."""
    real = {
        "data/oxford-iiit-pet": folder / "synthetic",
        "artifacts/export/pets-edge-160.int8.tflite": folder / "export" / "demo-96.int8.tflite",
    }
    words = [str(real.get(word, word)) for word in shlex.split(line)]
    return [*words, "--data", str(folder / "synthetic")] if "evaluate" in words else words


def test_demo(tmp_path: Path) -> None:
    """The whole way in one command; its second run installs nothing, its pictures can be looked at."""
    start = time.monotonic()
    output = run([*MAKE, "demo", f"DEMO={tmp_path}"])
    taken = time.monotonic() - start
    assert taken < DEMO_SECONDS
    # But for the hint beside an engine that was not checked.
    assert not [line for line in output.splitlines() if "pip install" in line and not line.startswith("not checked: ")]
    for word in ("saved_model", "demo-96.float32.onnx", "demo-96.int8.tflite", "accepted:"):
        assert word in output
    assert re.search(r"same class to \d+\.\d+% of the photo's pixels", output)
    for name in (
        "model.keras",
        "report.html",
        "worst.png",
        "export/parity.json",
        "export/report.html",
        "export/demo-96.float32.onnx",
    ):
        assert (tmp_path / name).is_file()
    for backend in ("onnx", "tflite"):
        for kind, mode in (("mask", "P"), ("overlay", "RGB"), ("cutout", "RGBA")):
            with Image.open(tmp_path / "sample" / f"chelsea.{backend}.{kind}.png") as picture:
                assert (picture.mode, picture.size) == (mode, (451, 300))
    for line in shell_lines():
        if line.startswith("unet-train ") and not is_training(line):
            run(made_by_the_demo(line, tmp_path))


def test_train_and_export_on_real_photos(pets_dir: Path, tmp_path: Path) -> None:
    """``make train export`` with a recipe cut down to seconds: the same path through the real dataset."""
    run([*MAKE, "train", "export", f"PETS_DIR={pets_dir}", f"ARTIFACTS={tmp_path}",
         "TRAIN_ARGS=--epochs 2 --filters 4 --size 64",
         "EXPORT_ARGS=--parity-count 64 --formats saved-model,onnx,tflite-int8"])  # fmt: skip
    assert (tmp_path / "export" / "pets-edge-64.float32.onnx").is_file()


def test_dist(tmp_path: Path) -> None:
    run([*MAKE, "dist", f"DIST={tmp_path}"])
    (training,) = tmp_path.glob("unet_edge_training-*.whl")
    with zipfile.ZipFile(training) as wheel:
        assert "unet_training/templates/report.html.j2" in wheel.namelist()
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == [
        "unet_edge_export",
        "unet_edge_runtime",
        "unet_edge_training",
    ]


def example(name: str, *arguments: Path) -> str:
    return run([sys.executable, str(REPOSITORY / "docs" / "examples" / name), *map(str, arguments)])


def test_panel_example(sample_photo: Path, tmp_path: Path) -> None:
    example("panel.py", sample_photo, tmp_path / "panel.png")
    with Image.open(tmp_path / "panel.png") as picture:
        assert picture.size == (3 * 451 + 24, 300)


def test_video_example(sample_photo: Path, tmp_path: Path) -> None:
    frame = cv2.resize(cv2.imread(str(sample_photo)), (320, 240))
    writer = cv2.VideoWriter(str(tmp_path / "in.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (320, 240))
    for shift in range(12):
        writer.write(np.roll(frame, 8 * shift, axis=1))
    writer.release()
    assert "12 frames" in example("video.py", tmp_path / "in.mp4", tmp_path / "out.mp4")
    reader = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) == 12
    assert reader.read()[1].shape == (240, 320, 3)

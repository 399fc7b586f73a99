"""What README and docs tell people to type, typed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.layouts import some_pets
from tests.helpers.paths import REPOSITORY
from tests.helpers.trained import typed, unet_train
from unet_export.cli.command import command as exporting
from unet_runtime.cli.bench import command as benchmark
from unet_runtime.core.artifact import read_artifact
from unet_runtime.engines import ENGINES
from unet_runtime.io.video.writer import VideoFile
from unet_training.cli.command import command as training
from unet_training.compare.points import parse

BIN = Path(sys.executable).parent
PAGES = ("README.md", "docs/training.md", "docs/export.md", "docs/own-data.md")
TEXT = "\n".join((REPOSITORY / page).read_text(encoding="utf-8") for page in PAGES)
DEMO_STEPS = 600
"""Most training steps of ``make demo``, the budget of a command that people wait for."""
SHORT = ("TRAIN_ARGS=--synthetic-count 64 --epochs 1 --size 48 --depth 1", "EXPORT_ARGS=--formats onnx")
"""Makes ``make demo`` one of seconds; without int8, whose gate is for networks that have learnt something."""
SLOW = pytest.mark.skipif(not os.environ.get("SLOW_TESTS"), reason="minutes: set SLOW_TESTS=1")
DEFAULT_MODEL = ENGINES["onnx"].default_model

# The environment that runs the tests is the one that `make setup` made: nothing is installed again.
MAKE = ["make", f"VENV={BIN.parent}"]


def shell_lines() -> list[str]:
    """Every different line of the pages' ``sh`` blocks, comments removed."""
    blocks = re.findall(r"```sh\n(.*?)```", TEXT, re.DOTALL)
    lines = [re.sub(r"(^|\s+)#.*", "", line) for block in blocks for line in block.splitlines()]
    return list(dict.fromkeys(filter(None, lines)))


def lines_of(program: str) -> list[str]:
    """Those that run one of the commands, in a pipe too."""
    return [line for line in shell_lines() if program in line.split()]


def run(command: list[str], cwd: Path = REPOSITORY, timeout: int = 3600) -> str:
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
    # All are typed below, or in the tests of unet-serve, but for trainings, exports and benchmarks of minutes to hours:
    # those are read by the command.
    programs = {"cat", "curl", "make", "pip", "unet-bench", "unet-export", "unet-info", "unet-run", "unet-train"}
    assert all(line.removeprefix("KERAS_BACKEND=jax ").split()[0] in programs for line in lines)


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("make ")])
def test_make_commands_exist(line: str) -> None:
    run([*MAKE, "--dry-run", *shlex.split(line)[1:]])


@pytest.fixture
def things(sample_photo: Path, tmp_path: Path) -> Path:
    """A folder with what the pages' commands name."""
    for name in ("photo.jpg", "a.jpg", "b.jpg", "holiday/cat.jpg", "welds/images/seam.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sample_photo, tmp_path / name)
    (tmp_path / "weld-export").mkdir()
    (tmp_path / "accurate").mkdir()
    for name in ("model.onnx", "weld-export/welds-few-128.float32.onnx"):
        shutil.copy(DEFAULT_MODEL, tmp_path / name)
    shutil.copy(ENGINES["tflite"].default_model, tmp_path / "accurate/pets-accurate-256.int8.tflite")
    with Image.open(sample_photo) as photo:
        photo.save(tmp_path / "large.tif")
        frames = [np.asarray(photo.resize((320, 240)).rotate(angle)) for angle in range(20)]
    video = VideoFile(tmp_path / "clip.mp4", 10)
    for frame in frames:
        video.write(frame)
    video.close()
    return tmp_path


@pytest.mark.parametrize("line", lines_of("unet-run"))
def test_run_commands(line: str, things: Path) -> None:
    before = set(things.rglob("*"))
    # No camera here: a video plays one, to its end. The page's port may be taken by another test.
    line = re.sub(r"--webcam( rtsp://\S+| picamera)?", "--webcam clip.mp4 --port 0", line)
    run(["bash", "-o", "pipefail", "-c", line], cwd=things)
    made = {path.suffix for path in set(things.rglob("*")) - before if path.is_file()}
    assert made & {".png", ".mp4", ".json"} or ("--record" not in line and "--webcam" in line), made


@pytest.mark.parametrize("line", lines_of("unet-info"))
def test_info_commands(line: str, things: Path) -> None:
    assert "ONNX Runtime" in run(["bash", "-c", line], cwd=things)


@pytest.mark.parametrize("line", lines_of("unet-bench"))
def test_benchmarks_are_understood(line: str) -> None:
    """tests/runtime/test_bench.py runs smaller ones."""
    with benchmark.make_context("unet-bench", shlex.split(line.replace("$PETS_DIR", "."))[1:]) as context:
        assert context.params["rounds"]


def test_python_snippets(things: Path) -> None:
    snippets = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert snippets
    for snippet in snippets:
        run([sys.executable, "-c", snippet], cwd=things)


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


@pytest.mark.parametrize("line", [line for line in shell_lines() if line.startswith("unet-train compare")])
def test_comparisons_are_understood(line: str) -> None:
    """tests/training/compare/ runs a smaller one."""
    words = shlex.split(line.replace("$PETS_DIR", "."))[2:]
    with training.commands["compare"].make_context("compare", words) as context:
        assert all(parse(point) for point in context.params["points"])


@pytest.mark.parametrize("line", lines_of("unet-export"))
def test_exports_are_understood(line: str) -> None:
    words = shlex.split(line)[1:]
    name = words.pop(0) if words[0] in exporting.commands else "model"
    with exporting.commands[name].make_context(name, words) as context:
        assert context.params


def made_by_the_demo(line: str, folder: Path, file: str) -> list[str]:
    """Arguments of a ``unet-train`` line, on the demo's data and model instead of the real ones."""
    real = {
        "data/oxford-iiit-pet": folder / "synthetic",
        "welds": folder / "synthetic",
        "weld-model/model.keras": folder / "model.keras",
        "artifacts/export/pets-edge-160.int8.tflite": folder / "export" / file,
    }
    words = [str(real.get(word, word)) for word in shlex.split(line)[1:]]
    return [*words, "--data", str(folder / "synthetic")] if "evaluate" in words else words


@pytest.mark.parametrize("is_whole", [False, pytest.param(True, marks=SLOW)], ids=["short", "whole"])
def test_demo(is_whole: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way in one command; its second run installs nothing, its pictures can be looked at."""
    output = run([*MAKE, "demo", f"DEMO={tmp_path}", *(() if is_whole else SHORT)])
    provenance = read_artifact(tmp_path / "model.keras").spec.provenance
    photos = int(provenance.data.split()[-2])  # "synthetic, official split, 238 photos"
    recipe = provenance.recipe
    assert recipe["epochs"] * photos // recipe["batch_size"] < DEMO_STEPS
    # But for the hint beside an engine that was not checked.
    assert not [line for line in output.splitlines() if "pip install" in line and not line.startswith("not checked: ")]
    files = ("saved_model", "demo-96.float32.onnx", "demo-96.int8.tflite") if is_whole else ("demo-48.float32.onnx",)
    for word in (*files, "accepted:"):
        assert word in output
    assert re.search(r"same class to \d+\.\d+% of the photo's pixels", output)
    for name in (
        "model.keras",
        "report.html",
        "worst.png",
        "export/parity.json",
        "export/report.html",
    ):
        assert (tmp_path / name).is_file()
    assert all((tmp_path / "export" / name).exists() for name in files)
    for backend in ("onnx", "tflite"):
        for kind, mode in (("mask", "L"), ("overlay", "RGB"), ("cutout", "RGBA")):
            with Image.open(tmp_path / "sample" / f"chelsea.{backend}.{kind}.png") as picture:
                assert (picture.mode, picture.size) == (mode, (451, 300))
    monkeypatch.chdir(tmp_path)
    for line in shell_lines():
        if line.startswith(("unet-train check", "unet-train evaluate")):
            ended = unet_train(*made_by_the_demo(line, tmp_path, files[-1]))
            assert ended.code == 0, f"{line}\n{ended.out}\n{ended.err}"


def test_train_and_export_on_real_photos(pets_dir: Path, tmp_path: Path) -> None:
    """What ``make train export`` types, with recipe and photos cut down to seconds: the same path through the real
    dataset. ``make demo`` above types it itself.

    One format: the default model's own export, on photos of the same data set, has the others.
    """
    printed = run(
        [
            *MAKE,
            "--dry-run",
            "train",
            "export",
            f"PETS_DIR={some_pets(pets_dir, tmp_path / 'pets', 10)}",
            f"ARTIFACTS={tmp_path}",
            "TRAIN_ARGS=--preset unet-small --epochs 1 --width 2 --depth 1 --size 32",
            "EXPORT_ARGS=--parity-count 64 --formats onnx",
        ]
    )
    lines = [line for line in printed.splitlines() if "/unet-" in line]
    assert len(lines) == 2
    for line in lines:
        ended = typed(line)
        assert ended.code == 0, f"{line}\n{ended.out}\n{ended.err}"
    assert (tmp_path / "export" / "pets-unet-small-32.float32.onnx").is_file()

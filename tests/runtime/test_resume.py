"""Runs that are cut off: real processes, signals at several moments, and what --resume makes of the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.commands import UNET_RUN, unet_run

PHOTOS = 60
KINDS = ("mask", "overlay", "json")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, sample_photo: Path) -> Path:
    folder = tmp_path_factory.mktemp("many")
    for index in range(PHOTOS):
        (folder / f"{index:02d}.jpg").write_bytes(sample_photo.read_bytes())
    return folder


def command(many: Path, out: Path, *more: str) -> list[str]:
    return [UNET_RUN, str(many), "--output-dir", str(out), "--save", ",".join(KINDS), *more]


def resume(many: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return unet_run(*command(many, out, "--resume", *more)[1:])


def written(out: Path) -> dict[str, int]:
    """Name -> time of its last change; every file is whole."""
    found = {}
    for path in out.iterdir() if out.exists() else ():
        assert not path.name.startswith("."), f"{path} was left behind"
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
        else:
            assert path.read_text().endswith("}\n")
        found[path.name] = path.stat().st_mtime_ns
    return found


@pytest.mark.parametrize(
    ("number", "after_files", "model"),
    [
        (signal.SIGINT, 0, "colours"),
        (signal.SIGTERM, 1, "colours"),
        (signal.SIGINT, 40, "colours"),
        (signal.SIGTERM, 60, "pets"),
    ],
)
def test_a_signal_leaves_whole_files_and_resume_does_the_rest(
    number: signal.Signals, after_files: int, model: str, colour_model: Path, many: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    more = ["--model", str(colour_model)] if model == "colours" else ["--backend", "tflite"]
    process = subprocess.Popen(command(many, out, *more), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    process.stderr.readline()  # the model is loaded
    deadline = time.monotonic() + 120
    while (len(list(out.glob("*"))) if out.exists() else 0) < after_files and time.monotonic() < deadline:
        time.sleep(0.003)
    os.kill(process.pid, number)
    os.kill(process.pid, number)  # as from an impatient user: it does not cut off the cleaning up
    _, errors = process.communicate(timeout=180)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}[number], errors
    assert "Traceback" not in errors
    assert "--resume does the rest" in errors
    before = written(out)
    assert after_files - 3 <= len(before) < PHOTOS * len(KINDS)

    done = resume(many, out, *more)
    assert done.returncode == 0, done.stderr
    after = written(out)
    assert len(after) == PHOTOS * len(KINDS)
    complete = [name for name in before if all(f"{name[:2]}.{end}" in before for end in ENDS)]
    assert all(after[name] == before[name] for name in complete)  # not made again
    assert done.stdout.count("->") == PHOTOS - len(complete) // len(KINDS)


ENDS = ("mask.png", "overlay.png", "json")


def test_a_signal_at_the_very_start_leaves_nothing(many: Path, tmp_path: Path) -> None:
    for delay in (0.02, 0.1, 0.3):
        out = tmp_path / f"out{delay}"
        process = subprocess.Popen(command(many, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.terminate()
        assert process.wait(60) in (143, -signal.SIGTERM)
        written(out)


def test_one_photo_can_be_interrupted(sample_photo: Path, tmp_path: Path) -> None:
    with Image.open(sample_photo) as photo:
        photo.resize((3000, 2000)).save(tmp_path / "large.jpg")
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        process = subprocess.Popen(
            [UNET_RUN, str(tmp_path / "large.jpg"), "--output-dir", str(tmp_path / "out"), "--save", "probabilities"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stderr is not None
        process.stderr.readline()
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("out/.*")) and time.monotonic() < deadline:  # it is being written
            time.sleep(0.003)
        process.send_signal(number)
        process.communicate(timeout=180)
        assert process.returncode == code
        assert [path for path in (tmp_path / "out").iterdir() if path.suffix != ".npz"] == []


def test_what_has_changed_is_made_again(many: Path, tmp_path: Path) -> None:
    some, out = tmp_path / "some", tmp_path / "out"
    some.mkdir()
    for name in ("00.jpg", "01.jpg", "02.jpg"):
        os.link(many / name, some / name)
    assert resume(some, out, "--backend", "onnx").stdout.count("->") == 3
    again = resume(some, out, "--backend", "onnx")
    assert (again.returncode, again.stdout.count("->")) == (0, 0)
    assert "3 photos were done before" in again.stderr
    (out / "01.overlay.png").unlink()
    os.utime(out / "02.mask.png", (0, 0))  # older than its photo
    more = resume(some, out, "--backend", "onnx")
    assert [line.split(":")[0] for line in more.stdout.splitlines()] == [
        str(some / "01.jpg"),
        str(some / "02.jpg"),
    ]
    assert resume(some, out, "--backend", "tflite").stdout.count("->") == 3  # another model
    assert resume(some, out, "--backend", "tflite", "--contours", "none").stdout.count("->") == 3
    assert resume(some, out, "--backend", "tflite", "--contours", "none").stdout.count("->") == 0

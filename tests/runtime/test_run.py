"""unet-run as a process: files, names, exit codes, what is left when things go wrong."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COMMAND = [str(Path(sys.executable).with_name("unet-run"))]


def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def photos(tmp_path: Path, sample_photo: Path) -> Path:
    """A folder tree with three photos, a text file and another program's litter."""
    root = tmp_path / "pets"
    (root / "deep" / "er").mkdir(parents=True)
    for name in ("a.jpg", "deep/b.JPG", "deep/er/c.jpeg"):
        (root / name).write_bytes(sample_photo.read_bytes())
    (root / "notes.txt").write_text("no photo")
    (root / "._a.jpg").write_bytes(b"litter")
    return root


@pytest.mark.parametrize("backend", ["onnx", "tflite", "openvino", "auto"])
def test_one_photo(backend: str, photos: Path) -> None:
    done = run("--backend", backend, "--save", "mask,overlay,cutout", "a.jpg", cwd=photos)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("pets-edge ")
    for kind, mode in (("mask", "P"), ("overlay", "RGB"), ("cutout", "RGBA")):
        with Image.open(photos / f"a.{kind}.png") as picture:
            assert (picture.mode, picture.size) == (mode, (451, 300))
    mask = np.asarray(Image.open(photos / "a.mask.png"))
    assert set(np.unique(mask)) <= {0, 1, 2}
    assert (mask == 0).mean() > 0.2  # Chelsea fills much of the picture


def test_folder_is_mirrored(photos: Path) -> None:
    done = run(photos, "--save", "mask", cwd=photos.parent)
    assert done.returncode == 0, done.stderr
    assert names(photos.parent / "pets-segmented") == ["a.mask.png", "deep/b.mask.png", "deep/er/c.mask.png"]
    before = names(photos.parent)
    for same in (run(photos, "--save", "mask"), run(".", "--save", "mask", cwd=photos)):  # replaced, nothing new
        assert same.returncode == 0
        assert names(photos.parent) == before


def test_results_are_no_photos(photos: Path) -> None:
    assert run(photos / "a.jpg").returncode == 0
    run(photos, "--output-dir", photos.parent / "out", "--save", "mask")
    assert "a.overlay.mask.png" not in names(photos.parent / "out")


def test_same_stem_keeps_both(photos: Path) -> None:
    Image.new("RGB", (8, 8)).save(photos / "a.png")
    assert run("a.jpg", "a.png", "a.jpg", "--save", "mask", cwd=photos).returncode == 0
    assert {"a.jpg.mask.png", "a.png.mask.png"} <= set(names(photos))


def test_collision_is_refused(photos: Path, tmp_path: Path) -> None:
    (photos / "deep" / "a.jpg").write_bytes((photos / "a.jpg").read_bytes())
    done = run(photos / "a.jpg", photos / "deep" / "a.jpg", "--output-dir", tmp_path / "out")
    assert done.returncode == 1
    assert "would both write" in done.stderr
    assert not (tmp_path / "out").exists()


def test_bad_photos_do_not_stop_the_good(photos: Path) -> None:
    (photos / "b.jpg").write_text("text")
    (photos / "c.jpg").write_bytes((photos / "a.jpg").read_bytes()[:9000])
    done = run(photos, "--output-dir", photos.parent / "out", "--save", "mask")
    assert done.returncode == 1
    assert "b.jpg: not an image" in done.stderr
    assert "c.jpg: damaged or truncated" in done.stderr
    assert "2 of 5 photos failed, 3 written" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(names(photos.parent / "out")) == 3


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "Missing argument"),
        (["absent.jpg"], 1, "absent.jpg: no such file"),
        (["a.jpg", "--save", "mask,poster"], 2, "'poster', expected some of mask,overlay,cutout"),
        (["a.jpg", "--backend", "caffe"], 2, "'caffe'"),
        (["a.jpg", "--threads", "0"], 2, "--threads"),
        (["a.jpg", "--model", "absent.onnx"], 3, "no such model file"),
        (["a.jpg", "--model", "notes.txt"], 3, "expected .onnx or .tflite"),
        (["a.jpg", "--device", "cuda"], 3, "has no CUDA provider"),
        (["a.jpg", "--output-dir", "notes.txt"], 2, "notes.txt"),
        (["a.jpg", "--output-dir", "notes.txt/sub"], 1, "cannot be written"),
        (["empty"], 1, "no photo in this folder"),
    ],
)
def test_wrong_use(arguments: list[str], code: int, message: str, photos: Path) -> None:
    (photos / "empty").mkdir()
    done = run(*arguments, cwd=photos)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert message in done.stderr


def test_damaged_model(photos: Path, colour_model: Path) -> None:
    content = bytearray(colour_model.read_bytes())
    content[len(content) // 2] ^= 1
    (photos / "damaged.onnx").write_bytes(content)
    done = run("a.jpg", "--model", "damaged.onnx", cwd=photos)
    assert done.returncode == 3
    assert "damaged" in done.stderr
    assert not (photos / "a.mask.png").exists()


def test_full_disk(photos: Path) -> None:
    """A limit on file size stands for the full disk: what cannot be finished is not left behind."""
    (photos / "out").mkdir()
    target = photos / "out" / "a.mask.png"
    target.write_bytes(b"old")
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
        "sys.argv = ['unet-run', *sys.argv[1:]]; from unet_runtime.cli.run import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "a.jpg", "--output-dir", "out"],
        cwd=photos, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "cannot be written" in done.stderr
    assert names(photos / "out") == ["a.mask.png"]
    assert target.read_bytes() == b"old"


def test_interrupt_leaves_whole_files(tmp_path: Path, sample_photo: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for index in range(400):
        (many / f"{index:03d}.jpg").write_bytes(sample_photo.read_bytes())
    out = tmp_path / "out"
    process = subprocess.Popen(
        [*COMMAND, str(many), "--output-dir", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while len(list(out.glob("*.png"))) < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    written = list(out.iterdir())
    assert 6 <= len(written) < 800
    for path in written:
        assert path.suffix == ".png"
        with Image.open(path) as picture:
            picture.load()

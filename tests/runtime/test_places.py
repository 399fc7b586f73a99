"""What others made, and what a run reads, is not replaced; --overwrite insists."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.commands import UNET_RUN, content, unet_run
from tests.helpers.mjpeg import SIZE, draw_number
from tests.helpers.video import frames_of, numbers
from unet_runtime import OutputError, Segmentation, Segmenter
from unet_runtime.cli import exits
from unet_runtime.cli.run import command
from unet_runtime.io.places import Places
from unet_runtime.io.sinks import KINDS, RESULTS, encode, save
from unet_runtime.io.stamps import is_ours
from unet_runtime.io.video.opencv import load_opencv
from unet_runtime.io.video.writer import CODECS, VideoFile


@pytest.fixture(scope="module")
def result(sample_photo: Path) -> Segmentation:
    return Segmenter()(sample_photo)


@pytest.fixture
def folder(tmp_path: Path, sample_photo: Path, colour_model: Path) -> Path:
    """A photo, a model, and what others may have made beside them."""
    shutil.copy(sample_photo, tmp_path / "p.jpg")
    shutil.copy(colour_model, tmp_path / "own.onnx")
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "plain").write_text("mine")
    for name in ("hand.png", "hand.webp", "hand.json", "hand.npz"):
        (tmp_path / name).write_bytes(b"made with a pencil, of unet-edge")
    return tmp_path


def test_every_kind_shows_that_it_is_ours(result: Segmentation, tmp_path: Path) -> None:
    for path in save(result, RESULTS, tmp_path, "cat"):
        assert is_ours(path), path
        save(result, RESULTS, tmp_path, "cat")
    for kind, entry in KINDS.items():
        for suffix in entry.suffixes:
            path = tmp_path / f"{kind}{suffix}"
            path.write_bytes(encode(result, kind, suffix=suffix))
            assert is_ours(path), path


def test_large_pictures_in_other_formats_show_it_too(sample_photo: Path, tmp_path: Path) -> None:
    with Image.open(sample_photo) as photo:
        large = Segmenter()(photo.convert("RGB").resize((1600, 1200)))
    for kind, suffix in (("overlay", ".jpg"), ("overlay", ".webp"), ("cutout", ".tif"), ("mask", ".tif")):
        path = tmp_path / f"{kind}{suffix}"
        path.write_bytes(encode(large, kind, suffix=suffix))
        assert is_ours(path), path


@pytest.mark.parametrize("suffix", CODECS)
def test_videos_show_it_and_can_be_read(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"film{suffix}"
    with VideoFile(path, 10, "0123456789abcdef") as file:
        for number in range(12):
            file.write(draw_number(np.full((SIZE[1], SIZE[0], 3), 80, np.uint8), number))
    assert is_ours(path)
    assert b"0123456789abcdef" in path.read_bytes()[-64:]
    assert numbers(path) == list(range(12))


@pytest.mark.parametrize("kind", RESULTS)
def test_a_file_of_others_stays(kind: str, result: Segmentation, tmp_path: Path) -> None:
    path = tmp_path / f"cat{KINDS[kind].suffix}"
    Image.new("L", (4, 4)).save(path, "PNG")
    before = path.read_bytes()
    with pytest.raises(OutputError, match=r"exists, and was not made by unet-run.*--overwrite"):
        save(result, ("overlay", kind) if kind != "overlay" else (kind,), tmp_path, "cat")
    assert content(tmp_path) == {path.name: before}  # nor is another kind written
    save(result, (kind,), tmp_path, "cat", places=Places(overwrite=True))
    assert is_ours(path)


@pytest.mark.parametrize(
    "text",
    ['{"imagePath": "/data/unet-edge/cat.jpg", "shapes": []}', '{"name": "unet-edge"}', "unet-edge", " ", "\n"],
)
def test_a_file_that_speaks_of_us_is_not_ours(text: str, tmp_path: Path) -> None:
    path = tmp_path / "cat.json"
    path.write_text(text)
    assert not is_ours(path)


@pytest.mark.parametrize("size", [0, 100, 3000])
def test_what_a_power_failure_leaves_may_go(size: int, result: Segmentation, tmp_path: Path) -> None:
    (tmp_path / "cat.mask.png").write_bytes(bytes(size))
    save(result, ("mask",), tmp_path, "cat")


def test_links(result: Segmentation, tmp_path: Path) -> None:
    """A link to nothing and one to a file of others stay; one to a result of ours is replaced, its target is not."""
    path = tmp_path / "cat.mask.png"
    other = tmp_path / "other.png"
    path.symlink_to(other)
    with pytest.raises(OutputError, match="was not made by"):
        save(result, ("mask",), tmp_path, "cat")
    other.write_bytes(b"mine")
    with pytest.raises(OutputError, match="was not made by"):
        save(result, ("mask",), tmp_path, "cat")
    ours = encode(result, "mask")
    other.write_bytes(ours)
    save(result, ("mask",), tmp_path, "cat")
    assert not path.is_symlink()
    assert other.read_bytes() == ours


def test_a_pipe_in_a_results_place_is_refused(result: Segmentation, tmp_path: Path) -> None:
    """Nobody may be reading: the run would wait for ever."""
    os.mkfifo(tmp_path / "cat.mask.png")
    for places in (Places(), Places(overwrite=True)):
        with pytest.raises(OutputError, match="is a device, a pipe"):
            save(result, ("mask",), tmp_path, "cat", places=places)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["p.jpg", "-o", "p.jpg"], 2, "would replace the photo itself"),
        (["p.jpg", "-o", "./p.jpg", "--save", "overlay"], 2, "would replace the photo itself"),
        (["p.jpg", "-o", "same.jpg", "--save", "overlay"], 1, "same.jpg: is read in this run"),
        (["p.jpg", "-o", "hard.jpg", "--save", "overlay"], 1, "hard.jpg: is read in this run"),
        (["same.jpg", "-o", "p.jpg", "--save", "overlay"], 1, "p.jpg: is read in this run"),
        (["p.jpg", "--model", "own.onnx", "-o", "own.onnx"], 2, "own.onnx: a cutout can be written as .png"),
        (["p.jpg", "--model", "own.png.onnx", "-o", "model.png", "--overwrite"], 1, "model.png: is read in this run"),
        (["p.jpg", "--model", "own.onnx", "--coco", "own.onnx"], 1, "own.onnx: is read in this run"),
        (["p.jpg", "--coco", "p.jpg", "--overwrite"], 1, "p.jpg: is read in this run"),
        (["p.jpg", "-o", "hand.png"], 1, "hand.png: exists, and was not made by unet-run"),
        (["p.jpg", "-o", "hand.webp"], 1, "hand.webp: exists, and was not made by unet-run"),
        (["p.jpg", "-o", "hand.json"], 1, "hand.json: exists, and was not made by unet-run"),
        (["p.jpg", "-o", "hand.npz"], 1, "hand.npz: exists, and was not made by unet-run"),
        (["p.jpg", "-o", "plain"], 1, "plain: exists, and was not made by unet-run"),
        (["p.jpg", "--coco", "hand.json"], 1, "hand.json: exists, and was not made by unet-run"),
        (["p.jpg", "-o", "notes.txt", "--overwrite"], 2, "notes.txt: a cutout can be written as"),
        (["p.jpg", "-o", "new.jpg"], 2, "or give --save overlay"),
        (["p.jpg", "-o", "new.gif"], 2, "a cutout can be written as .png, .webp, .tif, .tiff"),
        (["p.jpg", "-o", "new.jpg", "--save", "mask"], 2, "a mask can be written as .png, .tif, .tiff"),
        (["p.jpg", "-o", "new.json", "--save", "mask"], 2, "or give --save json"),
        (["p.jpg", "-o", "new.heic"], 2, "a cutout can be written as"),
        (["p.jpg", "-o", "new.mp4"], 2, "a cutout can be written as"),
        (["film.mp4", "-o", "new.png"], 2, "is a picture's name, film.mp4 is a video"),
        (["--webcam", "0", "--coco", "all.json"], 2, "--coco is a data set of photos"),
        (["p.jpg", "--save", "json", "--coco", "p.json"], 1, "p.json: is a result of p.jpg, too"),
        (["--webcam", "film.mp4", "--view", "none", "--record", "film.mp4"], 1, "film.mp4: is read in this run"),
        (["--webcam", "film.mp4", "--view", "none", "--record", "link.mp4"], 1, "link.mp4: is read in this run"),
        (["--webcam", "film.mp4", "--view", "none", "--record", "other.mp4"], 1, "other.mp4: exists, and was not"),
        (["film.mp4"], 1, "film.overlay.mp4: exists, and was not made by unet-run"),
    ],
)
def test_nothing_is_replaced(
    arguments: list[str],
    code: int,
    message: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (folder / "same.jpg").symlink_to("p.jpg")
    (folder / "hard.jpg").hardlink_to(folder / "p.jpg")
    (folder / "own.png.onnx").symlink_to("own.onnx")
    (folder / "model.png").hardlink_to(folder / "own.onnx")
    for name in ("film.mp4", "other.mp4", "film.overlay.mp4"):
        (folder / name).write_bytes(b"a film")
    (folder / "link.mp4").symlink_to("film.mp4")
    before = content(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["unet-run", *arguments])
    with pytest.raises(SystemExit) as end:
        exits.run(command)
    errors = capfd.readouterr().err
    assert end.value.code == code, errors
    assert message in errors
    assert content(folder) == before


def test_a_photo_and_its_own_result(folder: Path) -> None:
    """``p.mask.png`` is named as a photo, too: it would be replaced before it is read, or behind."""
    assert unet_run("p.jpg", "--save", "mask", cwd=folder).returncode == 0
    before = (folder / "p.mask.png").read_bytes()
    for more in ([], ["--overwrite"]):
        done = unet_run("p.jpg", "p.mask.png", "--save", "mask", *more, cwd=folder)
        assert done.returncode == 1
        assert "p.mask.png: is read in this run" in done.stderr
        assert (folder / "p.mask.png").read_bytes() == before


def test_overwrite_insists(folder: Path) -> None:
    for name in ("p.mask.png", "p.overlay.png"):
        (folder / name).write_bytes(b"mine")
    (folder / "more.jpg").write_bytes((folder / "p.jpg").read_bytes())
    refused = unet_run("p.jpg", "more.jpg", cwd=folder)
    assert refused.returncode == 1
    assert "1 of 2 photos failed, 1 written" in refused.stderr
    assert (folder / "p.mask.png").read_bytes() == b"mine"
    assert unet_run("p.jpg", "--overwrite", cwd=folder).returncode == 0
    assert unet_run("p.jpg", cwd=folder).returncode == 0
    assert unet_run("p.jpg", "-o", "hand.png", "--overwrite", cwd=folder).returncode == 0
    assert is_ours(folder / "hand.png")
    assert unet_run("p.jpg", "-o", "p.jpg", "--save", "overlay", "--overwrite", cwd=folder).returncode == 0
    assert is_ours(folder / "p.jpg")


def test_output_into_devices_and_pipes(folder: Path) -> None:
    node = folder / "null"
    if os.geteuid() == 0:
        try:
            os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            with node.open("wb"):
                pass
        except OSError:
            node.unlink(missing_ok=True)
    if node.exists():
        for arguments in (["-o", "null"], ["-o", "null", "--save", "json"], ["--coco", "null"]):
            done = unet_run("p.jpg", *arguments, cwd=folder)
            assert done.returncode == 0, done.stderr
            assert node.is_char_device()
    pipe = folder / "pipe.jpg"
    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    done = unet_run("p.jpg", "-o", "pipe.jpg", "--save", "overlay", cwd=folder)
    reader.join(120)
    assert done.returncode == 0, done.stderr
    assert received[0][:2] == b"\xff\xd8"
    assert pipe.is_fifo()
    with (folder / "out.png").open("wb") as file:
        subprocess.run([UNET_RUN, "p.jpg", "-o", "/dev/stdout"], cwd=folder, stdout=file, timeout=120, check=True)
    with Image.open(folder / "out.png") as cutout:
        assert cutout.mode == "RGBA"


def test_the_suffix_chooses_the_format(folder: Path) -> None:
    expected = {
        "cut.webp": ("WEBP", "RGBA", ()),
        "cut.TIF": ("TIFF", "RGBA", ()),
        "over.jpg": ("JPEG", "RGB", ("--save", "overlay")),
        "over.webp": ("WEBP", "RGB", ("--save", "overlay")),
        "mask.tif": ("TIFF", "L", ("--save", "mask")),
    }
    for name, (form, mode, arguments) in expected.items():
        done = unet_run("p.jpg", "-o", name, *arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
        with Image.open(folder / name) as picture:
            picture.load()
            assert (picture.format, picture.mode, picture.size) == (form, mode, (451, 300))
    assert unet_run("p.jpg", "-o", "new.json", cwd=folder).returncode == 0
    assert (folder / "new.json").read_bytes().startswith(b'{"unet-edge":')


def test_a_format_says_where_it_ends(tmp_path: Path, colour_model: Path) -> None:
    wide = Segmenter(colour_model)(np.zeros((2, 17000, 3), np.uint8))
    with pytest.raises(OutputError, match=r"17000x2 pixels cannot be written as WEBP"):
        encode(wide, "overlay", suffix=".webp")


def test_videos_of_ours_are_replaced_and_resumed(folder: Path) -> None:
    load_opencv("a test")
    with VideoFile(folder / "film.mp4", 10) as file:
        for _ in range(3):
            file.write(np.full((64, 96, 3), 90, np.uint8))
    arguments = ["film.mp4", "--model", "own.onnx"]
    assert unet_run(*arguments, cwd=folder).returncode == 0
    assert unet_run(*arguments, cwd=folder).returncode == 0
    assert "photos were done before" in unet_run(*arguments, "--resume", cwd=folder).stderr
    (folder / "film.overlay.mp4").write_bytes(b"")  # no result: a crash left it
    assert unet_run(*arguments, "--resume", cwd=folder).returncode == 0
    assert len(frames_of(folder / "film.overlay.mp4")) == 3
    assert unet_run(*arguments, "-o", "new.mp4", cwd=folder).returncode == 0
    assert len(frames_of(folder / "new.mp4")) == 3

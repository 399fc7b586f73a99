"""unet-run as a process: files, names, exit codes, what is left when things go wrong."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import bundled
from tests.helpers.colours import colour_spec, write_colour_model
from tests.helpers.commands import UNET_RUN, unet_run
from unet_runtime.cli import exits
from unet_runtime.cli.run import command


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
    done = unet_run("--backend", backend, "--save", "mask,overlay,cutout", "a.jpg", cwd=photos)
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith(f"{bundled.SPEC.name} ")
    for kind, mode in (("mask", "L"), ("overlay", "RGB"), ("cutout", "RGBA")):
        with Image.open(photos / f"a.{kind}.png") as picture:
            assert (picture.mode, picture.size) == (mode, (451, 300))
    mask = np.asarray(Image.open(photos / "a.mask.png"))
    assert set(np.unique(mask)) <= {0, 1, 2}
    assert (mask == 0).mean() > 0.2  # Chelsea fills much of the picture


def test_folder_is_mirrored(photos: Path) -> None:
    done = unet_run(photos, "--save", "mask", cwd=photos.parent)
    assert done.returncode == 0, done.stderr
    assert names(photos.parent / "pets-segmented") == ["a.mask.png", "deep/b.mask.png", "deep/er/c.mask.png"]
    before = names(photos.parent)
    for same in (
        unet_run(photos, "--save", "mask"),
        unet_run(".", "--save", "mask", cwd=photos),
    ):  # replaced, nothing new
        assert same.returncode == 0
        assert names(photos.parent) == before


def test_results_are_no_photos(photos: Path) -> None:
    assert unet_run(photos / "a.jpg").returncode == 0
    unet_run(photos, "--output-dir", photos.parent / "out", "--save", "mask")
    assert "a.overlay.mask.png" not in names(photos.parent / "out")


def test_same_stem_keeps_both(photos: Path) -> None:
    Image.new("RGB", (8, 8)).save(photos / "a.png")
    assert unet_run("a.jpg", "a.png", "a.jpg", "--save", "mask", cwd=photos).returncode == 0
    assert {"a.jpg.mask.png", "a.png.mask.png"} <= set(names(photos))


def test_collision_is_refused(photos: Path, tmp_path: Path) -> None:
    (photos / "deep" / "a.jpg").write_bytes((photos / "a.jpg").read_bytes())
    done = unet_run(photos / "a.jpg", photos / "deep" / "a.jpg", "--output-dir", tmp_path / "out")
    assert done.returncode == 1
    assert "would both write" in done.stderr
    assert not (tmp_path / "out").exists()


def test_bad_photos_do_not_stop_the_good(photos: Path) -> None:
    (photos / "b.jpg").write_text("text")
    (photos / "c.jpg").write_bytes((photos / "a.jpg").read_bytes()[:9000])
    done = unet_run(photos, "--output-dir", photos.parent / "out", "--save", "mask")
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
        (["a.jpg", "--save", "mask,poster"], 2, "'poster', expected some of mask,palette,overlay,cutout"),
        (["a.jpg", "--backend", "caffe"], 2, "'caffe'"),
        (["a.jpg", "--threads", "0"], 2, "--threads"),
        (["a.jpg", "--tile", "0.9"], 2, "0<=x<=0.75"),
        (["a.jpg", "--max-pixels", "1000"], 1, "too many pixels (451x300"),
        (["a.jpg", "--view", "web", "--max-seconds", "3"], 2, "--view, --max-seconds without --webcam"),
        (["a.jpg", "--smooth", "0.5"], 2, "--smooth without --webcam or a video"),
        (["--webcam", "0", "a.jpg"], 2, "--webcam together with a.jpg"),
        (["--webcam", "0", "-o", "x.png"], 2, "--webcam saves in a folder"),
        (["a.jpg", "--output", "x.png", "--output-dir", "out"], 2, "give one of them"),
        (["a.jpg", "--output", "x.png", "--save", "mask,json"], 2, "--save names several"),
        (["a.jpg", "deep", "--output", "x.png"], 2, "--output x.png is a file, for the result of one photo"),
        (["a.jpg", "-o", "a.jpg"], 2, "-o a.jpg would replace the photo itself"),
        (["a.jpg", "--output", "x.png", "--resume"], 2, "--resume"),
        (["a.jpg", "--output", "-", "--json"], 2, "--json and --output -"),
        (["--webcam", "77", "--view", "none", "--max-seconds", "1"], 1, "camera 77"),
        (["*.tif"], 1, "*.tif: no file matches this pattern"),
        (["a.jpg", "--model", "absent.onnx"], 3, "no such model file"),
        (["a.jpg", "--model", "notes.txt"], 3, "expected .onnx or .tflite"),
        (["a.jpg", "--device", "cuda"], 3, "no NVIDIA driver was found here"),
        (["a.jpg", "--output-dir", "notes.txt"], 2, "notes.txt"),
        (["a.jpg", "--output-dir", "notes.txt/sub"], 1, "cannot be written"),
        (["empty"], 1, "no photo in this folder"),
    ],
)
def test_wrong_use(
    arguments: list[str],
    code: int,
    message: str,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """In this process: so many would take a minute to start."""
    (photos / "empty").mkdir()
    monkeypatch.chdir(photos)
    monkeypatch.setattr("sys.argv", ["unet-run", *arguments])
    with pytest.raises(SystemExit) as end:
        exits.run(command)
    errors = capfd.readouterr().err
    assert end.value.code == code, errors
    assert message in errors


def test_damaged_model(photos: Path, colour_model: Path) -> None:
    content = bytearray(colour_model.read_bytes())
    content[len(content) // 2] ^= 1
    (photos / "damaged.onnx").write_bytes(content)
    done = unet_run("a.jpg", "--model", "damaged.onnx", cwd=photos)
    assert done.returncode == 3
    assert "damaged" in done.stderr
    assert not (photos / "a.mask.png").exists()


def test_full_disk(photos: Path) -> None:
    """A limit on file size stands for the full disk: what cannot be finished is not left behind."""
    (photos / "out").mkdir()
    target = photos / "out" / "a.mask.png"
    old = b"\x89PNG, cut off: unet-edge\0"
    target.write_bytes(old)
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
        "sys.argv = ['unet-run', *sys.argv[1:]]; from unet_runtime.cli.run import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "a.jpg", "--output-dir", "out"],
        cwd=photos,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "cannot be written" in done.stderr
    assert names(photos / "out") == ["a.mask.png"]
    assert target.read_bytes() == old


def test_a_pipe(photos: Path) -> None:
    """``cat a.jpg | unet-run - --output - > cut.png``: nothing but the PNG on standard output."""
    done = subprocess.run(
        [UNET_RUN, "-", "--output", "-"],
        input=(photos / "a.jpg").read_bytes(),
        capture_output=True,
        cwd=photos,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with Image.open(io.BytesIO(done.stdout)) as cutout:
        assert (cutout.mode, cutout.size) == ("RGBA", (451, 300))
    assert b"standard output" in done.stderr
    unet_run("a.jpg", "--save", "cutout", cwd=photos)
    assert (photos / "a.cutout.png").stat().st_size > 10_000
    assert np.array_equal(
        np.asarray(Image.open(photos / "a.cutout.png")), np.asarray(Image.open(io.BytesIO(done.stdout)))
    )


def test_what_is_no_photo_on_standard_input(photos: Path) -> None:
    done = subprocess.run([UNET_RUN, "-"], input=b"text", capture_output=True, cwd=photos, timeout=120, check=False)
    assert done.returncode == 1
    assert b"not an image" in done.stderr
    assert b"Traceback" not in done.stderr


def test_one_named_file(photos: Path) -> None:
    assert unet_run("a.jpg", "--output", "new/x.png", "--save", "mask", cwd=photos).returncode == 0
    assert names(photos / "new") == ["x.png"]


def test_output_is_a_folder_unless_its_name_says_otherwise(photos: Path) -> None:
    for folder in ("out", "run-1.5", "deep"):
        assert unet_run("a.jpg", "-o", folder, "--save", "mask", cwd=photos).returncode == 0
        assert (photos / folder / "a.mask.png").is_file()
    assert unet_run("a.jpg", "-o", "deep/cut.PNG", cwd=photos).returncode == 0
    with Image.open(photos / "deep" / "cut.PNG") as picture:
        assert picture.mode == "RGBA"
    assert unet_run("a.jpg", "--output-dir", "b.png", "--save", "mask", cwd=photos).returncode == 0
    assert names(photos / "b.png") == ["a.mask.png"]


def test_quiet_hides_what_is_no_result(photos: Path) -> None:
    done = unet_run("a.jpg", "-q", "--save", "mask", cwd=photos)
    assert (done.stderr, done.stdout.count("\n")) == ("", 1)


def test_shell_completion(photos: Path) -> None:
    environment = {
        **os.environ,
        "_UNET_RUN_COMPLETE": "bash_complete",
        "COMP_WORDS": "unet-run --dev",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(UNET_RUN, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "plain,--device\n"


def test_pillow_keeps_its_own_limit(photos: Path) -> None:
    script = (
        "import unet_runtime.cli.run as run, PIL.Image\n"
        "before = PIL.Image.MAX_IMAGE_PIXELS\n"
        "run.command.main(standalone_mode=False)\n"
        "assert PIL.Image.MAX_IMAGE_PIXELS == before > 0"
    )
    arguments = [sys.executable, "-c", script, ".", "--save", "mask"]
    subprocess.run(arguments, cwd=photos, capture_output=True, timeout=120, check=True)


def test_json_lines_are_in_order_and_all_there_is(photos: Path) -> None:
    (photos / "b.jpg").write_text("text")
    done = unet_run("a.jpg", "absent.jpg", "deep", "b.jpg", "--json", "--save", "mask", "--backend", "onnx", cwd=photos)
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["photo"] for line in lines] == ["a.jpg", "absent.jpg", "deep/b.JPG", "deep/er/c.jpeg", "b.jpg"]
    first = lines[0]
    assert (first["width"], first["height"], first["model"], first["device"]) == (451, 300, bundled.SPEC.name, "cpu")
    assert first["engine"].startswith("ONNX Runtime")
    assert sum(area["pixels"] for area in first["classes"].values()) == 451 * 300
    assert first["results"] == ["a.mask.png"]
    assert "no such file" in lines[1]["error"]
    assert "not an image" in lines[4]["error"]
    assert lines[2]["results"] == ["deep-segmented/b.mask.png"]
    assert "2 of 5 photos failed, 3 written" in done.stderr


def test_every_kind_of_result(photos: Path) -> None:
    assert unet_run("a.jpg", "--save", "mask,overlay,cutout,probabilities,json", cwd=photos).returncode == 0
    document = json.loads((photos / "a.json").read_text())
    assert document["images"][0]["file_name"] == "a.jpg"
    assert document["annotations"][0]["segmentation"]
    with np.load(photos / "a.probabilities.npz") as data:
        assert data["probabilities"].shape == (300, 451, 3)


def test_a_model_of_parts_of_photos_gets_tiles_without_being_asked(photos: Path, tmp_path: Path) -> None:
    model = write_colour_model(tmp_path / "parts.onnx", colour_spec(32, "crop"))
    asked = unet_run(
        "a.jpg", "--tile", "--model", model, "--save", "mask", "--output-dir", tmp_path / "asked", cwd=photos
    )
    plain = unet_run("a.jpg", "--model", model, "--save", "mask", "--output-dir", tmp_path / "plain", cwd=photos)
    assert (asked.returncode, plain.returncode) == (0, 0), plain.stderr
    assert "colours saw parts of photos at their own scale: photos are covered with tiles" in plain.stderr
    masks = []
    for folder in ("asked", "plain"):
        with Image.open(tmp_path / folder / "a.mask.png") as image:
            masks.append(np.asarray(image))
    np.testing.assert_array_equal(*masks)


def test_tiles(photos: Path, colour_model: Path) -> None:
    """Every kind of result, of a segmentation in tiles."""
    kinds = "mask,overlay,cutout,probabilities,json"
    done = unet_run("a.jpg", "--tile", "--model", colour_model, "--save", kinds, cwd=photos)
    assert done.returncode == 0, done.stderr
    mask = np.asarray(Image.open(photos / "a.mask.png"))
    strongest = np.asarray(Image.open(photos / "a.jpg")).argmax(-1)  # what the model says of each pixel by itself
    assert (mask == strongest).mean() > 0.99
    document = json.loads((photos / "a.json").read_text())
    assert [document["areas"][name]["pixels"] for name in ("red", "green", "blue")] == np.bincount(
        mask.ravel()
    ).tolist()


def test_a_video_among_photos(photos: Path, colour_model: Path) -> None:
    """The photo first, then the video; --resume leaves out both."""
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(photos / "film.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (96, 64))
    for _ in range(5):
        writer.write(np.full((64, 96, 3), 90, np.uint8))
    writer.release()
    arguments = ["film.mp4", "a.jpg", "--model", str(colour_model), "--output-dir", "out", "--resume"]
    done = unet_run(*arguments, cwd=photos)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["a.jpg", "film.mp4"]
    assert names(photos / "out") == ["a.mask.png", "a.overlay.png", "film.overlay.mp4"]
    assert "2 photos were done before" in unet_run(*arguments, cwd=photos).stderr
    refused = unet_run("film.mp4", "--save", "json", "--model", colour_model, cwd=photos)
    assert (refused.returncode, "a video has no json" in refused.stderr) == (1, True)


def test_stop_at_the_first_error(photos: Path) -> None:
    (photos / "b.jpg").write_text("text")
    done = unet_run(
        photos, "--on-error", "stop", "--save", "mask", "--threads", "1", "--output-dir", photos.parent / "out"
    )
    assert done.returncode == 1
    assert "1 of 4 photos failed, 1 written, 2 not tried" in done.stderr
    assert done.stdout.count("->") == 1


def test_every_kind_of_bad_file_beside_good_ones(photos: Path) -> None:
    bad = photos / "bad"
    (bad / "folder.jpg").mkdir(parents=True)
    (bad / "truncated.jpg").write_bytes((photos / "a.jpg").read_bytes()[:9000])
    (bad / "text.jpg").write_text("text")
    (bad / "empty.jpg").write_bytes(b"")
    (bad / "broken.jpg").symlink_to("gone.jpg")
    (bad / "loop.jpg").symlink_to("loop.jpg")
    (bad / "again").symlink_to(".", target_is_directory=True)
    os.mkfifo(bad / "pipe.jpg")
    done = unet_run(photos, "--output-dir", photos.parent / "out", "--save", "mask")
    assert done.returncode == 1
    assert "5 of 8 photos failed, 3 written" in done.stderr
    for name in ("truncated", "text", "empty", "broken", "loop"):
        assert f"error: {bad}/{name}.jpg: " in done.stderr
    assert "Traceback" not in done.stderr
    assert names(photos.parent / "out") == ["a.mask.png", "deep/b.mask.png", "deep/er/c.mask.png"]


def test_progress_on_a_terminal_only(photos: Path) -> None:
    """A pseudo-terminal for standard error: one line that is drawn over and over."""
    ours, theirs = os.openpty()
    for index in range(12):
        (photos / f"{index}.jpg").write_bytes((photos / "a.jpg").read_bytes())
    arguments = [UNET_RUN, str(photos), "--save", "mask", "--output-dir", str(photos.parent / "out")]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # Linux' way to say that the other end is closed
        pass
    os.close(ours)
    assert process.wait(120) == 0
    assert re.search(rb"14 of 15   [0-9.]+ photos/s   0:0\d left", shown), shown
    assert shown.endswith(b"\r\x1b[K")  # nothing stays
    assert "photos/s" not in unet_run(photos, "--save", "mask").stderr


def test_a_reader_that_leaves(photos: Path) -> None:
    """``unet-run ... | head -1``: no traceback."""
    process = subprocess.Popen(
        [UNET_RUN, str(photos), "--save", "mask"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(60) != 0
    assert "Traceback" not in errors


def test_one_photo_imports_no_more_than_it_needs(photos: Path) -> None:
    """Cold start: what other inputs and results need stays out."""
    script = (
        "import sys, unet_runtime.cli.run as run\n"
        "assert run.command.main(standalone_mode=False) == 0\n"
        "print(*sorted(sys.modules))"
    )
    arguments = [sys.executable, "-c", script, "a.jpg", "--backend", "onnx"]
    done = subprocess.run(arguments, cwd=photos, capture_output=True, text=True, timeout=120, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    unwanted = {
        "zipfile",
        "tempfile",
        "pycocotools",
        "cv2",
        "unet_runtime.io.contours",
        "unet_runtime.io.video.segment",
        "unet_runtime.cli.live",
        "unet_runtime.core.tiling",
        "PIL.PngImagePlugin",
    }
    if sys.version_info < (3, 13):  # from then on pathlib imports it
        unwanted.add("glob")
    assert "unet_runtime.io.sinks" in loaded
    assert not loaded & unwanted

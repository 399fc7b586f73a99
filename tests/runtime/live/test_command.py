"""unet-run --webcam as a process: what it prints, how it ends, what it leaves."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.commands import UNET_RUN
from tests.helpers.live import closed_port, wait_for
from tests.helpers.mjpeg import MjpegCamera
from tests.helpers.paths import REPOSITORY
from tests.helpers.video import numbers, write_video
from unet_runtime import Segmenter
from unet_runtime.cli.live import _save_frame
from unet_runtime.cli.run import command

COMMAND = [UNET_RUN, "--backend", "tflite", "-q"]
# A terminal's width and a display are the machine's, not the tests'.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "DISPLAY"}


@pytest.fixture
def served(sample_photo: Path) -> Iterator[MjpegCamera]:
    with MjpegCamera(sample_photo) as camera:
        yield camera


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=180, env=ENVIRONMENT
    )


def test_a_live_view_without_a_window_records_and_says_how_it_went(served: MjpegCamera, tmp_path: Path) -> None:
    path = tmp_path / "live.mp4"
    done = run("--webcam", served.url, "--view", "none", "--max-seconds", "5", "--record", path, "--smooth", "0.5")
    assert (done.returncode, done.stderr) == (0, "")
    assert served.url in done.stdout
    for stage in ("capture", "preprocess", "inference", "compose", "display", "age"):
        row = next(line for line in done.stdout.splitlines() if line.startswith(stage))
        p50, p95 = map(float, row.split()[1:])
        assert 0 <= p50 <= p95
    assert re.search(r"\d+ reconnects", done.stdout)
    recorded = re.search(r"recorded (\d+) frames \((\S+) s\)", done.stdout)
    assert recorded is not None
    assert int(recorded[1]) == len(numbers(path))
    session = re.search(r"frames shown in (\S+) s", done.stdout)
    assert session is not None
    assert 0 < float(recorded[2]) < float(session[1]) + 10
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_live_view_as_it_is_meant_to_end(
    number: signal.Signals, served: MjpegCamera, tmp_path: Path
) -> None:
    path = tmp_path / "live.avi"
    arguments = ["--webcam", served.url, "--view", "none", "--record", str(path)]
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        wait_for(lambda: served.sent > 60, 60)  # it has been looking for some time
        process.send_signal(number)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "frames shown in" in out
    assert len(numbers(path)) > 0
    assert list(tmp_path.iterdir()) == [path]


def test_a_signal_while_the_camera_is_waited_for_is_no_error(served: MjpegCamera) -> None:
    served.mode = "stall"
    with subprocess.Popen(
        [*COMMAND, "--webcam", served.url, "--view", "none"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    ) as process:
        wait_for(lambda: served.connections, 60)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    assert "0 frames shown" in out


def test_a_camera_that_is_not_there_is_an_error_of_one_line(tmp_path: Path) -> None:
    done = run("--webcam", f"http://127.0.0.1:{closed_port()}/", "--view", "none", "--record", tmp_path / "live.mp4")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "Connection refused" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_film_that_opencv_does_not_decode_is_an_error_that_says_what_does() -> None:
    done = run("--webcam", REPOSITORY / "tests" / "data" / "cases" / "videos" / "av1.mp4", "--view", "none")
    assert done.returncode == 1
    assert "no decoder (AV1): without --webcam, unet-run reads it through ffmpeg" in done.stderr


def test_a_recording_that_cannot_be_written_is_refused_before_the_camera_is_asked(
    served: MjpegCamera, tmp_path: Path
) -> None:
    done = run("--webcam", served.url, "--view", "none", "--record", tmp_path / "live.gif")
    assert done.returncode == 1
    assert "suffix '.gif', expected one of .mp4" in done.stderr
    assert served.connections == 0


def test_a_stalled_camera_does_not_keep_the_program_from_ending(served: MjpegCamera) -> None:
    with subprocess.Popen(
        [*COMMAND, "--webcam", served.url, "--view", "none"], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        wait_for(lambda: served.sent > 10, 60)
        served.mode = "stall"
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "frames shown in" in out


def test_key_s_saves_four_pictures_named_after_the_time(tmp_path: Path, sample_photo: Path) -> None:
    result = Segmenter(backend="onnx")(sample_photo)
    first, second = _save_frame(result, tmp_path / "shots"), _save_frame(result, tmp_path / "shots")
    assert re.fullmatch(r"live-\d{8}-\d{6}-\d{3}\.png", first[0].name)
    assert sorted((tmp_path / "shots").iterdir()) == sorted(first + second)
    assert len({*first, *second}) == 8
    modes = []
    for path in first:
        with Image.open(path) as picture:
            assert picture.size == result.photo.size
            modes.append(picture.mode)
    assert modes == ["RGB", "L", "RGB", "RGBA"]
    with Image.open(first[0]) as photo:
        assert np.array_equal(np.asarray(photo), np.asarray(result.photo))


# --- videos ----------------------------------------------------------------------------------------


def test_a_video_among_the_inputs_becomes_a_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 12)
    done = run(path)
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(tmp_path / "clip.overlay.mp4") == list(range(12))


@pytest.mark.parametrize(("photos", "loads"), [(0, 1), (1, 1), (3, 2)])
def test_a_model_is_loaded_once_for_all_videos(
    photos: int, loads: int, tmp_path: Path, sample_photo: Path, colour_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once more beside several photos, whose model has other threads: one for each photo at a time."""
    loaded = []

    class Counted(Segmenter):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            loaded.append(options["threads"])

    monkeypatch.setattr("unet_runtime.cli.run.Segmenter", Counted)
    inputs = [write_video(tmp_path / f"{name}.avi", 3) for name in "abc"]
    for number in range(photos):
        inputs.append(tmp_path / f"photo{number}.jpg")
        inputs[-1].write_bytes(sample_photo.read_bytes())
    options = ["--model", str(colour_model), "--save", "mask,overlay", "-o", str(tmp_path / "out")]
    assert command.main([*map(str, inputs), *options], standalone_mode=False) == 0
    assert len(loaded) == loads
    assert loaded[-1] is None
    assert len(list((tmp_path / "out").iterdir())) == 2 * (3 + photos)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_a_video_leaves_nothing(number: signal.Signals, code: int, tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 1000)
    with subprocess.Popen(
        [*COMMAND, str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as process:
        wait_for(lambda: any(half.stat().st_size for half in tmp_path.glob(".*.part.mp4")))
        process.send_signal(number)
        process.communicate(timeout=120)
    assert process.returncode == code
    assert list(tmp_path.iterdir()) == [path]


def test_progress_is_drawn_on_a_terminal(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 12)
    ours, theirs = pty.openpty()
    done = subprocess.run([*COMMAND, str(path)], stdout=subprocess.DEVNULL, stderr=theirs, timeout=180, env=ENVIRONMENT)
    os.close(theirs)
    drawn = b""
    with suppress(OSError):  # Linux' way to say that the other end is closed
        while part := os.read(ours, 1 << 16):
            drawn += part
    os.close(ours)
    assert done.returncode == 0
    assert b"clip.avi" in drawn
    assert b"12/12" in drawn

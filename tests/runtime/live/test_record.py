"""Recordings: as long as the time they show, whole or not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.helpers.mjpeg import SIZE, draw_number
from tests.helpers.video import frames_of, needs_ffmpeg, numbers, shown, times
from unet_runtime.core.errors import OutputError
from unet_runtime.io.video import ffmpeg, h264
from unet_runtime.io.video.opencv import load_opencv
from unet_runtime.io.video.writer import CODECS, VideoFile
from unet_runtime.live.record import Recorder, affordable_rate


def picture(number: int, size: tuple[int, int] = SIZE) -> npt.NDArray[np.uint8]:
    return draw_number(np.full((size[1], size[0], 3), 100, np.uint8), number)


SHOWN = ((1, 7.0), (2, 7.1), (3, 7.52), (4, 7.55), (5, 8.5))
"""(number, time): uneven, and a gap of a second."""


@needs_ffmpeg
@pytest.mark.parametrize("suffix", sorted(h264.SUFFIXES))
def test_a_recording_has_each_picture_at_its_own_time_and_plays_in_browsers(suffix: str, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / f"live{suffix}")
    for number, now in SHOWN:
        recorder.add(picture(number), now)
    recorder.close(9.0)
    assert numbers(recorder.path) == [1, 2, 3, 4, 5, 5]  # the last one stays until the end
    expected = [0.0, 0.1, 0.52, 0.55, 1.5, 2 - 1 / 30]
    assert times(recorder.path) == pytest.approx(expected, abs=0.002)
    assert shown(recorder.path, "stream=codec_name,pix_fmt") == ["h264", "yuv420p"]
    assert float(shown(recorder.path, "format=duration")[-1]) == pytest.approx(2.0, abs=0.05)
    assert (recorder.frames, recorder.seconds) == (6, 2.0)


@needs_ffmpeg
def test_pictures_at_the_same_time_are_all_there(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "live.mp4")
    for number, now in ((1, 5.0), (2, 5.0), (3, 4.0), (4, 5.0)):
        recorder.add(picture(number), now)
    recorder.close(5.0)
    assert numbers(recorder.path) == [1, 2, 3, 4]


def test_without_ffmpeg_a_recording_says_that_browsers_do_not_play_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ffmpeg, "find", lambda: None)
    recorder = Recorder(tmp_path / "live.mp4", rate=10)
    recorder.add(picture(1), 0.0)
    recorder.close(1.0)
    assert numbers(recorder.path) == [1] * 10
    assert [record.getMessage() for record in caplog.records] == [
        f"{recorder.path}: no program ffmpeg with an H.264 encoder: the recording does not play in browsers: install "
        "it (apt-get install ffmpeg)"
    ]


def test_a_recording_of_constant_rate_shows_at_each_time_what_was_on_show(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "live.avi", rate=10)
    for number, now in SHOWN:
        recorder.add(picture(number), now)
    recorder.close(9.0)
    #                                 7.0 7.1 7.2 7.3 7.4 | 7.5 .. 8.4 | 8.5 .. 8.9
    assert numbers(recorder.path) == [1, 2, 2, 2, 2] + [4] * 10 + [5] * 5
    assert (recorder.frames, recorder.seconds) == (20, 2.0)


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_a_picture_shown_for_no_time_is_seen_all_the_same(suffix: str, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / f"live{suffix}")
    recorder.add(picture(9), 1.0)
    recorder.close(1.0)
    assert numbers(recorder.path) == [9]


def test_without_a_picture_there_is_no_file(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "live.mp4")
    recorder.close(5.0)
    assert recorder.frames == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_until_it_is_closed_there_is_no_file_of_that_name(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"live{suffix}"
    path.write_text("older")
    recorder = Recorder(path, rate=30)
    recorder.add(picture(1), 0.0)
    recorder.add(picture(2), 0.5)
    assert path.read_text() == "older"
    recorder.close(1.0)
    assert numbers(path)[-1] == 2
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".avi", ".mp4"])
def test_a_camera_that_changes_its_size_is_recorded_on(suffix: str, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / f"live{suffix}", rate=10)
    recorder.add(picture(1), 0.0)
    recorder.add(np.full((1080, 1920, 3), 250, np.uint8), 0.5)
    recorder.close(1.0)
    frames = frames_of(recorder.path)
    assert {frame.shape for frame in frames} == {(480, 640, 3)}
    assert frames[-1].mean() > 240


def test_a_slow_encoder_gets_fewer_frames_and_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [affordable_rate(seconds) for seconds in (0.001, 0.01, 0.011, 0.02, 0.03, 0.2)] == [30, 30, 15, 15, 10, 5]
    monkeypatch.setattr(VideoFile, "seconds_per_frame", lambda *_: 0.025)
    recorder = Recorder(tmp_path / "live.avi")
    recorder.add(picture(1), 0.0)
    recorder.add(picture(2), 1.0)
    recorder.close(2.0)
    assert numbers(recorder.path) == [1] * 10 + [2] * 10
    assert recorder.seconds == 2


def test_encoding_is_timed_with_a_picture_and_leaves_nothing(tmp_path: Path) -> None:
    file = VideoFile(tmp_path / "live.mp4", 30)
    noise = np.random.default_rng(1)
    small, large = noise.integers(0, 256, (120, 160, 3), np.uint8), noise.integers(0, 256, (1080, 1920, 3), np.uint8)
    # A hundred times as many pixels; where another program gets in between, it is tried again.
    assert any(0 < file.seconds_per_frame(small) < file.seconds_per_frame(large) for _ in range(5))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", CODECS)
def test_every_container_holds_what_was_written(suffix: str, tmp_path: Path) -> None:
    with VideoFile(tmp_path / f"clip{suffix}", 29.97) as file:
        for number in range(17):
            file.write(picture(number))
    assert numbers(file.path) == list(range(17))
    assert load_opencv("a test").VideoCapture(str(file.path)).get(5) == pytest.approx(29.97)  # CAP_PROP_FPS


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clip.gif", r"suffix '.gif', expected one of .mp4"),
        ("clip", r"suffix '', expected one of"),
        ("file/clip.mp4", r"clip.mp4: cannot be written \((Not a directory|File exists)\)"),
        ("folder.mp4", r"is a folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_recorded(
    name: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(OutputError, match=message):
        Recorder(tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.mp4"]


def test_an_error_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> None:
        with VideoFile(tmp_path / "clip.mp4", 30) as file:
            file.write(picture(1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_though_opencv_reports_none(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk; Python ignores its signal, so writes fail as on a full one."""
    script = f"""
import resource, sys
import numpy as np
from pathlib import Path
from unet_runtime.core.errors import OutputError
from unet_runtime.live.record import Recorder, affordable_rate
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
recorder = Recorder(Path({str(tmp_path)!r}) / sys.argv[1])
noise = np.random.default_rng(1)
try:
    for number in range(30):
        recorder.add(noise.integers(0, 256, (480, 640, 3), np.uint8), number / 30)
    recorder.close(1.0)
except OutputError as error:
    print(error)
"""
    for name in ("clip.mp4", "clip.avi"):
        done = subprocess.run([sys.executable, "-c", script, name], capture_output=True, text=True, timeout=180)
        assert f"{name}: " in done.stdout, done
        assert "is the disk full?" in done.stdout
    assert list(tmp_path.iterdir()) == []

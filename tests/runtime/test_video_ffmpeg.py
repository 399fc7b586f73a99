"""Results that play everywhere: H.264 through ffmpeg, with the source's sound, times and pixel aspect."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.colours import colour_spec, write_colour_model
from tests.helpers.video import frames_of, numbers, write_video
from unet_runtime import Segmenter
from unet_runtime.io.video import ffmpeg
from unet_runtime.io.video.segment import segment_video

needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="no ffmpeg: apt-get install ffmpeg"
)


@pytest.fixture
def colours(tmp_path: Path) -> Segmenter:
    return Segmenter(write_colour_model(tmp_path / "colours.onnx", colour_spec()), backend="onnx")


def make(path: Path, *options: str, source: str = "testsrc=size=320x240:rate=15:duration=2") -> Path:
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, *options, f"file:{path}"]
    subprocess.run(command, check=True, timeout=60)
    return path


def shown(path: Path, entries: str, stream: str = "v:0") -> list[str]:
    command = ["ffprobe", "-v", "error", "-select_streams", stream, "-show_entries", entries, "-of", "csv=p=0"]
    done = subprocess.run([*command, f"file:{path}"], capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.replace("\n", ",").strip(",").split(",")


def times(path: Path) -> list[float]:
    found = []
    for value in shown(path, "frame=best_effort_timestamp_time"):
        if value:
            found.append(float(value))
    return found


@needs_ffmpeg
def test_sound_is_copied_and_browsers_can_play_it(tmp_path: Path, colours: Segmenter) -> None:
    options = ("-f", "lavfi", "-i", "sine=duration=2", "-c:v", "libx264", "-c:a", "aac")
    source, target = make(tmp_path / "clip.mp4", *options), tmp_path / "out.mp4"
    assert segment_video(colours, source, {"overlay": target}) == 30
    assert shown(target, "stream=codec_name,pix_fmt") == ["h264", "yuv420p"]
    assert shown(target, "stream=codec_name", "a:0") == ["aac"]
    content = target.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # plays before it is there whole


@needs_ffmpeg
@pytest.mark.parametrize(
    "options",
    [
        ("-vf", r"select='not(mod(n\,7))+lt(n\,9)'", "-fps_mode", "vfr"),
        ("-vf", "setpts=PTS+0.3/TB*gt(N\\,10)", "-fps_mode", "passthrough"),
        ("-vf", "fps=600", "-t", "0.2"),
    ],
)
def test_each_frame_keeps_its_time(options: tuple[str, ...], tmp_path: Path, colours: Segmenter) -> None:
    source, target = make(tmp_path / "clip.mp4", *options), tmp_path / "out.mp4"
    segment_video(colours, source, {"overlay": target})
    before, after = times(source), times(target)
    assert len(before) == len(after)
    assert max(abs((a - before[0]) - (b - after[0])) for a, b in zip(before, after, strict=True)) < 0.04


@needs_ffmpeg
def test_the_pixel_aspect_stays(tmp_path: Path, colours: Segmenter) -> None:
    source, target = make(tmp_path / "clip.mp4", "-vf", "setsar=16/9"), tmp_path / "out.mp4"
    segment_video(colours, source, {"overlay": target})
    assert shown(target, "stream=sample_aspect_ratio") == ["16:9"]


@needs_ffmpeg
@pytest.mark.parametrize("name", ["clip-12:30.avi", "12:30.avi", "-y.avi", os.fsdecode(b"caf\xe9.avi")])
def test_odd_names_are_read_and_written(name: str, tmp_path: Path, colours: Segmenter) -> None:
    source = tmp_path / name
    write_video(tmp_path / "plain.avi", 6).rename(source)
    target = tmp_path / f"{source.stem}.overlay.mp4"
    assert segment_video(colours, source, {"overlay": target}) == 6
    target.rename(tmp_path / "out.mp4")
    assert numbers(tmp_path / "out.mp4") == list(range(6))


def test_without_ffmpeg_the_loss_is_said(
    tmp_path: Path, colours: Segmenter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ffmpeg, "find", lambda: None)
    source = tmp_path / "clip-12:30.avi"
    write_video(tmp_path / "plain.avi", 6).rename(source)
    segment_video(colours, source, {"overlay": tmp_path / "out.mp4"})
    assert len(frames_of(tmp_path / "out.mp4")) == 6
    assert [record.getMessage() for record in caplog.records] == [
        f"{source}: no program ffmpeg with an H.264 encoder: the result does not play in browsers, has no sound and a "
        "constant frame rate: install it (apt-get install ffmpeg)"
    ]

"""Results that play everywhere: H.264 through ffmpeg, with the source's sound, times and pixel aspect."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.colours import colour_spec, write_colour_model
from tests.helpers.paths import REPOSITORY
from tests.helpers.video import frames_of, make, needs_ffmpeg, numbers, shown, times, write_video
from unet_runtime import Segmenter
from unet_runtime.io.video import ffmpeg
from unet_runtime.io.video.reader import Reader
from unet_runtime.io.video.segment import segment_video


@pytest.fixture
def colours(tmp_path: Path) -> Segmenter:
    return Segmenter(write_colour_model(tmp_path / "colours.onnx", colour_spec()), backend="onnx")


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
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_each_frame_keeps_its_time(suffix: str, options: tuple[str, ...], tmp_path: Path, colours: Segmenter) -> None:
    source, target = make(tmp_path / "clip.mp4", *options), tmp_path / f"out{suffix}"
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
def test_an_hdr_video_is_named_and_stays_one(
    tmp_path: Path, colours: Segmenter, caplog: pytest.LogCaptureFixture
) -> None:
    pq = ("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc")
    source = make(tmp_path / "clip.mp4", *pq, "-t", "0.2")
    segment_video(colours, source, {"overlay": tmp_path / "out.mp4"})
    assert caplog.text.count("clip.mp4: is an HDR video") == 1
    assert shown(tmp_path / "out.mp4", "stream=color_transfer") == ["smpte2084"]


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


CODECS = {
    "av1.mp4": ("libsvtav1", "libaom-av1", "librav1e"),
    "av1.mkv": ("libsvtav1", "libaom-av1", "librav1e"),
    "av1.webm": ("libsvtav1", "libaom-av1", "librav1e"),
    "hevc.mp4": ("libx265",),
    "vp9.webm": ("libvpx-vp9",),
    "prores.mov": ("prores_ks",),
    "mpeg2.ts": ("mpeg2video",),
    "mjpeg.mov": ("mjpeg",),
}
"""What cameras and programs write -> encoders of ffmpeg that make it, of which one suffices."""


@needs_ffmpeg
@pytest.mark.parametrize("name", CODECS)
def test_codecs_that_opencv_decodes_and_those_that_ffmpeg_does(name: str, tmp_path: Path) -> None:
    """OpenCV has no decoder for AV1."""
    listed = ffmpeg._ask(["ffmpeg", "-hide_banner", "-encoders"]).split()
    encoder = next((encoder for encoder in CODECS[name] if encoder in listed), None)
    if encoder is None:
        pytest.skip(f"this ffmpeg has no encoder {CODECS[name]}")
    options = ("-c:v", encoder, "-pix_fmt", "yuvj420p" if encoder == "mjpeg" else "yuv420p")
    source = "color=red:size=96x64:rate=10:duration=1,drawbox=x=48:color=blue:t=fill"
    reader = Reader(make(tmp_path / name, *(options if encoder != "prores_ks" else options[:2]), source=source))
    frames = list(reader)
    reader.check_complete([])
    assert len(frames) == 10
    assert list(reader.times) == pytest.approx([reader.times[0] + step / 10 for step in range(10)], abs=0.002)
    assert np.abs(frames[-1][32, 24].astype(int) - (254, 0, 0)).max() < 12
    assert np.abs(frames[-1][32, 72].astype(int) - (0, 0, 254)).max() < 12


@needs_ffmpeg
def test_an_av1_video_becomes_a_video(tmp_path: Path, colours: Segmenter) -> None:
    source = REPOSITORY / "tests" / "data" / "cases" / "videos" / "av1.mp4"
    target = tmp_path / "out.mp4"
    assert segment_video(colours, source, {"overlay": target}) == 30
    assert times(target) == pytest.approx(times(source), abs=0.002)


def test_without_ffmpeg_the_codec_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "find", lambda: None)
    reader = Reader(REPOSITORY / "tests" / "data" / "cases" / "videos" / "av1.mp4")
    assert list(reader) == []
    assert str(reader.no_frame()).endswith(
        "av1.mp4: this OpenCV has no decoder for AV1, the program ffmpeg has one: install it (apt-get install ffmpeg)"
    )


@needs_ffmpeg
def test_an_avi_as_target_says_what_it_costs(
    tmp_path: Path, colours: Segmenter, caplog: pytest.LogCaptureFixture
) -> None:
    source = make(tmp_path / "clip.mp4", source="testsrc=size=96x64:rate=5:duration=1")
    segment_video(colours, source, {"overlay": tmp_path / "out.avi"})
    assert [record.getMessage() for record in caplog.records] == [
        f"{source}: files of this suffix are written by OpenCV: the result does not play in browsers, has no sound and "
        "a constant frame rate: name an .mp4"
    ]

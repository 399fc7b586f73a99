"""Cameras of boards: programs that behave as rpicam-vid and gst-launch-1.0 are documented to, in a folder of PATH."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.live import IMPATIENT, QUICK, wait_for
from unet_runtime.core.errors import SourceError
from unet_runtime.live.camera import Camera
from unet_runtime.live.piped import command, is_piped, take_picture
from unet_runtime.live.source import parse_source

CAMERA = """#!{python}
import argparse, io, os, signal, sys, time
parser = argparse.ArgumentParser()
for name in ("camera", "timeout", "codec", "width", "height", "framerate", "output"):
    parser.add_argument("--" + name, required=True)
for name in ("nopreview", "flush"):
    parser.add_argument("--" + name, action="store_true", required=True)
given = parser.parse_args()
print("[0:00:01] [100]  INFO Camera camera_manager.cpp:340 libcamera v0.5.2", file=sys.stderr)
if int(given.camera) > 0:
    print("ERROR: *** no cameras available ***", file=sys.stderr)
    sys.exit(255)
assert (given.timeout, given.codec, given.output) == ("0", "mjpeg", "-")
from PIL import Image
open({log!r}, "a").write("started\\n")
for number in range({count}):
    picture = Image.new("RGB", (int(given.width), int(given.height)), (number * 40 % 256, 200, 30))
    written = io.BytesIO()
    picture.save(written, "JPEG")
    content = written.getvalue()
    half = len(content) // 2
    for part in (content[:half], content[half:]):
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        time.sleep(0.01)
{end}
"""


def write_camera(folder: Path, name: str = "rpicam-vid", count: int = 1000, end: str = "") -> Path:
    """A program that sends ``count`` pictures, each in two parts; returns the file that counts its starts."""
    folder.mkdir(exist_ok=True)
    log = folder / "starts"
    program = folder / name
    program.write_text(CAMERA.format(python=sys.executable, log=str(log), count=count, end=end))
    program.chmod(0o755)
    return log


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def test_a_raspberry_pis_camera(programs: Path) -> None:
    write_camera(programs)
    with Camera("picamera", QUICK) as camera:
        frame = camera.newest()
        assert frame is not None
        assert frame.picture.shape == (480, 640, 3)
        assert abs(int(frame.picture[0, 0, 1]) - 200) < 8  # RGB, green in the middle
        wait_for(lambda: camera.captured > 3)
    assert camera.source.name == "picamera"


def test_bullseyes_name_of_the_program(programs: Path) -> None:
    write_camera(programs, "libcamera-vid")
    assert command("picamera:1")[:3] == ["libcamera-vid", "--camera", "1"]


def test_the_program_ends_with_the_camera(programs: Path) -> None:
    """Also one that does not listen."""
    write_camera(programs, count=100_000)
    text = (programs / "rpicam-vid").read_text()
    (programs / "rpicam-vid").write_text(
        text.replace("given = ", "signal.signal(signal.SIGTERM, signal.SIG_IGN)\ngiven = ")
    )
    with Camera("picamera", QUICK):
        pass
    found = subprocess.run(["/bin/ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert str(programs) not in found


def test_a_program_that_ends_is_started_again(programs: Path) -> None:
    log = write_camera(programs, count=4)
    with Camera("picamera", QUICK) as camera:
        wait_for(lambda: camera.reconnects >= 1)
    assert log.read_text().count("started") >= 2


def test_what_the_program_says_is_repeated(programs: Path) -> None:
    write_camera(programs)
    with pytest.raises(SourceError, match=r"picamera:1: rpicam-vid ended with exit code 255: .*no cameras available"):
        Camera("picamera:1", QUICK).start()


def test_without_the_program_its_package_is_named(programs: Path) -> None:
    with pytest.raises(SourceError, match=r"picamera: rpicam-vid is not installed: sudo apt install rpicam-apps"):
        Camera("picamera", QUICK).start()
    with pytest.raises(SourceError, match=r"csi: gst-launch-1.0 is not installed: .*nvidia-l4t-gstreamer"):
        Camera("csi", QUICK).start()


def test_a_program_without_pictures(programs: Path) -> None:
    (programs / "rpicam-vid").write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    (programs / "rpicam-vid").chmod(0o755)
    with pytest.raises(SourceError, match="sent no JPEG picture within 1 s"):
        Camera("picamera", IMPATIENT).start()


def test_a_jetsons_camera_is_a_pipeline(programs: Path) -> None:
    words = command("csi:1")
    assert words[:4] == ["gst-launch-1.0", "--quiet", "nvarguscamerasrc", "sensor-id=1"]
    assert "video/x-raw(memory:NVMM),width=1280,height=720,framerate=30/1" in words
    assert words[-5:] == ["!", "nvjpegenc", "!", "fdsink", "fd=1"]


@pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="no gst-launch-1.0: apt install gstreamer1.0-tools")
def test_a_real_pipeline() -> None:
    pipeline = "gst:videotestsrc pattern=red ! video/x-raw,width=320,height=240,framerate=30/1 ! jpegenc"
    camera = Camera(pipeline, QUICK)
    try:
        camera.start()
        frame = camera.newest()
        assert frame is not None
        assert frame.picture.shape == (240, 320, 3)
        assert frame.picture[120, 160, 0] > 200 > 60 > frame.picture[120, 160, 2]
    finally:
        camera.close()


@pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="no gst-launch-1.0: apt install gstreamer1.0-tools")
def test_secrets_of_a_pipeline_are_shown_nowhere() -> None:
    """Neither in the camera's name, which the window's title and the page have, nor in what the program says."""
    pipeline = "gst:rtspsrc location=rtsp://admin:hunter2@127.0.0.1:1/x user-pw=hunter2 ! no-such-element ! jpegenc"
    assert "hunter2" not in parse_source(pipeline).name
    with pytest.raises(SourceError) as caught:
        Camera(pipeline, QUICK).start()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["picamera", "picamera:0", "csi", "csi:12", "gst:a ! b"])
def test_names_of_boards_cameras(name: str) -> None:
    assert is_piped(name)
    assert parse_source(name).kind == "program"


@pytest.mark.parametrize("name", ["picamera:", "picamera:x", "csi:/dev/video0", "gst", "gst:", "gst:'", "picam"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(SourceError, match="expected"):
        parse_source(name)


def jpeg(size: tuple[int, int], **settings: object) -> bytes:
    written = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(written, "JPEG", **settings)
    return written.getvalue()


def test_pictures_are_told_apart_however_they_arrive() -> None:
    thumbnail = jpeg((16, 16))
    pictures = [jpeg((40, 30)), jpeg((40, 30), comment=b"a thumbnail: " + thumbnail), jpeg((64, 64), progressive=True)]
    stream = b"\xd9noise" + pictures[0] + b"\xff\xd8noise" + pictures[1] + pictures[2] + jpeg((8, 8))[:-5]
    for step in (1, 7, len(stream)):
        buffer, found = bytearray(), []
        for place in range(0, len(stream), step):
            buffer += stream[place : place + step]
            while picture := take_picture(buffer):
                found.append(picture)
        assert found == pictures


def test_old_pictures_are_left_out(programs: Path) -> None:
    """A reader that is slow gets what is newest, not what waits in the pipe."""
    write_camera(programs, count=100_000)
    with Camera("picamera", QUICK) as camera:
        wait_for(lambda: camera.captured > 2)
        before, number = time.perf_counter(), camera.captured
        wait_for(lambda: camera.captured > number + 1)  # the next one may have been on its way already
        frame = camera.newest()
        assert frame is not None
        assert frame.captured >= before
    assert os.environ["PATH"] == str(programs)

"""Small videos whose frames carry their numbers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.mjpeg import SIZE, Frame, draw_number, read_number
from unet_runtime.io.video.opencv import load_opencv


def write_video(path: Path, frames: int, rate: float = 30) -> Path:
    """Frames 0, 1, ... of ``SIZE`` in Motion JPEG."""
    cv2 = load_opencv("a test")
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate, SIZE)
    for number in range(frames):
        writer.write(draw_number(np.full((SIZE[1], SIZE[0], 3), 90, np.uint8), number))
    writer.release()
    return path


def frames_of(path: Path) -> list[Frame]:
    """Every frame that can be read, uint8 (H, W, 3) RGB."""
    cv2 = load_opencv("a test")
    reader = cv2.VideoCapture(str(path))
    frames = []
    while (frame := reader.read())[0]:
        frames.append(frame[1][..., ::-1])
    return frames


def numbers(path: Path) -> list[int]:
    """The number in each frame of a video."""
    return [read_number(frame) for frame in frames_of(path)]


needs_ffmpeg = pytest.mark.skipif(
    not (shutil.which("ffmpeg") and shutil.which("ffprobe")), reason="no ffmpeg: apt-get install ffmpeg"
)


def make(path: Path, *options: str, source: str = "testsrc=size=320x240:rate=15:duration=2") -> Path:
    """A video of ffmpeg's test picture."""
    command = ["ffmpeg", "-v", "error", "-y", "-f", "lavfi", "-i", source, *options, f"file:{path}"]
    subprocess.run(command, check=True, timeout=180)
    return path


def shown(path: Path, entries: str, stream: str = "v:0") -> list[str]:
    """What ffprobe says of a video."""
    command = ["ffprobe", "-v", "error", "-select_streams", stream, "-show_entries", entries, "-of", "csv=p=0"]
    done = subprocess.run([*command, f"file:{path}"], capture_output=True, text=True, timeout=180, check=True)
    return done.stdout.replace("\n", ",").strip(",").split(",")


def times(path: Path) -> list[float]:
    """Seconds at which each frame is to be seen."""
    found = []
    for value in shown(path, "frame=best_effort_timestamp_time"):
        if value:
            found.append(float(value))
    return found

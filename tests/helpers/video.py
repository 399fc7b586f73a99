"""Small videos whose frames carry their numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np

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

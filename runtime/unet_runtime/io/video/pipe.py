"""Frames that the program ffmpeg decodes: OpenCV's wheels have no decoder for AV1.

https://github.com/opencv/opencv-python/issues/951
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unet_runtime.io.video import ffmpeg, matroska
from unet_runtime.io.video.opencv import load_opencv

_EVEN = "crop=trunc(iw/2)*2:trunc(ih/2)*2"
"""Colours are stored for two by two pixels; of an odd height or width the last row or column is lost, as in results."""

Frame = npt.NDArray[np.uint8]


def decode(program: ffmpeg.Program, path: Path) -> Iterator[tuple[float, Frame]]:
    """(seconds, uint8 (H, W, 3) RGB) of each frame of a video, upright; as many as the program can read."""
    arguments = [program.ffmpeg, "-v", "error", "-i", ffmpeg.as_input(path), "-map", "0:v:0", *program.own_times]
    # Not RGB, which versions of ffmpeg write into Matroska in different ways or not at all.
    arguments += ["-vf", _EVEN, "-c:v", "rawvideo", "-pix_fmt", "yuv420p", "-f", "matroska", "pipe:1"]
    cv2 = load_opencv("a video")
    try:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=os.name == "posix",  # Ctrl-C is for us: we end it
        )
    except OSError:
        return
    try:
        assert process.stdout is not None
        for seconds, (width, height), content in matroska.pictures(process.stdout):
            if len(content) != width * height * 3 // 2:  # cut off
                return
            planes = np.frombuffer(content, np.uint8).reshape(height * 3 // 2, width)
            yield seconds, cv2.cvtColor(planes, cv2.COLOR_YUV2RGB_I420)
    finally:
        process.kill()
        process.communicate()

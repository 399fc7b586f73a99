"""Frames of a video file, upright, one after the other."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_runtime.core.errors import SourceError
from unet_runtime.io.video import ffmpeg
from unet_runtime.io.video.opencv import load_opencv, plain_path

_DEFAULT_RATE = 30.0  # frames a second
_MAX_RATE = 240.0  # some files give their clock's rate, 1000 or 90000

_MAX_ASPECT = 10.0  # of a pixel: more is a damaged header
_QUARTER = 90  # degrees

_CODECS = {"AV01": "AV1"}
"""Codecs that OpenCV's wheels open and do not decode, by their code in a file."""

# Containers that list their frames; others promise as many as fit into their duration.
_COUNTED = frozenset({".mp4", ".m4v", ".mov", ".3gp", ".avi"})

# A few frames less than promised are no sign of damage: https://github.com/opencv/opencv/issues/15569
_MISSING_FRAMES = 2
_MISSING_SHARE = 0.01

Frame = npt.NDArray[np.uint8]


class Reader:
    """Frames of a video file, upright as its rotation says.

    Raises:
        SourceError: no such file, or no video.
        MissingDependencyError: OpenCV is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._cv2: Any = load_opencv("a video")
        if not path.is_file():
            raise SourceError(f"{path}: no such file, expected a video")
        with plain_path(path) as name:
            self._capture = self._cv2.VideoCapture(name, self._cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise SourceError(
                f"{path}: not a video that OpenCV can read, or truncated (an .mp4 has its table of contents at its end)"
            )
        self.rate = plausible_rate(self._capture.get(self._cv2.CAP_PROP_FPS))
        """Frames a second."""
        self.aspect = self._pixel_aspect()
        """Width of a pixel by its height, as two integers; of the upright picture."""
        self.promised = _whole(self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT))
        """Frames that the file says it has; 0 where it does not say."""
        self.count = 0
        """Frames read so far."""
        self._capture_code = self._capture.get(self._cv2.CAP_PROP_FOURCC)
        self._last = 0.0
        self.times: deque[float] = deque()
        """Seconds at which each frame read is to be seen; the caller takes them out."""

    def __iter__(self) -> Iterator[Frame]:
        """uint8 (H, W, 3) RGB, one after the other."""
        try:
            for seconds, frame in itertools.chain(self._by_opencv(), self._by_ffmpeg()):
                self.count += 1
                self.times.append(seconds)
                self._last = seconds
                yield frame
        finally:
            self._capture.release()

    def _by_opencv(self) -> Iterator[tuple[float, Frame]]:
        while True:
            there, frame = self._capture.read()
            if not there:
                return
            seconds = self._capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1000
            yield seconds, self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB)

    def _by_ffmpeg(self) -> Iterator[tuple[float, Frame]]:
        """Every frame of a video of which OpenCV has read none: it may have no decoder for it."""
        program = None if self.count else ffmpeg.find()
        if program is not None:
            from unet_runtime.io.video import pipe

            yield from pipe.decode(program, self.path)

    def _pixel_aspect(self) -> tuple[int, int]:
        cv2 = self._cv2
        width, height = (_whole(self._capture.get(name)) for name in (cv2.CAP_PROP_SAR_NUM, cv2.CAP_PROP_SAR_DEN))
        if not (width and height and 1 / _MAX_ASPECT <= width / height <= _MAX_ASPECT):
            return 1, 1
        turned = _whole(self._capture.get(cv2.CAP_PROP_ORIENTATION_META)) % 180 == _QUARTER
        return (height, width) if turned else (width, height)

    def no_frame(self) -> SourceError:
        """Why not one frame could be read."""
        code = _whole(self._capture_code)
        name = code.to_bytes(8, "little")[:4].decode("latin-1").upper()
        codec = _CODECS.get(name, name) if name.isascii() and name.isalnum() else "unknown"
        if name in _CODECS and ffmpeg.find() is None:
            return SourceError(
                f"{self.path}: this OpenCV has no decoder for {codec}, the program ffmpeg has one: install it "
                "(apt-get install ffmpeg)"
            )
        return SourceError(f"{self.path}: damaged: not one frame could be read (codec {codec})")

    def check_complete(self, targets: Iterable[Path]) -> None:
        """After the last frame, which is in ``targets``.

        Raises:
            SourceError: many frames fewer than promised.
        """
        came_to = self.count
        if self.path.suffix.lower() not in _COUNTED:
            came_to = max(came_to, round(self._last * self.rate) + 1)
        missing = self.promised - came_to
        if missing > max(_MISSING_FRAMES, _MISSING_SHARE * self.promised):
            raise SourceError(
                f"{self.path}: damaged or truncated: {self.count} of its {self.promised} frames could be read; they "
                f"are in {', '.join(map(str, targets))}"
            )


def _whole(value: float) -> int:
    """0 for what is no positive number."""
    return int(value) if 0 < value < 1 << 40 else 0


def plausible_rate(rate: float) -> float:
    """``rate`` in frames a second, or a usual one where a file gives none, or an impossible one."""
    return rate if 1 <= rate <= _MAX_RATE else _DEFAULT_RATE

"""A video file being written: whole at its place when it is closed, or not at all."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_runtime.core.errors import OutputError
from unet_runtime.core.files import publish, temporary_sibling
from unet_runtime.core.install import pip_command
from unet_runtime.io.stamps import mark_video
from unet_runtime.io.video.opencv import load_opencv, plain_path

# H.264 where OpenCV has an encoder for it, else MPEG-4 part 2. OpenCV's wheels on PyPI have none:
# https://github.com/opencv/opencv-python/issues/81
_MPEG4 = ("avc1", "mp4v")
CODECS = {".mp4": _MPEG4, ".m4v": _MPEG4, ".mov": _MPEG4, ".mkv": _MPEG4, ".avi": ("MJPG",)}
"""Suffix -> codecs to try, in order."""

_TRIAL_SIZE = (64, 48)
_TRIAL_FRAMES = 5


class VideoFile:
    """Takes pictures, one after the other, into a file of constant frame rate, without sound.

    As a context manager it is closed at the end, or discarded when an error ends the block.

    Args:
        path: its suffix, of ``CODECS``, chooses the container.
        rate: frames a second; may be changed until the first picture is written.
        stamp: what the file records of its origin, see ``io.stamps``.

    Raises:
        OutputError: another suffix, a place that cannot be written, or no encoder; before any picture is there.
    """

    def __init__(self, path: Path, rate: float, stamp: str = "") -> None:
        self.path = path
        self._stamp = stamp
        self.rate = rate
        self.count = 0
        """Pictures written."""
        self._cv2 = load_opencv("a video file")
        self._writer: Any = None
        self._size = (0, 0)
        self._temporary = temporary_sibling(path, f".part{path.suffix.lower()}")  # the suffix names the container
        self._codec = self._usable_codec()

    @property
    def plays_in_browsers(self) -> bool:
        """Whether it is H.264."""
        return self._codec == "avc1"

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def write(self, picture: npt.NDArray[np.uint8]) -> None:
        """Add a picture, uint8 (H, W, 3) RGB; one of another size than the first is resized to the first's.

        Encoders store colours for two by two pixels: of an odd height or width the last row or column is lost.
        """
        cv2 = self._cv2
        size = (picture.shape[1], picture.shape[0])
        if self._writer is None:
            self._size = size
            self._writer = self._open(self._codec, size)
            if not self._writer.isOpened():
                self.discard()
                raise OutputError(f"{self.path}: OpenCV cannot write a video of {size[0]}x{size[1]} at {self.rate:g}/s")
        elif size != self._size:
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        self.count += 1

    def seconds_per_frame(self, picture: npt.NDArray[np.uint8]) -> float:
        """How long encoding takes on this machine, tried with pictures like uint8 (H, W, 3); before any is written."""
        writer = self._open(self._codec, (picture.shape[1], picture.shape[0]))
        times = []
        try:
            for step in range(_TRIAL_FRAMES):
                moved = np.roll(picture, 8 * step, axis=1)
                start = time.perf_counter()
                writer.write(moved)
                times.append(time.perf_counter() - start)
        finally:
            writer.release()
            self._temporary.unlink(missing_ok=True)
        return float(np.median(times))

    def close(self) -> None:
        """Finish the file and move it into place; without a picture there is no file.

        Raises:
            OutputError: the file is incomplete, for instance because the disk is full.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        try:
            # OpenCV's writer reports no error (https://github.com/opencv/opencv/issues/24287), so frames are counted.
            found = frames_in(self._temporary)
            if found != self.count:
                raise OutputError(
                    f"{self.path}: {self.count} frames were written, the file holds {found}: is the disk full?"
                )
            mark_video(self._temporary, self._stamp)
            publish(self._temporary, self.path)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror or error})") from error
        finally:
            self._temporary.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what was written."""
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        self._temporary.unlink(missing_ok=True)

    def _usable_codec(self) -> str:
        """The first codec that this OpenCV can write at the file's place."""
        codecs = CODECS.get(self.path.suffix.lower())
        if codecs is None:
            raise OutputError(f"{self.path}: suffix {self.path.suffix!r}, expected one of {', '.join(CODECS)}")
        if self.path.is_dir():
            raise OutputError(f"{self.path}: is a folder, expected a file to write")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._temporary.touch(exist_ok=False)  # says why not, which OpenCV does not
            for codec in codecs:
                self._open(codec, _TRIAL_SIZE).release()
                if self._temporary.stat().st_size:
                    return codec
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror})") from error
        finally:
            with suppress(OSError):
                self._temporary.unlink()
        raise OutputError(
            f"{self.path}: this OpenCV has no encoder for it (tried {', '.join(codecs)}): try another suffix of "
            f"{', '.join(CODECS)}, or {pip_command('video')}"
        )

    def _open(self, codec: str, size: tuple[int, int]) -> Any:
        code = self._cv2.VideoWriter.fourcc(*codec)
        with plain_path(self._temporary) as name:
            return self._cv2.VideoWriter(name, self._cv2.CAP_FFMPEG, code, self.rate, size)


def frames_in(path: Path) -> int:
    """How many frames a video says it has; 0 where it is none."""
    cv2 = load_opencv("a video file")
    with plain_path(path) as name:
        reader = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
    try:
        return int(reader.get(cv2.CAP_PROP_FRAME_COUNT)) if reader.isOpened() else 0
    finally:
        reader.release()

"""Video in, video out: every frame segmented, in order; decoding, inference and encoding overlap.

The result has the frames' size, the frame rate and the number of frames of the source. It has no sound. Where the
source's rate varies, frames are repeated, so that the result keeps to its time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from unet_runtime.errors import OutputError, SourceError

if TYPE_CHECKING:
    from unet_runtime.segmenter import Segmentation, Segmenter

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".flv", ".3gp", ".ogv"}
)
"""Files that are taken for videos."""

KINDS = ("overlay", "mask", "cutout")
"""A video has neither a palette nor transparency: masks come in the classes' colours, cut-outs before ``GREEN``."""

GREEN = (0, 177, 64)
"""RGB of the studio screen that editing programs know how to remove."""

_AHEAD = 3
"""Frames that a stage may be ahead of the next: bounds the memory."""

_UNKNOWN_RATE, _HIGHEST_RATE = 30.0, 240.0  # frames a second; some files give their clock's rate, 1000 or 90000

_COUNTED = frozenset({".mp4", ".m4v", ".mov", ".3gp", ".avi"})
"""Containers that list their frames; others promise as many as fit into their duration."""

# A few frames less than promised are no sign of damage: the last ones may have no picture.
_MISSING_FRAMES, _MISSING_SHARE = 2, 0.01

_LATE, _LONGEST_STILL = 0.1, 60.0
"""Seconds. A result that is ahead of its source's clock by more than the first repeats a frame; a gap longer than the
second is a broken clock."""

Frame = npt.NDArray[np.uint8]


class Reader:
    """Frames of a video file, upright as its rotation says.

    Args:
        path: the file.

    Raises:
        SourceError: not there, no video, or OpenCV is not installed.
    """

    def __init__(self, path: Path) -> None:
        from unet_runtime.live.opencv import load_opencv

        self.path = path
        self._cv2: Any = load_opencv("a video")
        if not path.is_file():
            raise SourceError(f"{path}: no such file, expected a video")
        self._capture = self._cv2.VideoCapture(str(path), self._cv2.CAP_FFMPEG)
        if not self._capture.isOpened():
            raise SourceError(
                f"{path}: not a video that OpenCV can read, or truncated (an .mp4 has its table of contents at its end)"
            )
        self.rate = plausible_rate(self._capture.get(self._cv2.CAP_PROP_FPS))
        """Frames a second."""
        self.promised = max(0, int(self._capture.get(self._cv2.CAP_PROP_FRAME_COUNT)))
        """Frames that the file says it has; 0 where it does not say."""
        self.count = 0
        """Frames read so far."""
        self._last = 0.0
        self.times: deque[float] = deque()
        """Seconds at which each frame is to be seen, for those whom the reader's user has not taken out yet."""

    def __iter__(self) -> Iterator[Frame]:
        """uint8 (H, W, 3) RGB, one after the other."""
        try:
            while True:
                there, frame = self._capture.read()
                if not there:
                    return
                self.count += 1
                self.times.append(self._capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1000)
                self._last = self.times[-1]
                yield self._cv2.cvtColor(frame, self._cv2.COLOR_BGR2RGB)
        finally:
            self._capture.release()

    def check_complete(self, target: Path) -> None:
        """After the last frame.

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
                f"are in {target}"
            )


class _Clock:
    """How many frames a result of constant rate should have when a frame of the source is to be seen."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._start: float | None = None  # seconds of the source's clock that are the result's 0

    def due(self, seconds: float, count: int) -> int:
        """Frames to have been written before the one of ``seconds``; ``count``, those written, if it is not late."""
        if self._start is None:
            self._start = seconds - count / self._rate
        late = seconds - self._start - count / self._rate
        if not abs(late) < _LONGEST_STILL:  # the clock has been set, or is none
            self._start = None
            return count
        return count + round(late * self._rate) if late > _LATE else count


def plausible_rate(rate: float) -> float:
    """``rate`` in frames a second, or a usual one where a file does not say, or says what cannot be."""
    return rate if 1 <= rate <= _HIGHEST_RATE else _UNKNOWN_RATE


def segment_video(
    segmenter: Segmenter,
    source: Path,
    target: Path,
    kind: str = "overlay",
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Segment each frame of a video into another video.

    Args:
        segmenter: the model.
        source: a video file.
        target: the video to write, whole or not at all; its suffix, of ``videofile.CODECS``, chooses the container.
        kind: of ``KINDS``.
        progress: called after each frame with the frames done and the number promised (0: unknown).

    Returns:
        Frames written: as many as ``source`` has, more where its rate varies.

    Raises:
        SourceError: ``source`` is no video; or it is damaged, and ``target`` holds what could be read of it.
        OutputError: ``target`` cannot be written, or is ``source``.
        BackendError: the engine failed.
    """
    from unet_runtime.stream import Stream
    from unet_runtime.videofile import VideoFile

    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}, expected one of {', '.join(KINDS)}")
    reader = Reader(source)
    if target.exists() and target.samefile(source):
        raise OutputError(f"{target}: would replace the video it is made of: name another file")

    with (
        VideoFile(target, reader.rate) as file,
        segmenter.stream(reader, ahead=_AHEAD) as results,  # decodes in one thread
        Stream(results, _as_it_is, lambda result: _picture(result, kind), _AHEAD) as pictures,  # infers in another
    ):
        clock = _Clock(reader.rate)
        before: Frame | None = None
        for picture in pictures:
            due = clock.due(reader.times.popleft(), file.count)
            while before is not None and file.count < due:
                file.write(before)
            file.write(picture)
            before = picture
            if progress is not None:
                progress(file.count, reader.promised)
    if not file.count:
        raise SourceError(f"{source}: damaged: not one frame could be read")
    reader.check_complete(target)
    return file.count


def _picture(result: Segmentation, kind: str) -> Frame:
    """uint8 (H, W, 3) RGB."""
    from PIL import Image

    if kind == "mask":
        return np.asarray(result.mask_image().convert("RGB"))
    if kind == "overlay":
        return np.asarray(result.overlay())
    cutout = result.cutout()
    screen = Image.new("RGB", cutout.size, GREEN)
    screen.paste(cutout, mask=cutout)
    return np.asarray(screen)


def _as_it_is(result: Segmentation) -> Segmentation:
    return result

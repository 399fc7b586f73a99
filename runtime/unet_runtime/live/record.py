"""What the live view shows -> a video file as long as the time it took."""

from __future__ import annotations

import logging
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unet_runtime.io.video import h264
from unet_runtime.io.video.writer import VideoFile

logger = logging.getLogger(__name__)

RATES = (30.0, 15.0, 10.0, 5.0)
"""Frames a second of a recording of constant rate: the first that the machine can afford. A picture shown for longer
than one frame is repeated, which costs next to no space."""

_SHARE = 0.3  # share of the time for encoding: the rest is the model's
_WAITING = 8
"""Pictures that may wait for the encoder; further ones are left out, and the one before stays on show instead."""
_LEAST_STEP = 0.001  # seconds between two pictures, at least

Picture = npt.NDArray[np.uint8]


class _Timed:
    """H.264, each picture at its own time."""

    def __init__(self, file: h264.H264File) -> None:
        self.file = file
        self.seconds = 0.0
        """Duration so far."""
        self._last: Picture | None = None

    def show(self, picture: Picture, seconds: float) -> None:
        """A picture that is on show from ``seconds`` on."""
        begin = seconds if self._last is None else max(seconds, self.seconds + _LEAST_STEP)
        self.file.write(picture, begin)
        self.seconds, self._last = begin, picture

    def end(self, seconds: float) -> None:
        """The last picture stays until ``seconds``: a player shows it as long as one frame."""
        frame = 1 / RATES[0]
        if self._last is not None and seconds - frame > self.seconds + _LEAST_STEP:
            self.file.write(self._last, seconds - frame)
        self.seconds = max(seconds, self.seconds)
        self.file.close()


class _Constant:
    """A file of constant rate: each frame shows the picture that was on show at its time.

    Args:
        file: to be written.
        is_rate_open: whether the file's rate may be lowered to what this machine encodes without falling behind.
    """

    def __init__(self, file: VideoFile, *, is_rate_open: bool) -> None:
        self.file = file
        self._is_rate_open = is_rate_open
        self._on_show: Picture | None = None

    @property
    def seconds(self) -> float:
        """Duration so far."""
        return self.file.count / self.file.rate

    def show(self, picture: Picture, seconds: float) -> None:
        """A picture that is on show from ``seconds`` on."""
        if self._on_show is None and self._is_rate_open:
            self.file.rate = affordable_rate(self.file.seconds_per_frame(picture))
        self._repeat_until(seconds)
        self._on_show = picture

    def end(self, seconds: float) -> None:
        """The last picture stays until ``seconds``; one that was shown for no time is seen all the same."""
        self._repeat_until(seconds)
        if self._on_show is not None and not self.file.count:
            self.file.write(self._on_show)
        self.file.close()

    def _repeat_until(self, seconds: float) -> None:
        """Write the picture on show as often as its time demands."""
        if self._on_show is not None:
            for _ in range(self.file.count, round(seconds * self.file.rate)):
                self.file.write(self._on_show)


class Recorder:
    """Writes pictures that come at uneven times into a video as long as they were on show, in a thread of its own.

    With the program ffmpeg it is H.264, each picture at its own time. Else OpenCV writes it, at a constant rate.

    Args:
        path: its suffix, of ``writer.CODECS``, chooses the container.
        rate: frames a second of a constant rate; None: as many of ``RATES`` as this machine encodes without falling
            behind.

    Raises:
        OutputError: ``path`` cannot be written; before any picture is there.
    """

    def __init__(self, path: Path, rate: float | None = None) -> None:
        self.path = path
        self._film = _open_film(path, rate)
        self._encoder = ThreadPoolExecutor(1, "recorder")
        self._pending: deque[Future[None]] = deque()
        self._start: float | None = None

    @property
    def frames(self) -> int:
        """In the file so far."""
        return self._film.file.count

    @property
    def seconds(self) -> float:
        """The file's duration so far."""
        return self._film.seconds

    def add(self, picture: Picture, now: float) -> None:
        """A picture, uint8 (H, W, 3) RGB, that is on show from ``now`` on (seconds of any steady clock).

        Raises:
            OutputError: the file cannot be written.
        """
        while self._pending and self._pending[0].done():
            self._pending.popleft().result()
        if len(self._pending) < _WAITING:
            self._pending.append(self._encoder.submit(self._encode, picture, now))

    def close(self, now: float) -> None:
        """Show the last picture until ``now``, finish the file and move it into place.

        Raises:
            OutputError: the file could not be written.
        """
        self._pending.append(self._encoder.submit(self._finish, now))
        self._encoder.shutdown()
        try:
            for pending in self._pending:
                pending.result()
        except BaseException:
            self._film.file.discard()
            raise

    # --- the thread ---------------------------------------------------------------------------------

    def _encode(self, picture: Picture, now: float) -> None:
        if self._start is None:
            self._start = now
        self._film.show(picture, now - self._start)

    def _finish(self, now: float) -> None:
        self._film.end(now - self._start if self._start is not None else 0.0)


def _open_film(path: Path, rate: float | None) -> _Timed | _Constant:
    program, why_not = h264.choose([path])
    if program is not None:
        return _Timed(h264.H264File(path, program, rate=RATES[0]))
    file = VideoFile(path, rate or RATES[0])
    if why_not is h264.WITHOUT_PROGRAM and not file.plays_in_browsers:  # who names an .avi means an .avi
        logger.warning("%s: %s: the recording does not play in browsers: %s", path, *why_not)
    return _Constant(file, is_rate_open=rate is None)


def affordable_rate(seconds_per_frame: float) -> float:
    """Frames a second for an encoder that takes so long for each."""
    return next((rate for rate in RATES if rate * seconds_per_frame <= _SHARE), RATES[-1])

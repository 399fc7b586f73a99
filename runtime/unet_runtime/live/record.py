"""What the live view shows -> a video file as long as the time it took."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unet_runtime.io.video.writer import VideoFile

RATES = (30.0, 15.0, 10.0, 5.0)
"""Frames a second of a recording: the first that the machine can afford. A picture shown for longer than one frame is
repeated, which costs next to no space."""

_SHARE = 0.3  # share of the time for encoding: the rest is the model's
_WAITING = 8
"""Pictures that may wait for the encoder; further ones are left out, and the one before is repeated instead."""

Picture = npt.NDArray[np.uint8]


class Recorder:
    """Writes pictures that come at uneven times into a video of constant frame rate, in a thread of its own.

    Each frame of the file shows the picture that was on show at its time, so the recording's duration is the real one.

    Args:
        path: see ``VideoFile``.
        rate: frames a second; None: as many of ``RATES`` as this machine encodes without falling behind.

    Raises:
        OutputError: ``path`` cannot be written; before any picture is there.
    """

    def __init__(self, path: Path, rate: float | None = None) -> None:
        self.path = path
        self._file = VideoFile(path, rate or RATES[0])
        self._is_rate_open = rate is None
        self._encoder = ThreadPoolExecutor(1, "recorder")
        self._pending: deque[Future[None]] = deque()
        self._start: float | None = None
        self._on_show: Picture | None = None

    @property
    def frames(self) -> int:
        """In the file so far."""
        return self._file.count

    @property
    def seconds(self) -> float:
        """The file's duration so far."""
        return self._file.count / self._file.rate

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
            self._file.discard()
            raise

    # --- the thread ---------------------------------------------------------------------------------

    def _encode(self, picture: Picture, now: float) -> None:
        if self._start is None:
            self._start = now
            if self._is_rate_open:
                self._file.rate = affordable_rate(self._file.seconds_per_frame(picture))
        self._repeat_until(now)
        self._on_show = picture

    def _finish(self, now: float) -> None:
        self._repeat_until(now)
        if self._on_show is not None and not self._file.count:
            self._file.write(self._on_show)  # a picture that was shown for no time is seen all the same
        self._file.close()

    def _repeat_until(self, now: float) -> None:
        """Write the picture on show as often as its time demands."""
        if self._on_show is not None and self._start is not None:
            for _ in range(self._file.count, round((now - self._start) * self._file.rate)):
                self._file.write(self._on_show)


def affordable_rate(seconds_per_frame: float) -> float:
    """Frames a second for an encoder that takes so long for each."""
    return next((rate for rate in RATES if rate * seconds_per_frame <= _SHARE), RATES[-1])

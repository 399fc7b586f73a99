"""What the live view shows -> a video file as long as the time it took."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unet_runtime.io.video.writer import VideoFile

RATES = (30.0, 15.0, 10.0, 5.0)
"""Frames a second of a recording: the first that the machine can afford. A picture shown for longer than one frame is
repeated, which costs next to no space."""

_SHARE = 0.3
"""Of the time, for encoding: the rest is the model's."""

_WAITING = 8
"""Pictures that may wait for the encoder; further ones are left out, and the one before is repeated instead."""

Picture = npt.NDArray[np.uint8]


class Recorder:
    """Writes pictures that come at uneven times into a video of constant frame rate, in a thread of its own.

    Each frame of the file shows the picture that was on show at its time, so the recording's duration is the real one.

    Args:
        path: see ``videofile.VideoFile``.
        rate: frames a second; None: as many of ``RATES`` as this machine encodes without falling behind.

    Raises:
        OutputError: ``path`` cannot be written; before any picture is there.
    """

    def __init__(self, path: Path, rate: float | None = None) -> None:
        self.path = path
        self._file = VideoFile(path, rate or RATES[0])
        self._is_rate_open = rate is None
        self._queue: queue.Queue[tuple[Picture | None, float]] = queue.Queue(_WAITING)
        self._error: Exception | None = None
        self._start: float | None = None
        self._shown: Picture | None = None
        self._thread = threading.Thread(target=self._encode, name="recorder")
        self._thread.start()

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
        self._raise()
        try:
            self._queue.put_nowait((picture, now))
        except queue.Full:
            return

    def close(self, now: float) -> None:
        """Show the last picture until ``now``, finish the file and move it into place.

        Raises:
            OutputError: the file could not be written.
        """
        while self._thread.is_alive():
            try:
                self._queue.put((None, now), timeout=0.1)
                break
            except queue.Full:  # the thread takes pictures out, or has just failed
                continue
        self._thread.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    # --- the thread ---------------------------------------------------------------------------------

    def _encode(self) -> None:
        try:
            self._write_all()
            self._file.close()
        except Exception as error:  # raised again where pictures come from
            self._error = error
            self._file.discard()

    def _write_all(self) -> None:
        """Until a picture of None comes."""
        while True:
            picture, now = self._next()
            if self._start is None:
                self._start = now
                if self._is_rate_open and picture is not None:
                    self._file.rate = affordable_rate(self._file.seconds_per_frame(picture))
            due = round((now - self._start) * self._file.rate)
            if picture is None:
                due = max(due, 1)  # one picture at least is seen
            while self._shown is not None and self._file.count < due:
                self._file.write(self._shown)
            if picture is None:
                return
            self._shown = picture

    def _next(self) -> tuple[Picture | None, float]:
        """What comes next, and the end if the program comes to its own without closing."""
        while True:
            try:
                return self._queue.get(timeout=1)
            except queue.Empty:
                if not threading.main_thread().is_alive():
                    return None, self._start or 0.0


def affordable_rate(seconds_per_frame: float) -> float:
    """Frames a second for an encoder that takes so long for each."""
    return next((rate for rate in RATES if rate * seconds_per_frame <= _SHARE), RATES[-1])

"""A camera whose newest frame is always at hand: a thread reads it, and finds it again when it is lost."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from unet_runtime.core.errors import SourceError
from unet_runtime.core.timings import Timings
from unet_runtime.io.video.opencv import load_opencv
from unet_runtime.io.video.reader import plausible_rate
from unet_runtime.live.newest import Newest
from unet_runtime.live.source import Patience, Source, explain, open_capture, parse_source, resolved

_SILENCE = 1.0
"""Seconds without a frame after which the user is informed."""


@dataclass(frozen=True)
class Frame:
    """One picture of a camera."""

    picture: npt.NDArray[np.uint8]
    """uint8 (H, W, 3) RGB."""
    captured: float
    """``time.perf_counter()`` when it had been read and decoded."""
    number: int
    """1, 2, ...: counts every frame that was captured, used or not."""


class _Capture(NamedTuple):
    picture: npt.NDArray[np.uint8]
    """BGR, as OpenCV has it."""
    time: float


class Camera:
    """Reads a camera in a thread of its own: the newest frame replaces the one before.

    A camera that stalls, sends what cannot be decoded or goes away is opened again, after longer and longer pauses; in
    the meantime ``message`` says so. A video file is played at its own frame rate, once. ``close`` waits for the
    thread, at most ``patience.open`` seconds: Python aborts if it ends while OpenCV reads in another thread
    (https://github.com/python/cpython/issues/87135).

    Args:
        source: as ``live.source.parse_source`` takes it.
        patience: how long to wait for what.
        timings: takes the stage ``capture``: waiting for a frame and decoding it.

    Raises:
        SourceError: ``source`` names nothing that exists.
        MissingDependencyError: OpenCV is not installed.
    """

    def __init__(self, source: str, patience: Patience | None = None, timings: Timings | None = None) -> None:
        self._cv2 = load_opencv("a camera")
        self.source: Source = parse_source(source)
        self.reconnects = 0
        """How often it was lost and found again."""
        self._patience = patience or Patience()
        self._timings = timings or Timings()
        self._closed = threading.Event()
        self._frames: Newest[_Capture] = Newest()
        self._opened = False
        self._retry_at: float | None = None  # monotonic; None while the camera is not lost
        self._thread = threading.Thread(target=self._run, name="camera")

    def __enter__(self) -> Camera:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self, stop: threading.Event | None = None) -> None:
        """Open the camera and wait for its first frame, or until ``stop`` is set.

        Raises:
            SourceError: it does not open, or gives no picture; the message says what was tried and what to do.
        """
        self._thread.start()
        try:
            while not self.captured and not self.ended and not (stop is not None and stop.is_set()):
                self._frames.get(timeout=0.1)
        except BaseException:
            self.close()
            raise
        if not self.captured and self.ended:
            self.close()
            raise SourceError(explain(self.source, self._opened, self._patience))

    def newest(self, after: int = 0, timeout: float = 0.0) -> Frame | None:
        """The newest frame, once its number is another than ``after``; None if it is not within ``timeout`` seconds."""
        newest = self._frames.get(after, timeout)
        if newest is None:
            return None
        picture = self._cv2.cvtColor(newest.value.picture, self._cv2.COLOR_BGR2RGB)
        return Frame(picture, newest.value.time, newest.number)

    @property
    def captured(self) -> int:
        """Frames captured so far."""
        return self._frames.number

    @property
    def ended(self) -> bool:
        """A video file was played to its end, or the camera was never there."""
        return self._frames.ended

    @property
    def message(self) -> str:
        """What the user should know: ``camera lost, trying again in 2 s``; empty if all is well."""
        newest = self._frames.get()
        retry_at = self._retry_at
        if self.ended or newest is None:
            return ""
        if retry_at is not None:
            left = retry_at - time.monotonic()
            return f"camera lost, trying again{f' in {left:.0f} s' if left >= 0.5 else ''}"
        silent = time.perf_counter() - newest.value.time
        return f"no picture from the camera for {silent:.0f} s" if silent > _SILENCE else ""

    def close(self) -> None:
        """Let go of the camera; returns when its thread has ended."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()

    # --- the thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._read_and_reconnect()
        finally:
            self._frames.end()

    def _read_and_reconnect(self) -> None:
        failures = 0
        self.source = resolved(self.source, self._patience)
        while self._wanted():
            capture = open_capture(self.source, self._patience)
            if capture is not None:
                self._opened = True
                before = self.captured
                try:
                    self._read(capture)
                finally:
                    capture.release()
                if self.captured > before:
                    failures = 0
            if not self.captured or self.source.kind == "file":
                return
            delay = self._patience.delays[min(failures, len(self._patience.delays) - 1)]
            failures += 1
            self._retry_at = time.monotonic() + delay
            self._closed.wait(delay)

    def _read(self, capture: Any) -> None:
        """Publish frame after frame, until there is none within ``patience.read`` seconds."""
        pace = 1 / plausible_rate(capture.get(self._cv2.CAP_PROP_FPS)) if self.source.kind == "file" else 0.0
        due = time.monotonic()
        while self._wanted():
            start = time.perf_counter()
            try:
                there, picture = capture.read()
            except self._cv2.error:
                return
            if not there:
                return
            self._timings.add("capture", time.perf_counter() - start)
            if pace:
                self._closed.wait(max(0.0, due - time.monotonic()))
                due = max(due, time.monotonic() - pace) + pace
            if self._retry_at is not None:
                self._retry_at = None
                self.reconnects += 1
            self._frames.put(_Capture(picture, time.perf_counter()))

    def _wanted(self) -> bool:
        """Not closed, and the program has not come to its end without closing it."""
        return not self._closed.is_set() and threading.main_thread().is_alive()

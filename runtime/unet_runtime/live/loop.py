"""Camera, model and view, each at its own pace: what is shown is always the newest frame that has its mask.

    camera thread ──newest frame──> inference thread ──newest result──> main thread: compose, show, record

Nothing waits in a queue, so nothing gets old: the age of a shown frame is one inference, one wait for the camera and
the display, however slow the model is.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unet_runtime.core.errors import OutputError
from unet_runtime.core.segmentation import Segmentation
from unet_runtime.core.timings import Timings
from unet_runtime.io.video.smooth import Smoother
from unet_runtime.live.camera import Camera, Frame
from unet_runtime.live.newest import Newest, Numbered
from unet_runtime.live.picture import BACKGROUNDS, compose
from unet_runtime.live.record import Recorder
from unet_runtime.live.view import Status, View
from unet_runtime.segmenter import Segmenter

_WAIT = 0.02  # seconds between two looks at the keyboard while there is no new picture
_REPEAT = 0.5  # seconds after which the last picture is shown again, with the current message about the camera
_NOTICE = 3.0  # seconds that the outcome of a key is shown
_RATE_OVER = 30  # pictures that the frame rate is averaged over


@dataclass(frozen=True)
class SegmentedFrame:
    """A frame and its result; the probabilities are smoothed where that is wanted."""

    frame: Frame
    result: Segmentation


@dataclass(frozen=True)
class Session:
    """Summary of a live view that has ended."""

    seconds: float
    shown: int
    """Frames shown."""
    dropped: int
    """Frames left out, because a newer one was there."""
    reconnects: int
    timings: Timings
    """Stages ``capture``, ``preprocess``, ``inference``, ``compose``, ``display``, and ``age``: from a frame's capture
    to its display."""
    saved: list[Path] = field(default_factory=list)


class Inference(Newest[SegmentedFrame]):
    """A thread that segments the camera's newest frame, again and again; keeps the newest result.

    Args:
        segmenter: the model.
        camera: started.
        smoother: None to leave the probabilities as they are.
        timings: takes the stages ``preprocess`` and ``inference``.
    """

    def __init__(self, segmenter: Segmenter, camera: Camera, smoother: Smoother | None, timings: Timings) -> None:
        super().__init__()
        self._segmenter = segmenter
        self._camera = camera
        self._smoother = smoother
        self._timings = timings
        self._closed = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="inference")

    def start(self) -> None:
        self._thread.start()

    def get(self, after: int = 0, timeout: float = 0.0) -> Numbered[SegmentedFrame] | None:
        """As ``Newest.get``.

        Raises:
            UnetRuntimeError: the engine failed, or the model's output is not what its spec says.
        """
        newest = super().get(after, timeout)
        if self._error is not None:
            raise self._error
        return newest

    def close(self) -> None:
        """Returns when the inference under way is done."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._segment_frames()
        except Exception as error:  # raised again where the results are fetched
            self._error = error
        finally:
            self.end()

    def _segment_frames(self) -> None:
        first = self._camera.newest()
        if first is not None:
            self._segmenter(first.picture)  # not timed: a model's first inference is slow
        number = 0
        while not self._closed.is_set() and threading.main_thread().is_alive():
            ended = self._camera.ended  # before the frame is fetched: a last one may be left
            frame = self._camera.newest(after=number, timeout=0.1)
            if frame is not None:
                number = frame.number
                self.put(SegmentedFrame(frame, self._segment(frame)))
            elif ended:
                return

    def _segment(self, frame: Frame) -> Segmentation:
        with self._timings.measure("preprocess"):
            prepared = self._segmenter.prepare(frame.picture)
        with self._timings.measure("inference"):
            probabilities = self._segmenter.infer(prepared.images)[0]  # float32 (h, w, C)
        if self._smoother is not None:
            probabilities = self._smoother(prepared.images, probabilities)
        return self._segmenter.finish(prepared, probabilities)


class Live:
    """The live view, run from the main thread.

    Args:
        segmenter: the model.
        camera: started; the caller closes it.
        view: where pictures are shown.
        timings: takes the time of each stage; the camera's own goes there too.
        smoother: None leaves the probabilities as they are.
        recorder: takes every picture that is shown, without its status.
        background: what is shown first, of ``picture.BACKGROUNDS``.
        is_found: says of a result whether it shows what the model looks for; None: not asked.
        save: called with the result of the frame on show when key s is pressed; returns the paths written.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        camera: Camera,
        view: View,
        timings: Timings,
        *,
        smoother: Smoother | None = None,
        recorder: Recorder | None = None,
        background: str = "overlay",
        is_found: Callable[[Segmentation], bool] | None = None,
        save: Callable[[Segmentation], list[Path]] | None = None,
    ) -> None:
        self._camera = camera
        self._view = view
        self._timings = timings
        self._recorder = recorder
        self._background = background
        self._is_found = is_found
        self._save = save
        self._saved: list[Path] = []
        self._last_saved: tuple[Path, ...] = ()
        self._inference = Inference(segmenter, camera, smoother, timings)
        self._on_show: SegmentedFrame | None = None
        self._picture: npt.NDArray[np.uint8] | None = None  # as shown
        self._shown = 0
        self._times: deque[float] = deque(maxlen=_RATE_OVER)  # at which new frames were shown
        self._last_show = 0.0
        self._missing = ""  # what the model looks for and the frame on show does not have
        self._notice = ""
        self._notice_until = 0.0

    def run(self, stop: threading.Event, max_seconds: float | None = None) -> Session:
        """Until ``stop`` is set, key q is pressed, the time is up, or a video file is over.

        Raises:
            BackendError: the engine failed, or the model's output is not what its spec says.
            OutputError: the recording cannot be written.
        """
        start = time.perf_counter()
        number = 0
        self._inference.start()
        try:
            while not stop.is_set() and (max_seconds is None or time.perf_counter() - start < max_seconds):
                newest = self._inference.get(number, _WAIT)
                if newest is not None:
                    number = newest.number
                    self._show_new(newest.value)
                elif self._inference.ended:
                    break
                else:
                    self._show_again()
                keys, quits, _ = self._view.keys().partition("q")
                self._handle(keys)
                if quits:
                    break
        finally:
            self._inference.close()
        seconds = time.perf_counter() - start
        return Session(seconds, self._shown, self._dropped, self._camera.reconnects, self._timings, self._saved)

    @property
    def _dropped(self) -> int:
        return self._on_show.frame.number - self._shown if self._on_show else 0

    def _show_new(self, segmented: SegmentedFrame) -> None:
        result = segmented.result
        with self._timings.measure("compose"):
            picture = compose(segmented.frame.picture, result.probabilities, result.spec, self._background)
        self._on_show = segmented
        found = self._is_found is None or self._is_found(result)
        self._missing = "" if found else f"no {', '.join(result.spec.role_names('foreground'))} found"
        self._picture = picture
        self._shown += 1
        with self._timings.measure("display"):
            self._display(picture)
        self._timings.add("age", self._last_show - segmented.frame.captured)
        self._times.append(self._last_show)

    def _show_again(self) -> None:
        """While the camera is silent the last picture stays, with the reason and its true age."""
        if self._picture is not None and time.perf_counter() - self._last_show > _REPEAT:
            self._display(self._picture)

    def _display(self, picture: npt.NDArray[np.uint8]) -> None:
        self._view.show(picture, self._status())
        self._last_show = time.perf_counter()
        if self._recorder is not None:
            self._recorder.add(picture, self._last_show)

    def _status(self) -> Status:
        now = time.perf_counter()
        age = now - self._on_show.frame.captured if self._on_show else 0.0
        rate = len(self._times) / (now - self._times[0]) if self._times else 0.0
        message = self._camera.message or (self._notice if now < self._notice_until else "") or self._missing
        is_lost = bool(self._camera.message)
        return Status(rate, age * 1000, self._dropped, message, is_lost, self._background, self._last_saved)

    def _handle(self, keys: str) -> None:
        for key in keys:
            if key == "b":
                following = BACKGROUNDS.index(self._background) + 1
                self._background = BACKGROUNDS[following % len(BACKGROUNDS)]
                self._notify(f"background: {self._background}")
            elif key == "s":
                self._save_shown()

    def _save_shown(self) -> None:
        if self._save is None or self._on_show is None:
            return
        try:
            paths = self._save(self._on_show.result)
        except OutputError as error:  # no reason to end a live view
            self._notify(str(error))
            return
        self._saved += paths
        self._last_saved = tuple(paths)
        self._notify(f"saved {', '.join(path.name for path in paths)}")

    def _notify(self, notice: str) -> None:
        self._notice = notice
        self._notice_until = time.perf_counter() + _NOTICE

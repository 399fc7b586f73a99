"""Camera, model and view, each at its own pace: what is shown is always the newest frame that has its mask.

    camera thread ──newest frame──> inference thread ──newest answer──> main thread: compose, show, record

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
from PIL import Image

from unet_runtime.core.errors import OutputError
from unet_runtime.core.geometry import model_input, place
from unet_runtime.core.segmentation import Segmentation
from unet_runtime.core.timings import Timings
from unet_runtime.live.camera import Camera, Frame
from unet_runtime.live.picture import BACKGROUNDS, compose
from unet_runtime.live.record import Recorder
from unet_runtime.live.smooth import Smoother
from unet_runtime.live.view import Status, View
from unet_runtime.segmenter import Segmenter

_WAIT = 0.02
"""Seconds between two looks at the keyboard while there is no new picture."""

_REPEAT = 0.5
"""Seconds after which the last picture is shown again, with what there is to say of the camera."""

_NOTICE = 3.0
"""Seconds that the outcome of a key is told."""

_RATE_OVER = 30
"""Pictures that the frame rate is averaged over."""


@dataclass(frozen=True)
class Answer:
    """A frame and what the model says of it."""

    frame: Frame
    probabilities: npt.NDArray[np.float32]
    """float32 (h, w, C) on the model's grid, smoothed where that is wanted."""


@dataclass(frozen=True)
class Session:
    """What a live view was: for the summary at its end."""

    seconds: float
    shown: int
    """Frames shown."""
    dropped: int
    """Frames left out, because a newer one was there."""
    reconnects: int
    timings: Timings
    """Stages ``capture``, ``preprocess``, ``inference``, ``compose``, ``display``, and ``age``: from a frame's capture
    until it is on show."""
    saved: list[Path] = field(default_factory=list)


class Inference:
    """A thread that asks the model about the camera's newest frame, again and again; keeps the newest answer.

    Args:
        segmenter: the model.
        camera: started.
        smoother: None to leave the answers as they are.
        timings: takes the stages ``preprocess`` and ``inference``.
    """

    def __init__(self, segmenter: Segmenter, camera: Camera, smoother: Smoother | None, timings: Timings) -> None:
        self._segmenter, self._camera, self._smoother, self._timings = segmenter, camera, smoother, timings
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._newest: Answer | None = None
        self._error: Exception | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="inference")

    def start(self) -> None:
        self._thread.start()

    def newest(self, after: int, timeout: float) -> Answer | None:
        """The newest answer for a frame whose number is above ``after``; None where there is none in time.

        Raises:
            UnetRuntimeError: the engine failed.
        """

        def number() -> int:
            return self._newest.frame.number if self._newest else 0

        with self._changed:
            self._changed.wait_for(lambda: number() > after or self._ended, timeout)
            if self._error is not None:
                raise self._error
            return self._newest if number() > after else None

    @property
    def ended(self) -> bool:
        """Of a video file that is over, every answer is there."""
        return self._ended

    def close(self) -> None:
        """Returns when the inference under way is done."""
        self._closed.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._answer_frames()
        except Exception as error:  # raised again where the answers are fetched
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _answer_frames(self) -> None:
        first = self._camera.newest()
        if first is not None:
            self._segmenter(first.picture)  # does the model answer as its spec says? And its first inference is slow
        number = 0
        while not self._closed.is_set() and threading.main_thread().is_alive():
            ended = self._camera.ended  # asked first: what it still left is answered
            frame = self._camera.newest(after=number, timeout=0.1)
            if frame is None:
                if ended:
                    return
                continue
            number = frame.number
            answer = Answer(frame, self._probabilities(frame))
            with self._changed:
                self._newest = answer
                self._changed.notify_all()

    def _probabilities(self, frame: Frame) -> npt.NDArray[np.float32]:
        with self._timings.measure("preprocess"):
            image = model_input(Image.fromarray(frame.picture), self._segmenter.spec.input)  # uint8 (1, h, w, 3)
        with self._timings.measure("inference"):
            probabilities = self._segmenter.backend.run(image)[0]  # float32 (h, w, C)
        return self._smoother(image, probabilities) if self._smoother else probabilities


class Live:
    """The live view, run from the main thread.

    Args:
        segmenter: the model.
        camera: started; closed by whoever started it.
        view: where pictures are shown.
        timings: of all stages; the camera's too, to be complete.
        smoother: None: answers as the model gives them.
        recorder: takes every picture that is shown, without the status that the view writes on it.
        background: what is shown first, of ``picture.BACKGROUNDS``.
        save: called with the segmentation of the frame on show when key s is pressed; returns the paths written.
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
        save: Callable[[Segmentation], list[Path]] | None = None,
    ) -> None:
        self._spec = segmenter.spec
        self._camera, self._view, self._timings, self._recorder = camera, view, timings, recorder
        self._background = background
        self._save = save
        self._saved: list[Path] = []
        self._inference = Inference(segmenter, camera, smoother, timings)
        self._answer: Answer | None = None  # on show
        self._picture: npt.NDArray[np.uint8] | None = None  # as shown
        self._shown = 0
        self._times: deque[float] = deque(maxlen=_RATE_OVER)  # at which new frames came on show
        self._last_show = 0.0
        self._notice, self._notice_until = "", 0.0

    def run(self, stop: threading.Event, max_seconds: float | None = None) -> Session:
        """Until ``stop`` is set, key q is pressed, the time is up, or a video file is over.

        Raises:
            BackendError: the engine failed.
            OutputError: the recording cannot be written.
        """
        start = time.perf_counter()
        self._inference.start()
        try:
            while not stop.is_set() and (max_seconds is None or time.perf_counter() - start < max_seconds):
                answer = self._inference.newest(self._number, _WAIT)
                if answer is not None:
                    self._show_new(answer)
                elif self._inference.ended:
                    break
                else:
                    self._show_again()
                if self._obey(self._view.keys()):
                    break
        finally:
            self._inference.close()
        return Session(
            time.perf_counter() - start, self._shown, self._dropped, self._camera.reconnects, self._timings, self._saved
        )

    @property
    def _number(self) -> int:
        return self._answer.frame.number if self._answer else 0

    @property
    def _dropped(self) -> int:
        return self._number - self._shown

    def _show_new(self, answer: Answer) -> None:
        with self._timings.measure("compose"):
            picture = compose(answer.frame.picture, answer.probabilities, self._spec, self._background)
        self._answer, self._picture = answer, picture
        self._shown += 1
        with self._timings.measure("display"):
            self._display(picture)
        self._timings.add("age", self._last_show - answer.frame.captured)
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
        age = now - self._answer.frame.captured if self._answer else 0.0
        rate = len(self._times) / (now - self._times[0]) if self._times else 0.0
        message = self._camera.message or (self._notice if now < self._notice_until else "")
        return Status(rate, age * 1000, self._dropped, message)

    def _obey(self, keys: str) -> bool:
        """True for q."""
        for key in keys:
            if key == "q":
                return True
            if key == "b":
                self._background = BACKGROUNDS[(BACKGROUNDS.index(self._background) + 1) % len(BACKGROUNDS)]
                self._tell(f"background: {self._background}")
            if key == "s":
                self._save_shown()
        return False

    def _save_shown(self) -> None:
        if self._save is None or self._answer is None:
            return
        photo = Image.fromarray(self._answer.frame.picture)
        try:
            paths = self._save(
                Segmentation(photo, self._answer.probabilities, self._spec, place(photo.size, self._spec))
            )
        except OutputError as error:  # no reason to end a live view
            self._tell(str(error))
            return
        self._saved += paths
        self._tell(f"saved {', '.join(path.name for path in paths)}")

    def _tell(self, notice: str) -> None:
        self._notice, self._notice_until = notice, time.perf_counter() + _NOTICE

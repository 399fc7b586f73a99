"""Ctrl-C between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import keras


class BetweenSteps(keras.callbacks.Callback):
    """Inside its ``with`` block, Ctrl-C raises KeyboardInterrupt at the end of the step under way.

    Python would raise it wherever the signal finds it. Under TensorFlow 2.21 the process then aborted now and
    then ("free(): invalid next size"), before the best checkpoint became a model; why was not found out, but with
    this it has not been seen again. A second Ctrl-C does not wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self._asked = False
        self._previous: Any = None

    def __enter__(self) -> BetweenSteps:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._previous = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        if error is None:  # asked for after the last step
            self._stop_if_asked()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        signal.signal(signal.SIGINT, self._previous)

    def _stop_if_asked(self) -> None:
        if self._asked:
            raise KeyboardInterrupt

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._stop_if_asked()

    def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._stop_if_asked()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._stop_if_asked()

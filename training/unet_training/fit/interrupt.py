"""Ctrl-C between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import keras


class InterruptBetweenSteps(keras.callbacks.Callback):
    """Inside its ``with`` block, Ctrl-C raises KeyboardInterrupt at the end of the step under way.

    Python would raise it wherever the signal finds it. Under TensorFlow 2.21 the process then aborted now and then
    ("free(): invalid next size"), before the best checkpoint became a model. The cause was not found; with this class
    it has not been seen again. A second Ctrl-C does not wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self._requested = False
        self._previous: Any = None

    def __enter__(self) -> InterruptBetweenSteps:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            self._previous = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
        if error is None:  # requested after the last step
            self._raise_if_requested()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self._requested = True
        signal.signal(signal.SIGINT, self._previous)

    def _raise_if_requested(self, number: int = 0, logs: dict[str, float] | None = None) -> None:
        if self._requested:
            raise KeyboardInterrupt

    on_train_batch_end = on_test_batch_end = on_epoch_end = _raise_if_requested

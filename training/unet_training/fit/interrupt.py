"""Ctrl-C and SIGTERM between two steps."""

from __future__ import annotations

import signal
import threading
from typing import Any

import keras


class InterruptBetweenSteps(keras.callbacks.Callback):
    """Inside its ``with`` block, Ctrl-C raises KeyboardInterrupt at the end of the step under way, and so does SIGTERM
    where the process has a handler for it.

    Python would raise it wherever the signal finds it. Under TensorFlow 2.21 the process then aborted now and then
    ("free(): invalid next size"), before the best checkpoint became a model. The cause was not found; with this class
    it has not been seen again. A second Ctrl-C does not wait.
    """

    def __init__(self) -> None:
        super().__init__()
        self._requested: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> InterruptBetweenSteps:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(signal.getsignal(number)):  # else it is ignored, or ends the process
                    self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._restore()
        if kind is None:  # requested after the last step
            self._raise_if_requested()

    def _request(self, number: int, *_: object) -> None:
        self._requested = number
        self._restore()

    def _raise_if_requested(self, *_: object, **__: object) -> None:
        if self._requested is not None:
            self._previous[self._requested](self._requested, None)  # raises, as it would have without this class
            raise KeyboardInterrupt

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    on_train_batch_end = on_test_batch_end = on_epoch_end = _raise_if_requested

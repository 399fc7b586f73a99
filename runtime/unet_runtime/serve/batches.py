"""Micro-batches: photos that arrive while the engine is busy go through it together.

Nobody waits for a batch to fill. A thread that finds the engine idle runs what is there, its own images at least; those
that come meanwhile are the next batch, which the first of them runs.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Images = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]

MOST = 16
"""Photos of a batch: beyond, a GPU's throughput hardly grows, and the first photo waits for the last."""


class _Entry:
    """One caller's images and, later, what became of them."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self.outputs: Probabilities | None = None
        self.error: Exception | None = None
        self.is_done = False


class Batches:
    """Calls of ``infer`` from many threads, run as few.

    Args:
        infer: uint8 (n, h, w, 3) -> float32 (n, h', w', C); called by one thread at a time.
        most: images of a batch; a single call may have more.
    """

    def __init__(self, infer: Callable[[Images], Probabilities], most: int = MOST) -> None:
        self._infer = infer
        self._most = most
        self._waiting: list[_Entry] = []
        self._changed = threading.Condition()
        self._is_busy = False

    def infer(self, images: Images) -> Probabilities:
        """As the function that it wraps; each caller gets the outputs of its own images.

        Raises:
            Exception: as the function; of a batch, everybody gets it.
        """
        entry = _Entry(images)
        with self._changed:
            self._waiting.append(entry)
            self._changed.wait_for(lambda: entry.is_done or not self._is_busy)
            if not entry.is_done:
                batch = self._take(entry)
                self._is_busy = True
        if not entry.is_done:
            self._run(batch)
        if entry.error is not None:
            raise entry.error
        assert entry.outputs is not None
        return entry.outputs

    def _take(self, own: _Entry) -> list[_Entry]:
        """Remove a batch from those that wait: the caller's own images, and the oldest others that fit."""
        self._waiting.remove(own)
        batch, count = [own], len(own.images)
        while self._waiting and count + len(self._waiting[0].images) <= self._most:
            entry = self._waiting.pop(0)
            batch.append(entry)
            count += len(entry.images)
        return batch

    def _run(self, batch: list[_Entry]) -> None:
        error: Exception | None = None
        outputs: Probabilities | None = None
        try:
            outputs = self._infer(np.concatenate([entry.images for entry in batch]))
        except Exception as problem:  # whatever it is, nobody of the batch may wait for ever
            error = problem
        with self._changed:
            _share(batch, outputs, error)
            self._is_busy = False
            self._changed.notify_all()


def _share(batch: list[_Entry], outputs: Probabilities | None, error: Exception | None) -> None:
    first = 0
    for entry in batch:
        if outputs is not None:
            entry.outputs = outputs[first : first + len(entry.images)]
        entry.error = error
        entry.is_done = True
        first += len(entry.images)

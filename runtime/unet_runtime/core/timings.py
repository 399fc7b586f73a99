"""Times of the stages from photo to result: the live view shows them, ``unet-bench`` reports them."""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

KEPT = 10_000
"""Newest measurements of each stage that are kept for percentiles: a camera may run for days."""


class Timings:
    """Seconds by stage, from any thread."""

    def __init__(self, kept: int = KEPT) -> None:
        self._lock = threading.Lock()
        self._seconds: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=kept))

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Time the block."""
        start = time.perf_counter()
        yield
        self.add(stage, time.perf_counter() - start)

    def add(self, stage: str, seconds: float) -> None:
        """Keep one measurement."""
        with self._lock:
            self._seconds[stage].append(seconds)

    @property
    def stages(self) -> tuple[str, ...]:
        """Names of the stages, in the order in which they were first measured."""
        with self._lock:
            return tuple(self._seconds)

    def count(self, stage: str) -> int:
        """Measurements of a stage that are kept."""
        with self._lock:
            return len(self._seconds.get(stage, ()))

    def percentiles(self, stage: str, *wanted: float) -> tuple[float, ...]:
        """Percentiles (0..100) of a stage in milliseconds; NaN for a stage that was never measured."""
        with self._lock:
            seconds = list(self._seconds.get(stage, ()))
        if not seconds:
            return (float("nan"),) * len(wanted)
        return tuple(float(value) * 1000 for value in np.percentile(seconds, wanted))

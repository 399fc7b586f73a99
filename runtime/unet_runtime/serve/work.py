"""Work: a bounded queue, and threads that empty it.

A request that finds the queue full is refused at once, with the seconds after which to try again. One that has waited
or worked too long, or whose client has gone, is dropped at its next checkpoint; it keeps its place until its thread has
really left it, so the queue's length is the truth.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import perf_counter
from typing import Any, TypeVar

from unet_runtime.io.jobs import StoppedError
from unet_runtime.io.kind import Checkpoint
from unet_runtime.serve.metrics import Metrics
from unet_runtime.serve.refusals import TOO_MANY, UNAVAILABLE, GoneError, RefusalError

T = TypeVar("T")

_LONGEST_RETRY = 30  # seconds
_SHARE_OF_NEWEST = 0.1  # in the average time of a job
_FIRST_GUESS = 0.1  # seconds


class Work:
    """The queue and its threads.

    Args:
        workers: threads.
        waiting: most jobs that wait for a thread.
        seconds: most time from ``run`` to its result.
        metrics: count waiting and refusals.
    """

    def __init__(self, workers: int, waiting: int, seconds: float, metrics: Metrics) -> None:
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="serve")
        self._workers = workers
        self._most = workers + waiting
        self._seconds = seconds
        self._metrics = metrics
        self._taken = 0
        self._running = 0
        self._lock = threading.Lock()
        self._average = _FIRST_GUESS

    @property
    def waiting(self) -> int:
        """Jobs that no thread has begun."""
        return max(0, self._taken - self._running)

    @property
    def running(self) -> int:
        """Jobs that threads work on."""
        return self._running

    def check_room(self) -> None:
        """Refuse what could not be worked on, before its body is received.

        Raises:
            RefusalError: the queue is full.
        """
        if self._taken >= self._most:
            self._metrics.refuse("queue full")
            raise RefusalError(
                TOO_MANY,
                f"{self._taken} requests are waiting or worked on, which is the limit: try again later",
                self._retry_after(),
            )

    async def run(self, job: Callable[[Checkpoint], T], gone: Callable[[], Awaitable[Any]]) -> T:
        """The result of a job, which a thread runs; to be called in the thread of the event loop.

        Args:
            job: is given a checkpoint, which raises where nobody waits any more.
            gone: returns when the client has hung up.

        Raises:
            RefusalError: the queue is full, or the job took too long.
            GoneError: the client has hung up.
            Exception: whatever the job raises.
        """
        self.check_room()
        stop = threading.Event()
        future = self._begin(job, stop)
        leaving = asyncio.ensure_future(gone())
        result = asyncio.wrap_future(future)
        try:
            done, _ = await asyncio.wait({result, leaving}, timeout=self._seconds, return_when=asyncio.FIRST_COMPLETED)
            if result in done:
                return result.result()
            if leaving in done:
                raise GoneError
            self._metrics.refuse("time-out")
            raise RefusalError(
                UNAVAILABLE, f"no result within {self._seconds:g} seconds: try again later", self._retry_after()
            )
        finally:
            stop.set()
            leaving.cancel()
            result.cancel()

    def _begin(self, job: Callable[[Checkpoint], T], stop: threading.Event) -> Future[T]:
        begun = perf_counter()

        def checkpoint() -> None:
            if stop.is_set():
                raise StoppedError

        def work() -> T:
            with self._lock:
                self._running += 1
            start = perf_counter()
            self._metrics.add("queue", start - begun)
            try:
                checkpoint()
                return job(checkpoint)
            finally:
                with self._lock:
                    self._running -= 1
                    self._average += _SHARE_OF_NEWEST * (perf_counter() - start - self._average)

        with self._lock:
            self._taken += 1
        future = self._pool.submit(work)
        future.add_done_callback(self._leave)
        return future

    def _leave(self, future: Future[Any]) -> None:
        with self._lock:
            self._taken -= 1

    def _retry_after(self) -> int:
        """Seconds until those who wait are done, if all takes as long as before."""
        expected = self._taken * self._average / self._workers
        return max(1, min(_LONGEST_RETRY, round(expected)))

    def close(self) -> None:
        """Drop what has not begun, and wait for the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)

"""Many photos at a time: while the engine runs one, others are decoded, encoded and written.

A worker takes a photo all the way, from its file to its results, so the workers' own photos are all that is in memory.
There are a few more workers than runs of the engine at a time, so that none of these waits for a file. Each run has one
thread where possible: faster than one run whose threads wait for each other at every layer.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

from unet_runtime.core import cores
from unet_runtime.core.errors import ImageError, OutputError, SourceError, UnetRuntimeError
from unet_runtime.engines import ENGINES, Backend
from unet_runtime.io.kind import Checkpoint

T = TypeVar("T")
R = TypeVar("R")

PIXELS_IN_WORK = 64_000_000
"""Limit for all photos in work together; a larger photo is in work alone."""

_MAX_RUNS = 8  # at a time: beyond, memory grows faster than throughput, and each run takes several threads
_SPARE_WORKERS = 1
_AHEAD = 4  # photos begun, for each worker, before the first that is not done
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGE_BLOCK = 4 << 20  # bytes: a photo of a megapixel and more
_KEPT = 16 << 20  # bytes of freed smaller blocks that a thread keeps: what it needs for its next photo
_END_SECONDS = 30.0  # for workers to leave; one that waits for a dead disk is left behind


class StoppedError(Exception):
    """The run has ended while a photo was in work: its worker drops it."""


class Plan(NamedTuple):
    """How many photos are in work, and how the threads are shared."""

    workers: int
    runs: int
    """Runs of the engine at a time."""
    threads: int | None
    """Threads of each run; None lets the engine choose."""


def plan(photos: int, threads: int | None) -> Plan:
    """Settings for this machine.

    Args:
        photos: how many there are; a single one gets all threads.
        threads: most CPU threads that inference may use; None: one for each core this process may run on.
    """
    if photos <= 1:
        return Plan(1, 1, threads)
    threads = threads or cores.default_threads()
    runs = min(threads, photos, _MAX_RUNS)
    return Plan(min(photos, runs + _SPARE_WORKERS), runs, threads // runs)


def models_to_load(backend: Backend, runs: int) -> int:
    """How many times the model must be loaded so that ``runs`` photos really run at a time."""
    return 1 if backend.device != "cpu" or ENGINES[backend.name].parallel else runs


class Pool(Generic[T]):
    """Things of which each is used by one worker at a time, such as an engine's interpreters."""

    def __init__(self, things: Iterable[T]) -> None:
        self._idle: SimpleQueue[T] = SimpleQueue()
        for thing in things:
            self._idle.put(thing)

    @contextmanager
    def borrow(self) -> Iterator[T]:
        """Wait for an idle one, and use it for the length of the block."""
        thing = self._idle.get()
        try:
            yield thing
        finally:
            self._idle.put(thing)


class PixelBudget:
    """A limit on what is in work at a time, in pixels."""

    def __init__(self, limit: int = PIXELS_IN_WORK) -> None:
        self._limit = limit
        self._reserved = 0
        self._changed = threading.Condition()

    @contextmanager
    def reserve(self, pixels: int) -> Iterator[None]:
        """Wait until the limit allows for ``pixels`` more; more than the limit waits until nothing else is in work."""
        with self._changed:
            self._changed.wait_for(lambda: self._reserved == 0 or self._reserved + pixels <= self._limit)
            self._reserved += pixels
        try:
            yield
        finally:
            with self._changed:
                self._reserved -= pixels
                self._changed.notify_all()


@dataclass(frozen=True)  # Python 3.10 has no generic NamedTuple
class Outcome(Generic[T, R]):
    item: T
    result: R | None
    error: UnetRuntimeError | None
    """Why this item has no result; the others are not concerned."""


def map_in_order(
    work: Callable[[T, Checkpoint], R], items: Iterable[T], *, workers: int, ahead: int | None = None
) -> Generator[Outcome[T, R]]:
    """``work(item, checkpoint)`` for each item, in threads; outcomes in the order of the items.

    Close the iterator (``contextlib.closing``) to end early: workers leave at their next checkpoint, and all have
    left when it is closed. Threads do the work even of one item: a signal's exception is raised in the main thread,
    so none can strike while a file is moved into place.

    Args:
        work: an ``ImageError``, ``SourceError`` or ``OutputError`` belongs to its item; any other ends the run. Its
            checkpoint raises ``StoppedError`` when the run has ended.
        items: what to work on, taken no faster than needed.
        workers: threads.
        ahead: most items begun and not yielded; None: a few for each worker.

    Raises:
        Exception: whatever else ``work`` raises.
    """
    stop = threading.Event()

    def checkpoint() -> None:
        if stop.is_set():
            raise StoppedError

    pool = ThreadPoolExecutor(workers)
    begun: deque[tuple[T, Future[R]]] = deque()
    try:
        for item in items:
            begun.append((item, pool.submit(work, item, checkpoint)))
            if len(begun) >= (ahead or _AHEAD * workers):
                yield _outcome(*begun[0])
                begun.popleft()
        while begun:
            yield _outcome(*begun[0])
            begun.popleft()
    finally:
        stop.set()
        running = []
        for _, future in begun:
            if not future.cancel():
                running.append(future)
        late = wait(running, _END_SECONDS).not_done
        pool.shutdown(wait=not late)


def _outcome(item: T, future: Future[R]) -> Outcome[T, R]:
    try:
        return Outcome(item, future.result(), None)
    except (ImageError, SourceError, OutputError) as error:
        return Outcome(item, None, error)


def give_back_large_blocks() -> None:
    """Let glibc return large blocks to the system when they are freed, and keep small ones; elsewhere nothing happens.

    By default it raises its limit for that to the largest block that was freed, up to 32 MB, and each thread keeps
    what is below in an arena of its own: as many freed photos as there are workers stay in memory. With a limit that is
    set it would return small blocks, too, and ask for them again with each photo. For commands only: the settings
    belong to the whole process. https://www.man7.org/linux/man-pages/man3/mallopt.3.html
    """
    if sys.platform != "linux":
        return
    import ctypes  # many photos alone need it

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # musl has no such settings, and returns large blocks anyway
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)

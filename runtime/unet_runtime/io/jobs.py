"""Many photos, overlapped: while the engine runs one, others are decoded, encoded and written.

A worker takes a photo all the way, from its file to its results: nothing large is ever handed over or queued, so
what is in memory is what the workers hold. Three things bound that:

    workers   a few more than the engine runs at a time, so that none of these runs waits for a file
    Engines   as many runs at a time as there are threads, one thread each: faster than one run that shares its
              layers among the threads and waits for the last of them at every layer
    Room      pixels that may be decoded at a time: many small photos, or one large one
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

from unet_runtime.core import cores
from unet_runtime.core.errors import ImageError, OutputError, SourceError, UnetRuntimeError
from unet_runtime.engines import ENGINES, Backend

T = TypeVar("T")
R = TypeVar("R")

ROOM_PIXELS = 64_000_000
"""Pixels of all photos in work; a larger photo is in work alone."""

_MOST_RUNS = 8  # at a time: beyond, memory grows faster than throughput, and each run takes several threads
_SPARE_WORKERS = 1
_AHEAD = 4  # photos begun, for each worker, before the first that is not done
_END_SECONDS = 30.0  # for workers to leave; one that waits for a dead disk is left behind


class StoppedError(Exception):
    """The run has ended while a photo was in work: its worker drops it."""


class Plan(NamedTuple):
    """How many photos are in work, and how the threads are shared."""

    workers: int
    runs: int
    """Of the engine, at a time."""
    threads: int | None
    """Of each run; None lets the engine choose."""


def plan(photos: int, threads: int | None) -> Plan:
    """Settings for this machine.

    Args:
        photos: how many there are; a single one gets all threads.
        threads: most CPU threads that inference may use; None: one for each core this process may run on.
    """
    if photos <= 1:
        return Plan(1, 1, threads)
    threads = threads or cores.default_threads()
    runs = min(threads, photos, _MOST_RUNS)
    return Plan(min(photos, runs + _SPARE_WORKERS), runs, threads // runs)


def copies(backend: Backend, runs: int) -> int:
    """How many times the model must be loaded so that ``runs`` photos really run at a time."""
    return 1 if backend.device != "cpu" or ENGINES[backend.name].parallel else runs


class Pool(Generic[T]):
    """Things of which each is used by one worker at a time, as an engine's interpreter."""

    def __init__(self, things: Iterable[T]) -> None:
        self._idle: SimpleQueue[T] = SimpleQueue()
        for thing in things:
            self._idle.put(thing)

    @contextmanager
    def one(self) -> Iterator[T]:
        """Wait for an idle one; it is idle again after the block."""
        thing = self._idle.get()
        try:
            yield thing
        finally:
            self._idle.put(thing)


class Room:
    """A limit on what is in work at a time, in pixels."""

    def __init__(self, limit: int = ROOM_PIXELS) -> None:
        self._limit = limit
        self._taken = 0
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Wait until there is room; what is larger than the limit waits until all is free."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken == 0 or self._taken + pixels <= self._limit)
            self._taken += pixels
        try:
            yield
        finally:
            with self._changed:
                self._taken -= pixels
                self._changed.notify_all()


Checkpoint = Callable[[], None]
"""A worker calls it between two steps; it raises ``StoppedError`` when the run has ended."""


@dataclass(frozen=True)
class Outcome(Generic[T, R]):
    item: T
    result: R | None
    error: UnetRuntimeError | None
    """Why there is no result; of this item alone."""


def in_order(
    work: Callable[[T, Checkpoint], R], items: Iterable[T], *, workers: int, ahead: int | None = None
) -> Generator[Outcome[T, R]]:
    """``work(item, checkpoint)`` for each item, in threads; outcomes in the order of the items.

    Close the iterator (``contextlib.closing``) to end early: workers leave at their next checkpoint, and all have
    left when it is closed. Threads do the work even of one item: a signal's exception is raised in the main thread,
    so none can strike while a file is moved into place.

    Args:
        work: an ``ImageError``, ``SourceError`` or ``OutputError`` belongs to its item; any other ends the run.
        items: what to work on, taken no faster than needed.
        workers: threads.
        ahead: most items begun and not yielded; None: a few for each worker.

    Raises:
        Exception: whatever else ``work`` raises.
    """
    stop = threading.Event()
    todo: SimpleQueue[_Task[T, R] | None] = SimpleQueue()
    threads = [threading.Thread(target=_serve, args=(work, todo, stop), daemon=True) for _ in range(workers)]
    begun: deque[_Task[T, R]] = deque()
    try:
        for thread in threads:
            thread.start()
        for item in items:
            task = _Task[T, R](item)
            begun.append(task)
            todo.put(task)
            if len(begun) >= (ahead or _AHEAD * workers):
                yield begun.popleft().outcome()
        while begun:
            yield begun.popleft().outcome()
    finally:
        stop.set()
        for _ in threads:
            todo.put(None)
        for thread in threads:
            if thread.ident is not None:
                thread.join(_END_SECONDS)


class _Task(Generic[T, R]):
    def __init__(self, item: T) -> None:
        self.item = item
        self.answer: SimpleQueue[R | BaseException] = SimpleQueue()

    def outcome(self) -> Outcome[T, R]:
        answer = self.answer.get()  # a signal's handler runs while this waits
        if isinstance(answer, (ImageError, SourceError, OutputError)):
            return Outcome(self.item, None, answer)
        if isinstance(answer, BaseException):
            raise answer
        return Outcome(self.item, answer, None)


def _serve(work: Callable[[T, Checkpoint], R], todo: SimpleQueue[_Task[T, R] | None], stop: threading.Event) -> None:
    def checkpoint() -> None:
        if stop.is_set():
            raise StoppedError

    while (task := todo.get()) is not None:
        try:
            checkpoint()
            task.answer.put(work(task.item, checkpoint))
        except BaseException as error:
            task.answer.put(error)

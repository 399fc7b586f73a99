"""Photos in, results out, in order: the next photos are decoded while the model works on this one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Generic, TypeVar

_Photo = TypeVar("_Photo")
_Ready = TypeVar("_Ready")
_Result = TypeVar("_Result")


class _Failure:
    """An exception on its way from the thread to the caller."""

    def __init__(self, error: BaseException, *, last: bool) -> None:
        self.error = error
        self.last = last


class _Shared(Generic[_Ready]):
    """All that thread and stream have in common: the thread must not hold the stream, or it would never be freed."""

    def __init__(self, ahead: int) -> None:
        self.room = threading.Semaphore(ahead)
        self.ready: SimpleQueue[_Ready | _Failure] = SimpleQueue()
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()
        self.room.release()  # the thread may be waiting for it


class Stream(Iterator[_Result], Generic[_Photo, _Ready, _Result]):
    """Iterator of ``finish(prepare(photo))``; ``prepare`` runs in a thread, at most ``ahead`` photos in front.

    An error of one photo is raised in its turn, and the next call of ``next`` goes on behind it. An error of
    ``photos`` itself ends the stream. The thread starts with the first ``next``, and ends with the last photo, with
    ``close``, with the ``with`` block, or when the stream is dropped.
    """

    def __init__(
        self,
        photos: Iterable[_Photo],
        prepare: Callable[[_Photo], _Ready],
        finish: Callable[[_Ready], _Result],
        ahead: int,
    ) -> None:
        if ahead < 1:
            raise ValueError(f"ahead {ahead}, expected 1 photo or more")
        self._finish = finish
        self._shared: _Shared[_Ready] = _Shared(ahead)
        self._thread = threading.Thread(
            target=_read, args=(photos, prepare, self._shared), name="unet-edge-stream", daemon=True
        )

    def __next__(self) -> _Result:
        if self._shared.closed.is_set():
            raise StopIteration
        if self._thread.ident is None:
            self._thread.start()
        item = self._shared.ready.get()
        if isinstance(item, _Failure):
            if item.last:
                self.close()
            else:
                self._shared.room.release()
            raise item.error
        self._shared.room.release()
        return self._finish(item)

    def close(self) -> None:
        """Stop decoding and wait for the thread, which ends its photo first; photos decoded ahead are dropped."""
        self._shared.close()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Stream[_Photo, _Ready, _Result]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        shared = getattr(self, "_shared", None)  # none where the constructor refused
        if shared is not None:
            shared.close()


def _read(photos: Iterable[_Photo], prepare: Callable[[_Photo], _Ready], shared: _Shared[_Ready]) -> None:
    try:
        iterator = iter(photos)
        while True:
            shared.room.acquire()
            if shared.closed.is_set():
                return
            photo = next(iterator)
            try:
                shared.ready.put(prepare(photo))
            except Exception as error:
                shared.ready.put(_Failure(error, last=False))
            del photo  # waiting for room, one less in memory
    except BaseException as error:  # StopIteration, or whatever the caller's iterator raised: both end the stream
        shared.ready.put(_Failure(error, last=True))

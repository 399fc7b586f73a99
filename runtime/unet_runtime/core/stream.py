"""Photos in, results out, in order: the next photos are decoded while the model works on this one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Generic, NamedTuple, TypeVar

_Photo = TypeVar("_Photo")
_Prepared = TypeVar("_Prepared")
_Result = TypeVar("_Result")


class _Failure(NamedTuple):
    """An exception on its way from the thread to the caller."""

    error: BaseException
    is_last: bool


class _Shared(Generic[_Prepared]):
    """All that thread and stream have in common: the thread must not hold the stream, or it would never be freed."""

    def __init__(self, ahead: int) -> None:
        self.free_places = threading.Semaphore(ahead)
        self.prepared: SimpleQueue[_Prepared | _Failure] = SimpleQueue()
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()
        self.free_places.release()  # the thread may be waiting for one


class Stream(Iterator[_Result], Generic[_Photo, _Prepared, _Result]):
    """Iterator of ``finish(prepare(photo))``; ``prepare`` runs in a thread, at most ``ahead`` photos in front.

    An error of one photo is raised in its turn, and the next call of ``next`` goes on behind it. An error of
    ``photos`` itself ends the stream. The thread starts with the first ``next``, and ends with the last photo, with
    ``close``, with the ``with`` block, or when the stream is dropped. It is a daemon, so a source that blocks does
    not keep Python from ending.
    """

    def __init__(
        self,
        photos: Iterable[_Photo],
        prepare: Callable[[_Photo], _Prepared],
        finish: Callable[[_Prepared], _Result],
        ahead: int,
    ) -> None:
        if ahead < 1:
            raise ValueError(f"ahead {ahead}, expected 1 photo or more")
        self._finish = finish
        self._shared: _Shared[_Prepared] = _Shared(ahead)
        arguments = (photos, prepare, self._shared)
        self._thread = threading.Thread(target=_read, args=arguments, name="unet-edge-stream", daemon=True)

    def __next__(self) -> _Result:
        if self._shared.closed.is_set():
            raise StopIteration
        if self._thread.ident is None:
            self._thread.start()
        item = self._shared.prepared.get()
        if isinstance(item, _Failure) and item.is_last:
            self.close()
            raise item.error
        self._shared.free_places.release()
        if isinstance(item, _Failure):
            raise item.error
        return self._finish(item)

    def close(self) -> None:
        """Stop decoding and wait for the thread, which ends its photo first; photos decoded ahead are dropped."""
        self._shared.close()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Stream[_Photo, _Prepared, _Result]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_shared"):  # not where the constructor refused
            self._shared.close()


def _read(photos: Iterable[_Photo], prepare: Callable[[_Photo], _Prepared], shared: _Shared[_Prepared]) -> None:
    try:
        iterator = iter(photos)
        while True:
            shared.free_places.acquire()
            if shared.closed.is_set():
                return
            photo = next(iterator)
            try:
                shared.prepared.put(prepare(photo))
            except Exception as error:
                shared.prepared.put(_Failure(error, is_last=False))
            del photo  # waiting for a place, one less in memory
    except BaseException as error:  # StopIteration, or whatever the caller's iterator raised: both end the stream
        shared.prepared.put(_Failure(error, is_last=True))

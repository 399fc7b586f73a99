"""The newest value that one thread makes and others wait for: a frame, a result, a picture."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)  # Python 3.10 has no generic NamedTuple
class Numbered(Generic[T]):
    number: int
    """1, 2, ...: counts every value, also those that nobody has taken."""
    value: T


class Newest(Generic[T]):
    """Keeps the newest value alone; may be used from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._newest: Numbered[T] | None = None
        self.ended = False

    @property
    def number(self) -> int:
        """Values so far."""
        return self._newest.number if self._newest else 0

    def put(self, value: T) -> None:
        with self._changed:
            self._newest = Numbered(self.number + 1, value)
            self._changed.notify_all()

    def end(self) -> None:
        """Wake up all threads that wait: there will be no more."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def get(self, after: int = 0, timeout: float = 0.0) -> Numbered[T] | None:
        """The newest value, once its number is another than ``after``; None if it is not within ``timeout`` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended or self.number != after, timeout)
            return self._newest if self.number != after else None

"""Whose turn it is to accept a connection, among processes that share a socket.

By itself the first process that wakes takes all that wait, and a client that keeps its connection stays where it is:
one process would work while the others are idle. Here a process leaves a connection to one that has fewer.
"""

from __future__ import annotations

import mmap
import socket
import time
from typing import Any

_BYTES = 4
_NOBODY = 2**30
"""Connections of a process that does not run: nothing is left to it."""

_PATIENCE = 20
"""Times in a row that a connection is left to others: one of them may hang."""
_TURN_SECONDS = 0.0005


class Turns:
    """Connections of each process, in memory that all of them share; made before they are forked."""

    def __init__(self, processes: int) -> None:
        self._memory = mmap.mmap(-1, _BYTES * processes)
        self._open = memoryview(self._memory).cast("i")
        for index in range(processes):
            self._open[index] = _NOBODY

    def begin(self, index: int) -> None:
        """A process accepts connections."""
        self._open[index] = 0

    def end(self, index: int) -> None:
        """A process is gone, or about to go."""
        self._open[index] = _NOBODY

    def add(self, index: int, count: int) -> None:
        """Note ``count`` more connections of a process, which does so itself."""
        self._open[index] += count

    def is_mine(self, index: int) -> bool:
        """Whether no other process has fewer connections."""
        return self._open[index] <= min(self._open)


class SharedListener(socket.socket):
    """A listening socket that several processes have.

    Args:
        listener: the socket, which this one takes the place of.
        turns: of the processes.
        index: of this process.
    """

    def __init__(self, listener: socket.socket, turns: Turns, index: int) -> None:
        super().__init__(listener.family, listener.type, listener.proto, fileno=listener.detach())
        self._turns = turns
        self._index = index
        self._left = 0

    def begin(self) -> None:
        """Note that this process accepts connections from now on."""
        self._turns.begin(self._index)

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept, or leave the connection to another process, as if there were none."""
        if not self._turns.is_mine(self._index) and self._left < _PATIENCE:
            self._left += 1
            time.sleep(_TURN_SECONDS)
            raise BlockingIOError
        accepted = super().accept()
        self._left = 0
        self._turns.add(self._index, 1)
        return accepted

    def end(self) -> None:
        """Have no other process wait for this one: it is about to close the socket."""
        self._turns.end(self._index)

    def leave(self) -> None:
        """Note that a connection is closed."""
        self._turns.add(self._index, -1)

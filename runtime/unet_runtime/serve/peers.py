"""The other processes of a service, as one of them sees them: it asks the supervisor what all know together."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import NamedTuple, Protocol

from unet_runtime.serve.overview import Overview, Report
from unet_runtime.serve.refusals import UNAVAILABLE, RefusalError

_SECONDS = 10.0
"""For the supervisor to answer."""


class Ready(NamedTuple):
    """A worker's first message: it takes requests, and what runs them."""

    titles: list[str]


class Asked(NamedTuple):
    """The supervisor's question for a worker's report, and the number that comes back with it."""

    number: int


class Reported(NamedTuple):
    """A worker's answer to ``Asked``."""

    number: int
    report: Report


class Wanted(NamedTuple):
    """A worker's question for the overview, which is the answer."""


class Peers(Protocol):
    """What a process of the service asks."""

    number: int
    """Number of this process, from 1."""

    def watch(self, report: Callable[[], Report]) -> None:
        """Begin: ``report`` says what this process knows, in any thread."""

    async def overview(self) -> Overview:
        """What all processes know.

        Raises:
            RefusalError: the supervisor does not answer.
        """


class Alone:
    """A service of one process."""

    number = 1

    def watch(self, report: Callable[[], Report]) -> None:
        """Begin."""
        self._report = report

    async def overview(self) -> Overview:
        """What this process knows."""
        return Overview([self._report()])


class Together:
    """One process of several, which ends itself when its supervisor is gone.

    Args:
        number: of this process, from 1.
        channel: to the supervisor.
    """

    def __init__(self, number: int, channel: Connection) -> None:
        self.number = number
        self._channel = channel
        self._sending = threading.Lock()
        self._waiting: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[Overview]]] = deque()

    def watch(self, report: Callable[[], Report]) -> None:
        """Begin to answer the supervisor, in a thread of its own."""
        threading.Thread(target=self._listen, args=(report,), name="peers", daemon=True).start()

    def say_ready(self, titles: list[str]) -> None:
        """Tell the supervisor that requests are taken."""
        self._send(Ready(titles))

    async def overview(self) -> Overview:
        """What all processes know.

        Raises:
            RefusalError: the supervisor does not answer.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Overview] = loop.create_future()
        with self._sending:  # both, so that answers come in the order of their questions
            self._waiting.append((loop, answer))
            self._channel.send(Wanted())
        try:
            return await asyncio.wait_for(answer, _SECONDS)
        except asyncio.TimeoutError:
            raise RefusalError(
                UNAVAILABLE, f"the service's first process has not answered for {_SECONDS:g} seconds: look at its log"
            ) from None

    def _listen(self, report: Callable[[], Report]) -> None:
        while True:
            try:
                message = self._channel.recv()
                if isinstance(message, Asked):
                    self._send(Reported(message.number, report()))
                else:
                    loop, answer = self._waiting.popleft()
                    loop.call_soon_threadsafe(_answer, answer, message)
            except (EOFError, OSError):
                os.kill(os.getpid(), signal.SIGTERM)  # nobody would restart or end this process any more
                return

    def _send(self, message: object) -> None:
        with self._sending:
            self._channel.send(message)


def _answer(future: asyncio.Future[Overview], overview: Overview) -> None:
    if not future.done():
        future.set_result(overview)

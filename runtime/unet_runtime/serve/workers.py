"""Several processes that answer requests, and the one that begins them, replaces a dead one, and ends them all.

The supervisor loads no model and answers no request. It forks before any engine is loaded; each worker loads its own.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from types import FrameType

from prometheus_client.core import Metric

from unet_runtime.core.errors import INPUTS_FAILED, OK
from unet_runtime.serve.overview import Overview, Report, added
from unet_runtime.serve.peers import Asked, Ready, Reported, Wanted
from unet_runtime.serve.turns import Turns

logger = logging.getLogger(__name__)

CAN_FORK = hasattr(os, "fork")
"""Whether this system has what workers need: not on Windows."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LOOK_SECONDS = 0.2
_REPORT_SECONDS = 2.0
"""Between two reports of each worker: a dead one's counts are as old at most."""
_ANSWER_SECONDS = 2.0
"""For a worker's report; without it its last one counts."""
_STABLE_SECONDS = 10.0
"""A worker that has lived as long is replaced at once, others after a pause."""
_LONGEST_PAUSE = 30.0  # seconds


@dataclass(frozen=True)
class Seat:
    """A worker's place in the service."""

    index: int
    channel: Connection
    """To the supervisor."""
    turns: Turns


@dataclass
class _Worker:
    process: int
    channel: Connection
    began: float
    titles: list[str] | None = None
    """Titles of its models, as soon as it takes requests."""
    is_deaf: bool = False
    """Its end of the channel is closed."""
    report: Report | None = None
    number: int = 0
    """Number of its last report."""


@dataclass
class _Place:
    """What outlives a worker that is replaced."""

    worker: _Worker | None = None
    failures: int = 0
    """Workers in a row that did not live long."""
    next_start: float = 0.0


class Workers:
    """The supervisor.

    Args:
        count: processes that there should be.
        on_start: called with the titles of the models when all processes take requests.
        on_end: called when the first signal has come.
    """

    def __init__(self, count: int, on_start: Callable[[list[str]], None], on_end: Callable[[], None]) -> None:
        self._places = [_Place() for _ in range(count)]
        self._turns = Turns(count)
        self._on_start = on_start
        self._on_end = on_end
        self._is_open = False
        self._has_signal = False
        self._is_ending = False
        self._restarts = 0
        self._past: list[Metric] = []
        self._asking: list[_Worker] = []
        self._number = 0
        self._last_report = 0.0

    def run(self) -> Seat | int:
        """Begin the workers, and keep them running until a signal comes.

        Returns:
            In a process that has just begun, its seat; in the supervisor, at its end, the exit code.

        Raises:
            KeyboardInterrupt: a signal came before all of them took requests.
        """
        try:
            return self._run()
        except BaseException:
            self._kill()
            raise

    def _run(self) -> Seat | int:
        while True:
            for index in self._due():
                seat = self._fork(index)
                if seat is not None:
                    return seat
            self._listen()
            code = self._bury()
            if code and not self._is_open:
                self._kill()
                return code
            if not self._is_open and all(place.worker and place.worker.titles for place in self._places):
                self._open()
            if self._has_signal and not self._is_ending:
                self._end()
            if self._is_ending and not self._workers():
                return OK

    def _workers(self) -> list[_Worker]:
        return [place.worker for place in self._places if place.worker is not None]

    # Beginning

    def _due(self) -> Iterable[int]:
        """Places whose worker is to begin now; the first one alone until it has shown that the models can be loaded."""
        first = self._places[0].worker
        is_proven = self._is_open or (first is not None and first.titles is not None)
        due = []
        for index, place in enumerate(self._places if is_proven else self._places[:1]):
            if place.worker is None and not self._has_signal and time.monotonic() >= place.next_start:
                due.append(index)
        return due

    def _fork(self, index: int) -> Seat | None:
        """The seat, in the process that begins; None in the supervisor."""
        ours, theirs = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal between the fork and the worker's own handlers would be the supervisor's.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            process = os.fork()
            if process == 0:
                ours.close()
                for other in self._workers():
                    other.channel.close()  # else this process would keep a dead supervisor's end open
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's, which the supervisor gets too
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                return Seat(index, theirs, self._turns)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        theirs.close()
        self._places[index].worker = _Worker(process, ours, time.monotonic())
        return None

    def _open(self) -> None:
        """Say that requests are taken; from now on a signal is an end in good order."""
        self._is_open = True
        for number in _SIGNALS:
            signal.signal(number, self._note_signal)
        self._on_start(self._workers()[0].titles or [])

    def _note_signal(self, number: int, frame: FrameType | None) -> None:
        self._has_signal = True

    # While they work

    def _listen(self) -> None:
        """Take what workers say, and answer those that ask."""
        for worker in self._heard(self._workers(), _LOOK_SECONDS):
            self._receive(worker)
        if self._asking or time.monotonic() - self._last_report > _REPORT_SECONDS:
            self._ask_all()
            overview = self._overview()
            asking, self._asking = self._asking, []
            for worker in asking:
                _send(worker, overview)

    def _heard(self, workers: Iterable[_Worker], seconds: float) -> list[_Worker]:
        """Those that have said something, after so many seconds at most."""
        by_channel = {worker.channel: worker for worker in workers if not worker.is_deaf}
        if not by_channel:
            time.sleep(seconds)
            return []
        return [by_channel[channel] for channel in wait(list(by_channel), seconds)]  # type: ignore[index]

    def _receive(self, worker: _Worker) -> None:
        try:
            message = worker.channel.recv()
        except (EOFError, OSError):
            worker.is_deaf = True
            return
        if isinstance(message, Ready):
            worker.titles = message.titles
        elif isinstance(message, Reported):
            worker.report, worker.number = message.report, message.number
        elif isinstance(message, Wanted):
            self._asking.append(worker)

    def _ask_all(self) -> None:
        """Have every worker that takes requests report."""
        self._number += 1
        asked = [worker for worker in self._workers() if worker.titles is not None and not worker.is_deaf]
        for worker in asked:
            _send(worker, Asked(self._number))
        end = time.monotonic() + _ANSWER_SECONDS
        while True:
            left = [worker for worker in asked if worker.number < self._number and not worker.is_deaf]
            seconds = end - time.monotonic()
            if not left or seconds <= 0:
                break
            for worker in self._heard(left, seconds):
                self._receive(worker)
        self._last_report = time.monotonic()

    def _overview(self) -> Overview:
        reports = []
        for worker in self._workers():
            if worker.report is not None and not worker.is_deaf:
                reports.append(worker.report)
        return Overview(reports, len(self._places), self._restarts, self._past)

    # The end of one, and of all

    def _bury(self) -> int:
        """Note who has ended, and when another takes the place; the exit code of one that failed, else 0."""
        code = OK
        for index, place in enumerate(self._places):
            worker = place.worker
            if worker is None:
                continue
            process, status = os.waitpid(worker.process, os.WNOHANG)
            if not process:
                continue
            self._forget(index, worker)
            ended = os.waitstatus_to_exitcode(status)
            code = code or (ended if ended >= 0 else INPUTS_FAILED)
            if self._is_open and not self._has_signal:
                self._plan_next(index, worker, ended)
            elif ended < 0:
                logger.error("worker %d was ended by %s", index + 1, signal.Signals(-ended).name)
        return code

    def _forget(self, index: int, worker: _Worker) -> None:
        while not worker.is_deaf and worker.channel.poll():
            self._receive(worker)
        worker.channel.close()
        self._asking = [other for other in self._asking if other is not worker]
        self._turns.end(index)
        self._places[index].worker = None
        if worker.report is not None:
            self._past = added(self._past, worker.report)

    def _plan_next(self, index: int, worker: _Worker, ended: int) -> None:
        place = self._places[index]
        lived = time.monotonic() - worker.began
        place.failures = 0 if lived > _STABLE_SECONDS else place.failures + 1
        pause = min(_LONGEST_PAUSE, 2.0**place.failures - 1)
        place.next_start = time.monotonic() + pause
        self._restarts += 1
        how = f"exit code {ended}" if ended >= 0 else signal.Signals(-ended).name
        when = f"in {pause:g} s" if pause else "now"
        logger.warning("worker %d (process %d) has ended (%s): another begins %s", index + 1, worker.process, how, when)

    def _end(self) -> None:
        """Take no more connections, and have all workers answer what has come."""
        self._is_ending = True
        self._on_end()
        for worker in self._workers():
            os.kill(worker.process, signal.SIGTERM)

    def _kill(self) -> None:
        """End all workers at once: no request has been taken yet."""
        for worker in self._workers():
            os.kill(worker.process, signal.SIGKILL)
            os.waitpid(worker.process, 0)


def _send(worker: _Worker, message: object) -> None:
    try:
        worker.channel.send(message)
    except OSError:
        worker.is_deaf = True

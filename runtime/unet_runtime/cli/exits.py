"""Exit codes, the same for every command of the three packages.

0 all done   1 some inputs failed   2 wrong usage   3 model or backend
4 parity or accuracy gate failed    130 interrupted (Ctrl-C)    143 ended by SIGTERM
"""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

import click

from unet_runtime.core.errors import GATE, INPUTS_FAILED, INTERRUPTED, MODEL, OK, TERMINATED, USAGE, UnetRuntimeError

__all__ = [
    "GATE",
    "INPUTS_FAILED",
    "INTERRUPTED",
    "MODEL",
    "OK",
    "TERMINATED",
    "USAGE",
    "Terminated",
    "run",
    "stop_once",
]


class Terminated(KeyboardInterrupt):
    """SIGTERM came: whatever cleans up after Ctrl-C cleans up after it."""


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE_SECONDS = 10.0
_came: list[tuple[int, float]] = []  # signal and time


def stop_once() -> None:
    """From now on SIGTERM ends this process as Ctrl-C does, and for some seconds only the first such signal counts.

    Who waits for the end of a command may well send another, or both: it must not cut off the cleaning up.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # one that is ignored, as under nohup, stays so
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _came and now - _came[-1][1] < _GRACE_SECONDS:
        return
    _came.append((number, now))
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _interrupted(terminated: bool) -> int:
    click.echo("terminated" if terminated else "interrupted", err=True)
    return TERMINATED if terminated else INTERRUPTED


def run(command: click.Command, *, quick: bool = False) -> None:
    """Run a command; turn each way it can end into its exit code, and an error into one line.

    Args:
        command: what to run.
        quick: end without taking the interpreter apart, for a command that has closed all its files by then.
    """
    try:
        code = _run(command)
    except KeyboardInterrupt as error:  # while it was ending
        code = _interrupted(isinstance(error, Terminated))
    if _came:  # the process ends anyway: nothing is to be cut off by one more
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    if quick:
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """End now: to free engine, NumPy and Pillow piece by piece takes a tenth of a short run."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):  # the reader of a pipe is gone
        code = code or INPUTS_FAILED
    os._exit(code)


def _run(command: click.Command) -> int:
    try:
        # Not standalone: click would turn Ctrl-C into exit code 1.
        code = command.main(standalone_mode=False)
    except click.exceptions.Abort as error:  # click's own wrapping of KeyboardInterrupt
        return _interrupted(isinstance(error.__cause__, Terminated))
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except UnetRuntimeError as error:
        if _came:  # an engine that is interrupted while it loads says that it is broken
            return _interrupted(_came[0][0] == signal.SIGTERM)
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except BrokenPipeError:  # the reader of a pipe is gone, as after "| head"
        return INPUTS_FAILED
    return code if isinstance(code, int) else OK

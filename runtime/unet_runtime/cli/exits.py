"""How commands end: exit codes (``core.errors`` has them), signals, and errors as one line."""

from __future__ import annotations

import os
import signal
import sys
import time
from types import FrameType
from typing import NoReturn

import click

from unet_runtime.core.errors import GATE, INPUTS_FAILED, INTERRUPTED, MODEL, OK, TERMINATED, USAGE, UnetRuntimeError

__all__ = ["GATE", "INPUTS_FAILED", "INTERRUPTED", "MODEL", "OK", "TERMINATED", "USAGE", "run", "stop_once"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_GRACE_SECONDS = 10.0
_received: list[tuple[int, float]] = []  # signal and time


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what cleans up after Ctrl-C cleans up after it too."""


def stop_once() -> None:
    """From now on SIGTERM ends this process as Ctrl-C does, and for some seconds only the first such signal counts.

    Whoever waits for the end of a command may well send another signal, or both: they must not cut off the cleaning up.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # one that is ignored, as under nohup, stays ignored
            signal.signal(number, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _received and now - _received[-1][1] < _GRACE_SECONDS:
        return
    _received.append((number, now))
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _interrupted(terminated: bool) -> int:
    click.echo("terminated" if terminated else "interrupted", err=True)
    return TERMINATED if terminated else INTERRUPTED


def run(command: click.Command, *, quick: bool = False) -> None:
    """Run a command; turn each way it can end into its exit code, and an error into one line.

    Args:
        command: what to run.
        quick: end without freeing everything in the interpreter, for a command that has closed all its files by then.
    """
    try:
        code = _run(command)
    except KeyboardInterrupt as error:  # while it was ending
        code = _interrupted(isinstance(error, Terminated))
    if _received:  # the process ends anyway: one more signal must not cut anything off
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
    if quick:
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """End now: freeing engine, NumPy and Pillow piece by piece takes a tenth of a short run."""
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
    except click.exceptions.Abort as error:  # click wraps KeyboardInterrupt in it
        return _interrupted(isinstance(error.__cause__, Terminated))
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except UnetRuntimeError as error:
        if _received:  # an engine that is interrupted while it loads raises an error of its own
            return _interrupted(_received[0][0] == signal.SIGTERM)
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except BrokenPipeError:  # the reader of a pipe is gone, as after "| head"
        return INPUTS_FAILED
    return code if isinstance(code, int) else OK

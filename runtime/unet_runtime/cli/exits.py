"""How commands end: exit codes (``core.errors`` has them), signals, and errors as one line."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import NoReturn

import click

from unet_runtime.cli.quiet import visible_stderr
from unet_runtime.core.errors import (
    GATE,
    INPUTS_FAILED,
    INTERNAL,
    INTERRUPTED,
    MODEL,
    OK,
    TERMINATED,
    USAGE,
    UnetRuntimeError,
)
from unet_runtime.core.text import one_line, printable, shortened

__all__ = [
    "GATE",
    "INPUTS_FAILED",
    "INTERNAL",
    "INTERRUPTED",
    "MODEL",
    "OK",
    "TERMINATED",
    "TRACEBACK",
    "USAGE",
    "run",
    "stop_once",
    "stopped",
]

TRACEBACK = "UNET_EDGE_TRACEBACK"
"""Environment variable: with 1 an unexpected error shows its traceback."""

_STREAMS = (0, 1, 2)  # file descriptors
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ALARMS = (signal.SIGALRM,) if hasattr(signal, "SIGALRM") else ()  # not on Windows
_GRACE_SECONDS = 10.0
_IMPORT_SECONDS = 8.0  # the longest that a signal waits for an import: TensorFlow's, on a slow disk
_RETRY_SECONDS = 0.02
_IMPORTLIB = "<frozen importlib"
_received: list[tuple[int, float]] = []  # signal and time


class Terminated(KeyboardInterrupt):
    """SIGTERM came: what cleans up after Ctrl-C cleans up after it too."""


def stop_once() -> None:
    """From now on SIGTERM ends this process as Ctrl-C does, and for some seconds only the first such signal counts.

    Whoever waits for the end of a command may well send another signal, or both: they must not cut off the cleaning up.
    An exception in the middle of an import may be swallowed there, or leave half a module behind: a signal that comes
    then is kept until the import is done.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # one that is ignored, as under nohup, stays ignored
            signal.signal(number, _stop)
    if sys.unraisablehook is not _keep_swallowed:
        global _shown_elsewhere
        _shown_elsewhere = sys.unraisablehook
        sys.unraisablehook = _keep_swallowed


def _stop(number: int, frame: FrameType | None) -> None:
    now = time.monotonic()
    if _received and now - _received[-1][1] < _GRACE_SECONDS:
        return
    _received.append((number, now))
    _raise_or_wait(0, frame)


def _raise_or_wait(_: int, frame: FrameType | None) -> None:
    """Raise what the last signal means, or come back shortly where an import is under way."""
    if not _received:
        return
    number, came = _received[-1]
    if _is_importing(frame) and time.monotonic() - came < _IMPORT_SECONDS and _come_back():
        return
    raise Terminated if number == signal.SIGTERM else KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    """Whether an import that the command made is under way, by the frames that the signal came to."""
    while frame is not None and frame.f_code is not run.__code__:
        if frame.f_code.co_filename.startswith(_IMPORTLIB):
            return True
        frame = frame.f_back
    return False


def _come_back() -> bool:
    """Have ``_raise_or_wait`` called again; False where the system has no alarm (Windows)."""
    if not _ALARMS:
        return False
    signal.signal(_ALARMS[0], _raise_or_wait)
    signal.setitimer(signal.ITIMER_REAL, _RETRY_SECONDS)
    return True


_shown_elsewhere = sys.unraisablehook


def _keep_swallowed(problem: sys.UnraisableHookArgs) -> None:
    """Raise a signal's exception again that came to code which cannot pass it on: ``__del__``, a weak reference."""
    if _received and isinstance(problem.exc_value, KeyboardInterrupt) and _come_back():
        return
    _shown_elsewhere(problem)


def stopped() -> int:
    """Exit code of a command that ends early because a signal came: TERMINATED after SIGTERM, else INTERRUPTED."""
    return TERMINATED if _received and _received[0][0] == signal.SIGTERM else INTERRUPTED


def _interrupted(terminated: bool) -> int:
    _say("terminated" if terminated else "interrupted")
    return TERMINATED if terminated else INTERRUPTED


def _say(line: str) -> None:
    """Print a line on standard error; where that is closed or full, there is nobody to tell."""
    with suppress(OSError, ValueError):
        click.echo(shortened(printable(line)), file=visible_stderr(), err=True)


def run(command: click.Command, *, quick: Callable[[], bool] | bool = False) -> None:
    """Run a command; turn each way it can end into its exit code, and an error into one line.

    Args:
        command: what to run.
        quick: end without freeing everything in the interpreter, for a command that has closed all its files by then;
            or what says so when it has ended.
    """
    _prepare_streams()
    try:
        code = _run(command)
    except KeyboardInterrupt as error:  # while it was ending
        code = _interrupted(isinstance(error, Terminated))
    if _received:  # the process ends anyway: one more signal must not cut anything off
        for number in (*_SIGNALS, *_ALARMS):
            signal.signal(number, signal.SIG_IGN)
    code = _flush(code)
    if quick() if callable(quick) else quick:
        _leave(code)
    sys.exit(code)


class _Closed(io.RawIOBase):
    """A stream that the caller has closed: whatever is written to it is an error, as in the system's own commands."""

    def writable(self) -> bool:
        return True

    def write(self, content: object) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _prepare_streams() -> None:
    """Make the standard streams safe to write to.

    A descriptor that the caller has closed (``>&-``) is opened to nowhere: the next file to be opened would get its
    number, and what a library prints would go into it. What a stream cannot encode is written as an escape.
    """
    closed = []
    for number in _STREAMS:
        try:
            os.fstat(number)
        except OSError:
            closed.append(number)
    for _ in closed:  # each takes the lowest free number
        os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(_Closed()), encoding="utf-8")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _flush(code: int) -> int:
    """Write what is still in the streams' buffers; the exit code, another one where that fails."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError) as error:
            if not isinstance(error, BrokenPipeError) and stream is sys.stdout:
                _say(f"error: {_stdout_error(error)}")
            code = code or INPUTS_FAILED
            _abandon(stream)
    return code


def _abandon(stream: object) -> None:
    """Send what a stream's buffer still holds nowhere: Python would try again at its end, and print a traceback."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # type: ignore[attr-defined]
        os.close(nowhere)
        return
    if stream is sys.stdout:
        sys.stdout = None  # closed from the beginning


def _stdout_error(error: OSError | ValueError) -> str:
    reason = getattr(error, "strerror", None) or error
    return f"standard output cannot be written ({reason}): make room, or send it elsewhere"


def _leave(code: int) -> NoReturn:
    """End now: freeing engine, NumPy and Pillow piece by piece takes a tenth of a short run."""
    os._exit(code)


def _run(command: click.Command) -> int:
    try:
        # Not standalone: click would turn Ctrl-C into exit code 1.
        code = command.main(standalone_mode=False)
    except click.exceptions.Abort as error:  # click wraps KeyboardInterrupt in it
        return _interrupted(isinstance(error.__cause__, Terminated))
    except click.ClickException as error:
        _show_usage(error)
        return error.exit_code
    except UnetRuntimeError as error:
        if error.exit_code == INTERRUPTED:  # it says what has been kept
            _say(f"error: {error}")
            return stopped()
        if _received:  # an engine that is interrupted while it loads raises an error of its own
            return _interrupted(_received[0][0] == signal.SIGTERM)
        _say(f"error: {error}")
        if error.hint:
            _say(f"  {error.hint}")
        return error.exit_code
    except BrokenPipeError:  # the reader of a pipe is gone, as after "| head"
        return INPUTS_FAILED
    except Exception as error:
        if _received:  # as above
            return _interrupted(_received[0][0] == signal.SIGTERM)
        return _unexpected(error)
    return code if isinstance(code, int) else OK


def _show_usage(error: click.ClickException) -> None:
    """Print it as click does, with every name printable."""
    shown = io.StringIO()
    error.show(shown)
    with suppress(OSError, ValueError):
        text = shortened(printable(shown.getvalue(), lines=True))
        click.echo(text, file=visible_stderr(), err=True, nl=False)


def _unexpected(error: Exception) -> int:
    """Say in one line what nobody expected, and where it happened."""
    if os.environ.get(TRACEBACK, "") not in ("", "0"):
        import traceback  # a millisecond that only an error needs

        with suppress(OSError, ValueError):
            click.echo(printable("".join(traceback.format_exception(error)), lines=True), err=True, nl=False)
    if isinstance(error, OSError) and error.errno in _FULL and _is_printing(error):
        _say(f"error: {_stdout_error(error)}")
        _abandon(sys.stdout)
        return INPUTS_FAILED
    if isinstance(error, OSError) and error.filename is not None:  # the system's, not ours
        _say(f"error: {error.filename}: {error.strerror}")
        return INPUTS_FAILED
    if isinstance(error, FileNotFoundError) and not _has_folder():
        _say("error: the current folder is gone: change into one that exists, or name all paths from / on")
        return INPUTS_FAILED
    if isinstance(error, MemoryError):
        _say("error: this machine's memory is full: use a smaller input, fewer threads, or a machine with more memory")
        return INPUTS_FAILED
    name, place = type(error).__name__, _place(error)
    _say(f"internal error: {name}: {one_line(error)}{place}; please report it, with {TRACEBACK}=1 and this command")
    return INTERNAL


def _has_folder() -> bool:
    """Whether this process's current folder still exists."""
    try:
        os.getcwd()  # noqa: PTH109  # nothing else is needed of it
    except OSError:
        return False
    return True


def _is_printing(error: OSError) -> bool:
    """Whether an error came from printing a result."""
    trace, module = error.__traceback__, ""
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__"))
        trace = trace.tb_next
    return module.startswith("click.") or module in ("__main__", "unet_runtime.cli.report", __name__)


def _place(error: Exception) -> str:
    """`` (unet_runtime.core.spec, line 12)``: the last line of this project in an error's traceback."""
    trace, found = error.__traceback__, ""
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.startswith("unet_"):
            found = f" ({module}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return found

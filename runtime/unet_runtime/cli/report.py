"""What unet-run prints about its photos: a line each, a summary, and on a terminal the progress."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from unet_runtime.core.errors import INPUTS_FAILED, OK, UnetRuntimeError
from unet_runtime.core.text import printable, to_json
from unet_runtime.io.sources import LeftOut
from unet_runtime.segmenter import Segmenter

if TYPE_CHECKING:
    from unet_runtime.io.coco_set import Entry

logger = logging.getLogger(__name__)

_CLEAR = "\r\x1b[K"


class Done(NamedTuple):  # not a dataclass: half a millisecond of a cold start
    """What there is to report about a photo, or a video, that has been segmented."""

    written: Sequence[Path]
    content: dict[str, object] | None = None
    """For JSON: width and height in pixels, and the area of each class; None for a video."""
    summary: str = ""
    """Areas of all classes but the background, for people."""
    piped: bytes = b""
    """A result for standard output, or for the pipe or device in ``written``."""
    entry: Entry | None = None
    """The photo in a data set, see ``io.coco_set``."""
    is_empty: bool = False
    """Nothing that the model looks for is in the photo."""
    was_done: bool = False
    """Its results were there already."""
    places: Sequence[str] = ()
    """Where its results are, of those that are no files of their own on this machine."""


def describe(segmenter: Segmenter) -> str:
    """``pets-edge float32 on ONNX Runtime 1.31.1, cpu``: what runs, where, and why not faster."""
    backend, spec = segmenter.backend, segmenter.spec
    note = f" ({backend.note})" if backend.note else ""
    return f"{spec.name} {spec.precision} on {backend.engine}, {backend.device}{note}"


class Report:
    """Counts and prints.

    Args:
        total: how many photos and videos there are.
        segmenter: what runs.
        as_json: one line of JSON per photo on standard output, instead of text.
        quiet_stdout: standard output belongs to a result.
        progress: whether to show the progress where standard error is a terminal.
        clock: seconds, as ``time.monotonic``.
    """

    def __init__(
        self,
        total: int,
        segmenter: Segmenter,
        *,
        as_json: bool = False,
        quiet_stdout: bool = False,
        progress: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._as_json = as_json
        self._to_stderr = as_json or quiet_stdout
        self._segmenter = segmenter
        self._clock = clock
        self._start = clock()
        self._shows_progress = progress and total > 1 and sys.stderr.isatty()
        self._has_failed = False
        self.done = self.failed = self.skipped = self.empty = 0

    def begin(self) -> None:
        """Say what runs."""
        logger.info("%s", describe(self._segmenter))

    def add(self, path: Path | str, done: Done | None, error: UnetRuntimeError | None = None) -> None:
        """Report one more photo: what came of it, or why it failed."""
        self._erase()
        if done is not None and done.was_done:
            self.skip(path, done.written)
        elif done is not None:
            self.done += 1
            self.empty += done.is_empty
            self._print_done(path, done)
        else:
            self.failed += 1
            if self._as_json:
                _print_json({"photo": str(path), "error": str(error)})
            else:
                logger.error("%s", error)
        if self._shows_progress:
            click.echo(self.progress(), err=True, nl=False)

    def fail(self, error: UnetRuntimeError) -> None:
        """Report what is no photo's problem: the run ends with an error."""
        self._erase()
        logger.error("%s", error)
        self._has_failed = True

    def skip(self, path: Path | str, results: Sequence[Path]) -> None:
        """Report a photo whose results are there already."""
        self.skipped += 1
        if self._as_json:
            _print_json({"photo": str(path), "skipped": True, "results": list(map(str, results))})

    def skip_rows(self, count: int) -> None:
        """Count rows of a manifest that are done already."""
        self.skipped += count

    def leave_out(self, kind: LeftOut) -> None:
        """Report pictures of folders that are not segmented, and why: one line for all of a kind."""
        self._erase()
        logger.warning("%s", kind)
        if self._as_json:
            for path in kind.paths:
                _print_json({"photo": str(path), "left_out": f"{kind.kind}: {kind.reason}"})

    def end(self) -> int:
        """Print the summary, where there is something to sum up.

        Returns:
            The exit code.
        """
        self._erase()
        if self.skipped:
            logger.info("%d photos were done before", self.skipped)
        if self.empty and self._total > 1:
            wanted = ", ".join(self._segmenter.spec.role_names("foreground"))
            logger.info("%d of %d photos: no %s found", self.empty, self.done, wanted)
        if not self.failed:
            return INPUTS_FAILED if self._has_failed else OK
        total = self._total - self.skipped
        untried = total - self.done - self.failed
        rest = f", {untried} not tried (--on-error stop)" if untried else ""
        logger.warning("%d of %d photos failed, %d written%s", self.failed, total, self.done, rest)
        return INPUTS_FAILED

    def interrupted(self) -> None:
        """Print how far the run came, and how to go on."""
        self._erase()
        total = self._total - self.skipped
        if total > 1:
            logger.warning("stopped after %d of %d photos: --resume does the rest", self.done, total)

    def progress(self) -> str:
        """``123 of 1000   45.2 photos/s   0:19 left``."""
        count, total = self.done + self.failed, self._total - self.skipped
        seconds = self._clock() - self._start
        rate = count / seconds if seconds else 0.0
        left = round((total - count) / rate) if rate else 0
        return f"{count} of {total}   {rate:.1f} photos/s   {left // 60}:{left % 60:02d} left"

    def _print_done(self, path: Path | str, done: Done) -> None:
        if done.piped and not done.written:
            sys.stdout.buffer.write(done.piped)
            sys.stdout.buffer.flush()
        results = list(done.places or map(str, done.written))
        if not self._as_json:
            summary = f"{done.summary} " if done.summary else ""
            click.echo(printable(f"{path}: {summary}-> {', '.join(results) or 'standard output'}"), err=self._to_stderr)
            return
        spec, backend = self._segmenter.spec, self._segmenter.backend
        model = {"model": spec.name, "precision": spec.precision, "engine": backend.engine, "device": backend.device}
        _print_json({"photo": str(path)} | (done.content or {}) | model | {"results": results})

    def _erase(self) -> None:
        if self._shows_progress:
            click.echo(_CLEAR, err=True, nl=False)


def _print_json(content: dict[str, object]) -> None:
    click.echo(to_json(content))

"""What unet-run says of its photos: a line each, a summary, and on a terminal how far it is."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from unet_runtime.cli import exits
from unet_runtime.core.errors import UnetRuntimeError
from unet_runtime.segmenter import Segmenter

_EVERY_SECONDS = 0.1
_CLEAR = "\r\x1b[K"


@dataclass(frozen=True)
class Done:
    """What there is to say of a photo that has been segmented, or a video."""

    written: Sequence[Path]
    size: tuple[int, int] = (0, 0)
    """(width, height) in pixels; of a video unknown."""
    areas: dict[str, dict[str, float]] | None = None
    """As ``annotations.areas_by_name``."""
    shown: str = ""
    """Areas of all classes but the background, for people."""
    piped: bytes = b""
    """A result for standard output."""


def choice(segmenter: Segmenter) -> str:
    """``pets-edge float32 on ONNX Runtime 1.31.1, cpu``: what runs, where, and why not faster."""
    backend, spec = segmenter.backend, segmenter.spec
    note = f" ({backend.note})" if backend.note else ""
    return f"{spec.name} {spec.precision} on {backend.engine}, {backend.device}{note}"


class Report:
    """Counts and prints.

    Args:
        total: how many photos and videos there are to do.
        as_json: one line of JSON a photo on standard output, all else on standard error.
        quiet_stdout: standard output belongs to a result.
        segmenter: what runs.
        clock: seconds, as ``time.monotonic``.
    """

    def __init__(
        self,
        total: int,
        *,
        as_json: bool,
        quiet_stdout: bool,
        segmenter: Segmenter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._as_json = as_json
        self._to_stderr = as_json or quiet_stdout
        self._segmenter = segmenter
        self._clock = clock
        self._start = self._drawn = clock()
        self._watched = total > 1 and sys.stderr.isatty()
        self.done = self.failed = self.skipped = 0

    def begin(self) -> None:
        """Say what runs."""
        click.echo(choice(self._segmenter), err=self._to_stderr)

    def add(self, path: Path, done: Done | None, error: UnetRuntimeError | None = None) -> None:
        """One more photo is done, or has failed."""
        self._erase()
        if done is None:
            self.failed += 1
            self._say_failed(path, error)
        else:
            self.done += 1
            self._say_done(path, done)
        self._draw()

    def skip(self, path: Path, results: Sequence[Path]) -> None:
        """A photo whose results are there already."""
        self.skipped += 1
        if self._as_json:
            self._json({"photo": str(path), "skipped": True, "results": [str(result) for result in results]})

    def end(self) -> int:
        """Print the summary, where there is something to sum up; the exit code."""
        self._erase()
        if self.skipped:
            click.echo(f"{self.skipped} photos were done before", err=True)
        if not self.failed:
            return exits.OK
        untried = self._total - self.done - self.failed
        rest = f", {untried} not tried (--on-error stop)" if untried else ""
        click.echo(f"{self.failed} of {self._total} photos failed, {self.done} written{rest}", err=True)
        return exits.INPUTS_FAILED

    def interrupted(self) -> None:
        """Say what is there, and how to go on."""
        self._erase()
        if self._total > 1:
            click.echo(f"stopped after {self.done} of {self._total} photos: --resume does the rest", err=True)

    def progress(self) -> str:
        """``123 of 1000   45.2 photos/s   0:19 left``."""
        count, seconds = self.done + self.failed, self._clock() - self._start
        rate = count / seconds if seconds else 0.0
        left = round((self._total - count) / rate) if rate else 0
        return f"{count} of {self._total}   {rate:.1f} photos/s   {left // 60}:{left % 60:02d} left"

    def _say_done(self, path: Path, done: Done) -> None:
        if done.piped:
            sys.stdout.buffer.write(done.piped)
            sys.stdout.buffer.flush()
        results = [str(result) for result in done.written]
        if not self._as_json:
            areas = f"{done.shown} -> " if done.shown else "-> "
            click.echo(f"{path}: {areas}{', '.join(results) or 'standard output'}", err=self._to_stderr)
            return
        backend, spec = self._segmenter.backend, self._segmenter.spec
        about = {"model": spec.name, "precision": spec.precision, "engine": backend.engine, "device": backend.device}
        known = {} if done.areas is None else {"width": done.size[0], "height": done.size[1], "classes": done.areas}
        self._json({"photo": str(path), **known, **about, "results": results})

    def _say_failed(self, path: Path, error: UnetRuntimeError | None) -> None:
        if self._as_json:
            self._json({"photo": str(path), "error": str(error)})
        else:
            click.echo(f"error: {error}", err=True)

    def _json(self, content: dict[str, object]) -> None:
        click.echo(json.dumps(content, ensure_ascii=False))

    def _erase(self) -> None:
        if self._watched:
            click.echo(_CLEAR, err=True, nl=False)

    def _draw(self) -> None:
        if self._watched:
            click.echo(self.progress(), err=True, nl=False)

"""What a training shows while it runs: a line that is redrawn on a terminal, and one that stays for each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import perf_counter
from types import TracebackType
from typing import TextIO

import keras
from tqdm import tqdm

from unet_training.checkpoint import Checkpoint
from unet_training.pace import Pace

_REDRAWN_EVERY = 0.2
_SAID_EVERY = 30.0
"""Seconds: on a terminal, and where lines stay, as in a log."""

_COLUMNS = (
    ("training", "loss", 10, "loss"),
    ("cross-", "entropy", 9, "cross_entropy"),
    ("mean", "IoU", 8, "mean_iou"),
    ("validation", "loss", 12, "val_loss"),
    ("mean", "IoU", 8, "val_mean_iou"),
)
"""Two lines of header, width, Keras' name. The loss of a validation is its cross-entropy."""
_SECONDS, _SPEED = 9, 8
_RUNNING = (("loss", "loss"), ("mean IoU", "mean_iou"))


class _Bar(tqdm):
    """tqdm without its thread, which would redraw while lines are said."""

    monitor_interval = 0


class Progress(keras.callbacks.Callback):
    """Shows the epochs of a training, which may be several calls of ``fit``; to be used in a ``with`` block, which
    clears the redrawn line whatever ends the training. Among the callbacks it belongs after ``checkpoint``.

    Args:
        sizes: height and width of the training photos in each epoch, pixels, all epochs of the training.
        photos: to train on; those that fill no batch are not seen in an epoch.
        validation: photos of a validation, at the last of ``sizes``.
        batch_size: photos a step, of both.
        checkpoint: tells which epoch is the best so far.
        say: receives one line at a time: one for each epoch, and every 30 s within one if there is no terminal.
        terminal: where a line can be redrawn in place; None: there is none.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        photos: int,
        validation: int,
        batch_size: int,
        checkpoint: Checkpoint,
        say: Callable[[str], None],
        terminal: TextIO | None = None,
    ) -> None:
        super().__init__()
        self._step, self._batch = min(batch_size, photos), batch_size
        self._steps, self._validation = max(1, photos // batch_size), validation
        self._pace = Pace(sizes, self._steps * self._step, validation)
        self._checkpoint, self._say, self._terminal = checkpoint, say, terminal
        self._bar: _Bar | None = None
        self._epoch = 0
        self._epochs = len(sizes)
        self._builds = self._begun = False
        self._next = 0.0

    @property
    def photos_per_second(self) -> float:
        """Of the training steps of the epoch under way, or the last one."""
        return self._pace.photos_per_second

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._builds = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if not self._begun:
            self._begun = True
            for line in _header(len(self._name(self._epochs))):
                self._say(line)
        now = perf_counter()
        size = self._pace.sizes[epoch]
        if self._builds and len(set(self._pace.sizes)) > 1:
            self._say(f"{self._name(epoch + 1)}: photos of {size}x{size}")
        self._pace.begin_epoch(epoch, now, builds=self._builds)
        self._builds, self._epoch = False, epoch
        if self._terminal is not None:
            self._bar = _Bar(
                total=self._steps,
                desc=self._name(epoch + 1),
                file=self._terminal,
                leave=False,
                dynamic_ncols=True,
                bar_format="{desc} {bar} {n_fmt}/{total_fmt}{postfix}",
            )
        self._next = now if self._terminal is not None else now + _SAID_EVERY

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        now = perf_counter()
        self._pace.trained((batch + 1) * self._step, now)
        if now >= self._next:  # most steps end here
            self._show(f"{self.photos_per_second:.0f} photos/s", batch + 1, self._steps, logs or {}, now)

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        self._pace.begin_validation(perf_counter())

    def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        now = perf_counter()
        self._pace.validated(min((batch + 1) * self._batch, self._validation), now)
        if now >= self._next:
            self._show("validation", batch + 1, math.ceil(self._validation / self._batch), logs or {}, now)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._clear()
        figures = logs or {}
        seconds = self._pace.end_epoch(perf_counter())
        cells = "".join(f"{figures.get(name, math.nan):{width}.4f}" for *_, width, name in _COLUMNS)
        name = self._name(epoch + 1).ljust(len(self._name(self._epochs)))
        best = "  best" if self._checkpoint.epoch == epoch + 1 else ""
        self._say(f"{name}{cells}{seconds:{_SECONDS}.1f}{self.photos_per_second:{_SPEED}.0f}{best}")

    def _name(self, number: int) -> str:
        """Of an epoch counted from 1."""
        return f"epoch {number}/{self._epochs}"

    def _show(self, doing: str, done: int, total: int, running: dict[str, float], now: float) -> None:
        """``done`` of ``total`` steps, of training or of validation, and the running figures of that."""
        self._next = now + (_REDRAWN_EVERY if self._terminal is not None else _SAID_EVERY)
        left = self._pace.seconds_left()
        figures = [f"{label} {running[name]:.3f}" for label, name in _RUNNING if name in running]
        words = ", ".join([doing, f"{'?' if left is None else tqdm.format_interval(left)} left", *figures])
        if self._bar is None:
            self._say(f"{self._name(self._epoch + 1)}, step {done}/{total}, {words}")
            return
        self._bar.n, self._bar.total = done, total
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.refresh()

    def _clear(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _header(first: int) -> tuple[str, str]:
    """Of columns beside one as wide as ``first``."""
    above = " " * first + "".join(f"{top:>{width}}" for top, _, width, _ in _COLUMNS)
    below = " " * first + "".join(f"{bottom:>{width}}" for _, bottom, width, _ in _COLUMNS)
    return f"{above}{'':{_SECONDS}}{'photos':>{_SPEED}}", f"{below}{'seconds':>{_SECONDS}}{'/s':>{_SPEED}}"

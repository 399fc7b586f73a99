"""What a training shows while it runs: a line redrawn on a terminal, and one that stays for each epoch."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Sequence
from time import perf_counter
from typing import TextIO

import keras
from tqdm import tqdm

from unet_training.fit.checkpoint import Checkpoint

logger = logging.getLogger(__name__)

_TERMINAL_INTERVAL = 0.2
_LOG_INTERVAL = 30.0
"""Seconds between two lines within an epoch: on a terminal, and in a log."""

_TRAINING_COST = 3
"""Time of a photo in a training step, in its times in a validation: the way back takes twice the way forward."""

_HEADER = (
    "  training   cross-    mean  validation    mean           photos",
    "      loss  entropy     IoU        loss     IoU  seconds      /s",
)
_ROW = "{loss:10.4f}{cross_entropy:9.4f}{mean_iou:8.4f}{val_loss:12.4f}{val_mean_iou:8.4f}{seconds:9.1f}{speed:8.0f}"
"""The loss of a validation is its cross-entropy."""


class _Log(io.StringIO):
    """A stream in a terminal's place: each line that tqdm draws goes to the log."""

    def write(self, text: str) -> int:
        if line := text.strip():
            logger.info("%s", line)
        return len(text)


class _Bar(tqdm):
    monitor_interval = 0  # no thread that redraws while others write


class Progress(keras.callbacks.Callback):
    """Shows the epochs of a training, which may be several calls of ``fit``. It belongs after ``checkpoint``.

    Args:
        sizes: height and width of the training photos in each epoch, pixels, all epochs of the training.
        photos: number to train on; those that fill no batch are not seen in an epoch.
        validation: number of photos of a validation, at the last of ``sizes``.
        batch_size: photos per step, of both.
        checkpoint: knows how many epochs are done, and which is the best so far.
        terminal: where a line can be redrawn in place; None: there is none.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        photos: int,
        validation: int,
        batch_size: int,
        checkpoint: Checkpoint,
        terminal: TextIO | None = None,
    ) -> None:
        super().__init__()
        self._sizes = tuple(sizes)
        self._batch = min(batch_size, photos)
        self._steps = max(1, photos // batch_size)
        self._validation_steps = math.ceil(validation / batch_size)
        self._validation_work = validation * sizes[-1] ** 2  # in pixels
        self._checkpoint = checkpoint
        work = [self._steps * self._step_work(size) + self._validation_work for size in sizes]
        self._bar = _Bar(  # over the work of the whole training: the estimate of the time left is tqdm's
            total=sum(work),
            initial=sum(work[: checkpoint.epochs]),
            file=terminal or _Log(),
            bar_format="{desc} {bar} {remaining} left{postfix}" if terminal else "{desc}, {remaining} left{postfix}",
            mininterval=_TERMINAL_INTERVAL if terminal else _LOG_INTERVAL,
            miniters=0,
            delay=1e-9,  # nothing is shown before the first step
            dynamic_ncols=terminal is not None,
            leave=False,
            smoothing=0.05,
        )
        self._epoch = checkpoint.epochs
        self._steps_done = 0
        self._began = self._first_step = self._last_step = 0.0

    def _step_work(self, size: int) -> int:
        return _TRAINING_COST * self._batch * size**2

    @property
    def photos_per_second(self) -> float:
        """Speed of the training steps of the epoch under way, or the last one; 0 before its first step.

        The first step, which may compile, is left out where there are others.
        """
        if self._steps_done > 1:
            return (self._steps_done - 1) * self._batch / max(self._last_step - self._first_step, 1e-9)
        return self._steps_done * self._batch / max(self._last_step - self._began, 1e-9)

    def close(self) -> None:
        """End the redrawn line, whatever ended the training."""
        self._bar.close()

    def write_header(self) -> None:
        """Log the titles of the epochs' lines."""
        for line in _HEADER:
            self._write(" " * len(self._name(len(self._sizes) - 1)) + line)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch
        self._steps_done = 0
        self._began = perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self._last_step = perf_counter()
        if not self._steps_done:
            self._first_step = self._last_step
        self._steps_done = batch + 1
        self._advance(self._step_work(self._sizes[self._epoch]), f"step {batch + 1}/{self._steps}", logs)

    def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        work = self._validation_work / self._validation_steps
        self._advance(work, f"validation {batch + 1}/{self._validation_steps}", logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        name = self._name(epoch).ljust(len(self._name(len(self._sizes) - 1)))
        row = _ROW.format(**(logs or {}), seconds=perf_counter() - self._began, speed=self.photos_per_second)
        self._write(name + row + ("  best" if self._checkpoint.epoch == epoch + 1 else ""))

    def _advance(self, work: float, doing: str, logs: dict[str, float] | None) -> None:
        values = f"{self.photos_per_second:.0f} photos/s"
        for label, name in (("loss", "loss"), ("mean IoU", "mean_iou")):
            if logs and name in logs:
                values += f", {label} {logs[name]:.3f}"
        self._bar.set_description_str(f"{self._name(self._epoch)}, {doing}", refresh=False)
        self._bar.set_postfix_str(values, refresh=False)
        self._bar.update(work)

    def _name(self, epoch: int) -> str:
        return f"epoch {epoch + 1}/{len(self._sizes)}"

    def _write(self, line: str) -> None:
        """Log a line that stays, above the redrawn one."""
        self._bar.clear()
        logger.info("%s", line)

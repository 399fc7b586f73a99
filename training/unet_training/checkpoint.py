"""The best epoch's weights on disk, whatever ends the training."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from unet_training.errors import TrainingError
from unet_training.files import replacing, writing


class BestCheckpoint(keras.callbacks.Callback):
    """Keep the weights of the best epoch in a file, replaced atomically: a kill leaves the last good one.

    Args:
        path: ending in ``.npz``; a file of an earlier training is removed when this one begins.
        monitor: the figure that chooses: ``val_loss`` (lowest) or ``val_mean_iou`` (highest).

    Raises:
        TrainingError: a loss is no longer a finite number.
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, monitor: str) -> None:
        super().__init__()
        self.path, self.monitor = path, monitor
        self.best: float | None = None
        self.epoch = 0
        """Number of the best epoch, from 1; 0 before the first one ended."""

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        with writing(self.path):
            self.path.unlink(missing_ok=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        figures = logs or {}
        # The losses whatever is monitored: the mean IoU of NaN probabilities is a number like any other.
        for name in ("loss", "val_loss"):
            if not np.isfinite(figures[name]):
                raise TrainingError(
                    f"{name} is {figures[name]} after epoch {epoch + 1}, expected a finite number: "
                    f"lower --learning-rate ({self.kept()})"
                )
        value = figures[self.monitor]
        higher = not self.monitor.endswith("loss")
        if self.best is None or (value > self.best if higher else value < self.best):
            # Not Keras' HDF5: on a full disk that library breaks its own state, and the process crashes later.
            with replacing(self.path) as temporary:
                np.savez(temporary, **{v.path: keras.ops.convert_to_numpy(v) for v in self.model.weights})
            # After the file: an interruption in between must not claim weights that are not there.
            self.best, self.epoch = value, epoch + 1

    def restore(self, model: keras.Model) -> None:
        """Give ``model``, another build of the same network, the weights of the best epoch."""
        with np.load(self.path) as stored:
            model.set_weights([stored[v.path] for v in model.weights])

    def kept(self) -> str:
        """What an error leaves behind, in words."""
        return f"the weights of epoch {self.epoch} are in {self.path}" if self.epoch else "nothing was kept"

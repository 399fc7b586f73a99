"""A training on disk after each epoch: its state, and the best weights so far.

One file, replaced whole: whenever a process is killed, what lies there belongs together.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unet_runtime.core.files import replacing
from unet_training.errors import TrainingError
from unet_training.recipes import Monitor

CHECKPOINT = "checkpoint.npz"
"""Name of the file in a training's folder."""

_BEST, _CURRENT, _OPTIMIZER, _STATE = "best/", "now/", "optimizer/", "about"
"""What the names of its arrays begin with; the last is JSON."""

Arrays = dict[str, np.ndarray]


class Checkpoint(keras.callbacks.Callback):
    """Keep history, weights, optimizer and the best epoch's weights in ``path`` (``.npz``).

    Args:
        path: replaced after each epoch; an earlier training's file stays until this one's first epoch ended.
        monitor: the metric that chooses the best epoch: ``val_loss`` (lowest) or ``val_mean_iou`` (highest).
        identity: what makes the training what it is, as JSON takes it; only a checkpoint of the same is resumed.
        averages: puts the weights' moving averages in the model's place for a validation; then they are kept as best.
        defaults: values in ``identity`` that hold for a checkpoint written before there was such a setting.

    Raises:
        TrainingError: a loss is no longer a finite number.
        OutputError: the file cannot be written.
    """

    def __init__(
        self,
        path: Path,
        monitor: Monitor,
        identity: Mapping[str, Any],
        averages: keras.callbacks.SwapEMAWeights | None = None,
        defaults: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.path = path
        self.monitor = monitor
        self._averages = averages
        self._defaults = dict(defaults or {})
        self._identity: dict[str, Any] = json.loads(json.dumps(identity))  # tuples to lists, as they come back
        self.history: dict[str, list[float]] = {}
        """One value per epoch for each name."""
        self.epoch = 0
        """Number of the best epoch, from 1; 0 before the first one ended."""
        self.best: float | None = None
        """The monitored metric of that epoch."""
        self._best_weights: Arrays = {}

    @property
    def epochs(self) -> int:
        """Epochs done."""
        return len(self.history.get("loss", ()))

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """Callbacks for ``fit``: the averages' first, with which a validation begins."""
        return [self] if self._averages is None else [self._averages, self]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        values = dict(logs or {})
        # The losses whatever is monitored: the mean IoU of NaN probabilities is a number like any other.
        for name in ("loss", "val_loss"):
            if not np.isfinite(values[name]):
                raise TrainingError(
                    f"{name} is {values[name]} after epoch {epoch + 1}, expected a finite number: "
                    f"lower --learning-rate ({self.recovery_hint()})"
                )
        state: dict[str, Any] = {"best": self.best, "epoch": self.epoch}
        weights = self._best_weights
        if self._is_best(float(values[self.monitor])):
            state = {"best": float(values[self.monitor]), "epoch": epoch + 1}
            with self._validated_weights():
                weights = _values(_BEST, self.model.weights)
        history = {name: [*self.history.get(name, ()), float(value)] for name, value in values.items()}
        state |= {"identity": self._identity, "history": history}
        arrays = {_STATE: np.array(json.dumps(state))} | weights | _values(_CURRENT, self.model.variables)
        for number, variable in enumerate(self.model.optimizer.variables):  # their names are not unique
            arrays[f"{_OPTIMIZER}{number:05}"] = _value(variable)
        # Not Keras' HDF5: on a full disk h5py breaks its own state, and the process crashes later
        # (https://github.com/h5py/h5py/issues/914).
        with replacing(self.path, "choose another --output, or make room") as file:
            np.savez(file, allow_pickle=False, **arrays)
        # After the file: an interruption in between must not claim what is not there.
        self._adopt(state, weights)

    def _is_best(self, value: float) -> bool:
        if self.best is None:
            return True
        return value < self.best if self.monitor.endswith("loss") else value > self.best

    def _adopt(self, state: Mapping[str, Any], best_weights: Arrays) -> None:
        self.history = state["history"]
        self.best = state["best"]
        self.epoch = state["epoch"]
        self._best_weights = best_weights

    @contextmanager
    def _validated_weights(self) -> Iterator[None]:
        """The averages in the model's place, as Keras' callback puts them there for a validation."""
        if self._averages is None:
            yield
            return
        self._averages.on_test_begin()
        try:
            yield
        finally:
            self._averages.on_test_end()

    def resume(self, model: keras.Model) -> bool:
        """Bring ``model``, compiled and of the same recipe, to where the checkpoint is; False where there is none.

        Raises:
            TrainingError: the file is damaged, or of another training.
        """
        if not self.path.exists():
            return False
        state, arrays = self._read()
        self._compare(state["identity"])
        model.optimizer.build(model.trainable_variables)
        for variable in model.variables:
            variable.assign(arrays[_CURRENT + variable.path])
        for number, variable in enumerate(model.optimizer.variables):
            variable.assign(arrays[f"{_OPTIMIZER}{number:05}"])
        self._adopt(state, {name: array for name, array in arrays.items() if name.startswith(_BEST)})
        return True

    def _read(self) -> tuple[dict[str, Any], Arrays]:
        try:
            # Opened here: np.load leaves a damaged file open.
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = dict(stored)
            return json.loads(str(arrays.pop(_STATE))), arrays
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise TrainingError(
                f"{self.path}: damaged ({error}): nothing can be resumed from it; delete it, or train without --resume"
            ) from error

    def _compare(self, found: Mapping[str, Any]) -> None:
        found = self._defaults | dict(found)
        differences = []
        for name, value in self._identity.items():
            if found.get(name) != value:
                differences.append(f"{name} {found.get(name)!r} there, {value!r} here")
        if differences:
            raise TrainingError(
                f"{self.path} is of another training ({'; '.join(differences)}): give --resume the command that it was "
                "started with, or another --output"
            )

    def restore(self, model: keras.Model) -> None:
        """Give ``model``, another build of the same network, the weights of the best epoch."""
        model.set_weights([self._best_weights[_BEST + variable.path] for variable in model.weights])

    def recovery_hint(self) -> str:
        """What an error leaves behind, in words."""
        if not self.epoch:
            return "nothing was kept"
        return f"the weights of epoch {self.epoch} and all that --resume needs are in {self.path}"


def _value(variable: keras.Variable) -> np.ndarray:
    # Copied: the CPU's arrays may be views of memory that the next step writes to.
    return np.array(keras.ops.convert_to_numpy(variable))


def _values(prefix: str, variables: Sequence[keras.Variable]) -> Arrays:
    return {prefix + variable.path: _value(variable) for variable in variables}

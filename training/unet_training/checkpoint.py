"""A training on disk after each epoch: where it is, and the best weights so far.

One file, replaced whole: whenever a process is killed, what lies there belongs together.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np

from unet_training.errors import TrainingError
from unet_training.files import replacing

CHECKPOINT = "checkpoint.npz"
"""Name of the file in a training's folder."""

_BEST, _NOW, _OPTIMIZER, _ABOUT = "best/", "now/", "optimizer/", "about"


class Checkpoint(keras.callbacks.Callback):
    """Keep history, weights, optimizer and the best epoch's weights in ``path`` (``.npz``).

    Args:
        path: replaced after each epoch; an earlier training's file stays until this one's first epoch ended.
        monitor: the figure that chooses the best epoch: ``val_loss`` (lowest) or ``val_mean_iou`` (highest).
        identity: what makes the training what it is, as JSON takes it; a checkpoint of another one is not gone on with.
        averages: where given, the weights' moving averages are what is best: they are what was validated.
        defaults: of names in ``identity`` that a checkpoint may lack, as it is older than they are.

    Raises:
        TrainingError: a loss is no longer a finite number.
        OutputError: the file cannot be written.
    """

    def __init__(
        self, path: Path, monitor: str, identity: Mapping[str, Any],
        averages: keras.callbacks.SwapEMAWeights | None = None, defaults: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._defaults = dict(defaults or {})
        self.path, self.monitor, self._averages = path, monitor, averages
        self._identity: dict[str, Any] = json.loads(json.dumps(identity))  # tuples to lists, as they come back
        self.history: dict[str, list[float]] = {}
        """One figure an epoch for each name."""
        self.epoch = 0
        """Number of the best epoch, from 1; 0 before the first one ended."""
        self.best: float | None = None
        """The monitored figure of that epoch."""
        self._best_weights: dict[str, np.ndarray] = {}

    @property
    def epochs(self) -> int:
        """Epochs done."""
        return len(self.history.get("loss", ()))

    def callbacks(self) -> list[keras.callbacks.Callback]:
        """For ``fit``: the averages' first, which a validation begins with."""
        return [self] if self._averages is None else [self._averages, self]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        figures = {name: float(value) for name, value in (logs or {}).items()}
        # The losses whatever is monitored: the mean IoU of NaN probabilities is a number like any other.
        for name in ("loss", "val_loss"):
            if not np.isfinite(figures[name]):
                raise TrainingError(
                    f"{name} is {figures[name]} after epoch {epoch + 1}, expected a finite number: "
                    f"lower --learning-rate ({self.kept()})"
                )
        value = figures[self.monitor]
        higher = not self.monitor.endswith("loss")
        best, chosen, weights = self.best, self.epoch, self._best_weights
        if best is None or (value > best if higher else value < best):
            with self._validated_weights():
                best, chosen, weights = value, epoch + 1, _values(self.model.weights)
        history = {name: [*self.history.get(name, ()), figure] for name, figure in figures.items()}
        self._write(history, best, chosen, weights)
        # After the file: an interruption in between must not claim what is not there.
        self.history, self.best, self.epoch, self._best_weights = history, best, chosen, weights

    def _write(
        self, history: dict[str, list[float]], best: float | None, epoch: int, weights: Mapping[str, np.ndarray]
    ) -> None:
        about = {"identity": self._identity, "history": history, "best": best, "epoch": epoch}
        arrays = {
            _ABOUT: np.array(json.dumps(about)),
            **_prefixed(_BEST, weights),
            **_prefixed(_NOW, _values(self.model.variables)),
            **_prefixed(_OPTIMIZER, _numbered(self.model.optimizer.variables)),
        }
        # Not Keras' HDF5: on a full disk that library breaks its own state, and the process crashes later.
        with replacing(self.path) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)

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
        about, arrays = self._read()
        self._compare(about["identity"])
        model.optimizer.build(model.trainable_variables)
        for variable in model.variables:
            variable.assign(arrays[_NOW + variable.path])
        for name, variable in _named(model.optimizer.variables).items():
            variable.assign(arrays[_OPTIMIZER + name])
        self.history, self.best, self.epoch = about["history"], about["best"], about["epoch"]
        self._best_weights = {name.removeprefix(_BEST): a for name, a in arrays.items() if name.startswith(_BEST)}
        return True

    def _read(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        try:
            # Opened here: np.load leaves a damaged file open.
            with self.path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            return json.loads(str(arrays.pop(_ABOUT))), arrays
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise TrainingError(
                f"{self.path}: damaged ({error}): nothing can be resumed from it; delete it, or train without --resume"
            ) from error

    def _compare(self, found: Mapping[str, Any]) -> None:
        found = {**self._defaults, **found}
        differences = [
            f"{name} {found.get(name)!r} there, {value!r} here"
            for name, value in self._identity.items()
            if found.get(name) != value
        ]
        if differences:
            raise TrainingError(
                f"{self.path} is of another training ({'; '.join(differences)}): give --resume the command that it was "
                "started with, or another --output"
            )

    def restore(self, model: keras.Model) -> None:
        """Give ``model``, another build of the same network, the weights of the best epoch."""
        model.set_weights([self._best_weights[variable.path] for variable in model.weights])

    def kept(self) -> str:
        """What an error leaves behind, in words."""
        if not self.epoch:
            return "nothing was kept"
        return f"the weights of epoch {self.epoch} and all that --resume needs are in {self.path}"


def _values(variables: list[keras.Variable]) -> dict[str, np.ndarray]:
    # Copied: the CPU's arrays may be views of memory that the next step writes to.
    return {variable.path: np.array(keras.ops.convert_to_numpy(variable)) for variable in variables}


def _named(variables: list[keras.Variable]) -> dict[str, keras.Variable]:
    """By number: the optimizer's variables carry no names that are theirs alone."""
    return {f"{number:05}": variable for number, variable in enumerate(variables)}


def _numbered(variables: list[keras.Variable]) -> dict[str, np.ndarray]:
    return {name: np.array(keras.ops.convert_to_numpy(variable)) for name, variable in _named(variables).items()}


def _prefixed(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {prefix + name: array for name, array in arrays.items()}

"""A training on disk after each epoch: its state, and the best weights so far.

One file, replaced whole: whenever a process is killed, what lies there belongs together. It ends in its SHA-256, so
damage is found, and the file of the epoch before is kept beside it.
"""

from __future__ import annotations

import hashlib
import json
import operator
import os
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import keras
import numpy as np

from unet_runtime.core.files import replacing, temporary_sibling
from unet_runtime.core.text import one_line
from unet_runtime.io.stamps import mark
from unet_training.errors import TrainingError
from unet_training.files import COMMAND
from unet_training.recipes import Monitor

CHECKPOINT = "checkpoint.npz"
"""Name of the file in a training's folder."""

PREVIOUS = "checkpoint.previous.npz"
"""Name of the one before it."""

_DIGEST_LENGTH = 64

_BEST, _CURRENT, _OPTIMIZER, _STATE = "best/", "now/", "optimizer/", "about"
"""What the names of its arrays begin with; the last is JSON."""

_MAY_CHANGE = ("epochs", "name", "weight_bits")
"""Settings that may be others when a training is resumed: how long it is, what its model is called, how it is saved."""

Arrays = dict[str, np.ndarray]


class Checkpoint(keras.callbacks.Callback):
    """Keep history, weights, optimizer and the best epoch's weights in ``path`` (``.npz``).

    Args:
        path: replaced after each epoch; an earlier training's file stays until this one's first epoch ended.
        monitor: as ``Recipe.monitor``.
        identity: what makes the training what it is, as JSON takes it; only a checkpoint of the same is resumed.
        averages: puts the weights' moving averages in the model's place for a validation; then they are kept as best.
        defaults: values in ``identity`` that hold for a checkpoint written before there was such a setting.
        writes: whether this process writes the file: one of those that train together does.

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
        *,
        writes: bool = True,
    ) -> None:
        super().__init__()
        self.path = path
        self.monitor = monitor
        self._averages = averages
        self._writes = writes
        self._defaults = dict(defaults or {})
        self._identity: dict[str, Any] = json.loads(json.dumps(identity))  # tuples to lists, as they come back
        self.history: dict[str, list[float]] = {}
        """One value per epoch for each name."""
        self.epoch = 0
        """Number of the best epoch, from 1; 0 before the first one ended."""
        self.best: float | None = None
        """The monitored metric of that epoch."""
        self._best_weights: Arrays = {}
        self._found: Arrays = {}

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
        if self._writes:
            self._write(state, weights)
        # After the file: an interruption in between must not claim what is not there.
        self._adopt(state, weights)

    def _write(self, state: Mapping[str, Any], weights: Arrays) -> None:
        arrays = {_STATE: np.array(json.dumps(state))} | weights | _values(_CURRENT, self.model.variables)
        for number, variable in enumerate(self.model.optimizer.variables):  # their names are not unique
            arrays[f"{_OPTIMIZER}{number:05}"] = _value(variable)
        # Not Keras' HDF5: on a full disk h5py breaks its own state, and the process crashes later
        # (https://github.com/h5py/h5py/issues/914).
        self._keep_previous()
        with replacing(self.path, "choose another --output, or make room") as file:
            _write_arrays(file, arrays)

    def _keep_previous(self) -> None:
        """Give the file a second name, so that it stays when the next one takes its place."""
        previous = self.path.with_name(PREVIOUS)
        temporary = temporary_sibling(previous)
        with suppress(OSError):  # none yet, or a file system where a file has one name: then one file is kept
            os.link(self.path, temporary)
            os.replace(temporary, previous)

    def _is_best(self, value: float) -> bool:
        better = operator.lt if self.monitor == "val_loss" else operator.gt
        return self.best is None or better(value, self.best)

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

    def read(self) -> bool:
        """Read the file, for ``resume``; False where there is none.

        Raises:
            TrainingError: it is damaged, or of another training.
        """
        if not self.path.exists():
            return False
        state, self._found = self._read()
        self._compare(state["identity"])
        self._adopt(state, {name: array for name, array in self._found.items() if name.startswith(_BEST)})
        return True

    def resume(self, model: keras.Model) -> None:
        """Bring ``model``, compiled and of the same recipe, to where the file is that has been read.

        Raises:
            TrainingError: it is of another network.
        """
        arrays, self._found = self._found, {}
        model.optimizer.build(model.trainable_variables)
        try:
            for variable in model.variables:
                variable.assign(arrays[_CURRENT + variable.path])
            for number, variable in enumerate(model.optimizer.variables):
                variable.assign(arrays[f"{_OPTIMIZER}{number:05}"])
        except (KeyError, ValueError) as error:
            raise TrainingError(
                f"{self.path} is of another network ({one_line(error)}): give --resume the command that it was started "
                "with, or another --output"
            ) from error

    def _read(self) -> tuple[dict[str, Any], Arrays]:
        try:
            if not self.path.is_file():
                raise ValueError("no file")
            # Opened here: np.load leaves a damaged file open.
            with self.path.open("rb") as file:
                _verify(file)
                with np.load(file, allow_pickle=False) as stored:
                    arrays = dict(stored)
            state = json.loads(str(arrays.pop(_STATE)))
            if not isinstance(state, dict) or not {"identity", "history", "best", "epoch"} <= set(state):
                raise ValueError("it does not say of which training it is")
        except (OSError, ValueError, KeyError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
            raise TrainingError(f"{self.path}: damaged ({one_line(error)}): {self._remedy()}") from error
        return state, arrays

    def _remedy(self) -> str:
        previous = self.path.with_name(PREVIOUS)
        if previous.is_file():
            return f"the one of the epoch before is {previous}: rename it to {self.path.name}, and give --resume again"
        return "nothing can be resumed from it; delete it, or train without --resume"

    def _compare(self, found: Mapping[str, Any]) -> None:
        found = self._defaults | dict(found)
        differences = []
        for name, value in self._identity.items():
            if name not in _MAY_CHANGE and found.get(name) != value:
                differences.append(f"{name} {found.get(name)!r} there, {value!r} here")
        if differences:
            raise TrainingError(
                f"{self.path} is of another training ({'; '.join(differences)}): give --resume the command that it was "
                "started with, or another --output"
            )

    def restore(self, model: keras.Model) -> None:
        """Give ``model``, another build of the same network, the weights of the best epoch."""
        model.set_weights([self._best_weights[_BEST + variable.path] for variable in model.weights])

    def progress(self) -> str:
        """How far the training is, and of what: the same for all processes that train together."""
        return json.dumps([self.epochs, self.best, self._identity], sort_keys=True)

    def recovery_hint(self) -> str:
        """What an error leaves behind, in words."""
        if not self.epoch:
            return "nothing was kept"
        return f"the weights of epoch {self.epoch} and all that --resume needs are in {self.path}"


class _Digested:
    """A file whose last 64 bytes, written as zeros, become the SHA-256 of all before them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self._end = b""

    def write(self, content: Any) -> int:
        data = memoryview(content).cast("B")
        if len(data) < _DIGEST_LENGTH:
            data = memoryview(self._end + bytes(data))
            self._end = b""
        else:
            self._take(memoryview(self._end))
        self._take(data[:-_DIGEST_LENGTH])
        self._end = bytes(data[-_DIGEST_LENGTH:])
        return memoryview(content).nbytes

    def _take(self, data: memoryview) -> None:
        self._digest.update(data)
        self._file.write(data)

    def flush(self) -> None:
        """Do nothing yet: the end is not known."""

    def finish(self) -> None:
        """Write the digest."""
        self._file.write(self._digest.hexdigest().encode())


def _write_arrays(file: BinaryIO, arrays: Arrays) -> None:
    """As ``np.savez``, with stamp and digest as the zip's comment."""
    digested = _Digested(file)
    with zipfile.ZipFile(digested, "w") as archive:  # type: ignore[call-overload]  # writes on, seeks nowhere
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)
        archive.comment = mark(COMMAND) + bytes(_DIGEST_LENGTH)
    digested.finish()


def _verify(file: BinaryIO) -> None:
    """Compare a file with its digest; one of an earlier version has none, and the zip's own sums have to do."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _DIGEST_LENGTH))
    recorded = file.read()
    file.seek(0)
    if re.fullmatch(rb"[0-9a-f]{64}", recorded) is None:
        return
    digest = hashlib.sha256()
    rest = size - _DIGEST_LENGTH
    while rest > 0:
        content = file.read(min(rest, 1 << 20))
        if not content:
            break
        digest.update(content)
        rest -= len(content)
    file.seek(0)
    if digest.hexdigest().encode() != recorded:
        raise ValueError(f"its SHA-256 is {digest.hexdigest()[:12]}..., recorded is {recorded[:12].decode()}...")


def _value(variable: keras.Variable) -> np.ndarray:
    # Copied: the CPU's arrays may be views of memory that the next step writes to.
    return np.array(keras.ops.convert_to_numpy(variable))


def _values(prefix: str, variables: Sequence[keras.Variable]) -> Arrays:
    return {prefix + variable.path: _value(variable) for variable in variables}

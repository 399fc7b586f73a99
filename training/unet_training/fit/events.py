"""TensorBoard's files: each epoch's metrics, and example pictures.

Keras' own callback writes through TensorFlow, whichever backend trains (https://github.com/keras-team/keras/issues/19121).
The record writer of the tensorboard package serves all backends and needs no TensorFlow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from unet_runtime.core.install import missing
from unet_runtime.core.spec import ClassSpec
from unet_training.data.pairs import Labelled, class_colors, without_margin
from unet_training.files import writing
from unet_training.fit.progress import Progress

TRAIN, VALIDATION = "train", "validation"
_EXAMPLES = 4
"""Photos shown, spread evenly over the validation's."""

_VALIDATED = "val_"
"""Keras' mark of a validation's metrics."""


class EventFolder:
    """Event files of the two runs ``train`` and ``validation``, one file of each for every training.

    Args:
        folder: made if missing; trainings add to it. Values of one that began again replace the old ones.

    Raises:
        MissingDependencyError: the tensorboard package is not installed.
        OutputError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            raise missing("--tensorboard", "TensorBoard", "tensorboard", "unet-edge-training") from error
        self._event, self._summary, self._writer = event_pb2, summary_pb2, RecordWriter
        self._folder = folder
        self._name = f"events.out.tfevents.{time.time():.6f}.{os.getpid()}"  # the third word is what TensorBoard reads
        with writing(folder):
            for run in (TRAIN, VALIDATION):
                (folder / run).mkdir(parents=True, exist_ok=True)

    def add(
        self, run: str, step: int, scalars: Mapping[str, float], pictures: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """Add to the run ``TRAIN`` or ``VALIDATION`` what TensorBoard shows of ``step``, an epoch from 1: numbers
        and pictures, uint8 (h, w, 3) RGB in 0..255, by name.

        Raises:
            OutputError: the file cannot be written.
        """
        summary = self._summary.Summary()
        for tag, value in scalars.items():
            summary.value.add(tag=tag, simple_value=value)
        for tag, pixels in (pictures or {}).items():
            summary.value.add(tag=tag, image=self._image(pixels))
        events: list[dict[str, Any]] = [{"step": step, "summary": summary}]
        path = self._folder / run / self._name
        if not path.exists():
            # The start tells TensorBoard to forget an earlier training's values from this step on.
            start = self._event.SessionLog(status=self._event.SessionLog.START)
            events = [{"file_version": "brain.Event:2"}, {"step": step, "session_log": start}, *events]
        with writing(path), path.open("ab") as file:  # closed each time: read while the training goes on
            writer = self._writer(file)
            for event in events:
                writer.write(self._event.Event(wall_time=time.time(), **event).SerializeToString())

    def _image(self, pixels: np.ndarray) -> Any:
        encoded = BytesIO()
        Image.fromarray(pixels).save(encoded, "png")
        height, width, channels = pixels.shape
        return self._summary.Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=encoded.getvalue()
        )


class TensorBoard(keras.callbacks.Callback):
    """Writes each epoch's metrics, and a few of ``photos`` beside truth and prediction.

    Among the callbacks it belongs after one that puts averaged weights in the model's place for a validation: those
    make the predictions.

    Raises:
        OutputError: a file cannot be written.
    """

    def __init__(self, folder: EventFolder, photos: Labelled, progress: Progress, classes: Sequence[ClassSpec]) -> None:
        super().__init__()
        self._colors = class_colors(classes)
        self._folder = folder
        self._progress = progress
        chosen = np.unique(np.linspace(0, len(photos) - 1, _EXAMPLES).round().astype(int))
        self._names = [photos.names[index] for index in chosen]
        self._photos = photos.photos[chosen]  # (n, h, w, 3)
        self._truths = photos.truths[chosen]  # (n, h', w')
        self._margin = photos.margin
        self._pictures: dict[str, np.ndarray] = {}

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        # Here, not at the epoch's end: now the weights are those that are validated. Called, not predict(): that
        # would compile a graph of its own.
        probabilities = keras.ops.convert_to_numpy(self.model(self._photos, training=False))
        shown = without_margin(self._photos, self._margin)
        rows = np.concatenate(
            [shown, self._colors[self._truths], self._colors[probabilities.argmax(-1)]], axis=2
        )  # (n, h', 3w', 3)
        self._pictures = {}
        for name, row in zip(self._names, rows, strict=True):
            self._pictures[f"photo, truth, prediction/{name}"] = row

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        scalars: dict[str, dict[str, float]] = {TRAIN: {}, VALIDATION: {}}
        for name, value in (logs or {}).items():
            run = VALIDATION if name.startswith(_VALIDATED) else TRAIN
            scalars[run][name.removeprefix(_VALIDATED)] = value
        scalars[TRAIN]["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        scalars[TRAIN]["photos_per_second"] = self._progress.photos_per_second
        self._folder.add(TRAIN, epoch + 1, scalars[TRAIN])
        self._folder.add(VALIDATION, epoch + 1, scalars[VALIDATION], self._pictures)

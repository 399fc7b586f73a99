"""TensorBoard's files: each epoch's figures, and example pictures.

Keras' own callback writes through TensorFlow, whichever backend trains, and TensorFlow's writer comes from the
tensorboard package anyway. That package's record writer alone serves all backends, and needs no TensorFlow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from unet_runtime.core.errors import BackendError
from unet_training.data.pairs import Labelled, answered
from unet_training.files import writing

TRAIN, VALIDATION = "train", "validation"

_VALIDATED = "val_"
"""Keras' mark of a validation's figures."""


class EventFolder:
    """Event files of the two runs ``train`` and ``validation``, one file of each for every training.

    Args:
        folder: made if missing; trainings add to it. Figures of one that began again take the place of the old ones.

    Raises:
        BackendError: the tensorboard package is not installed.
        OutputError: the folder cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            raise BackendError(
                f'TensorBoard cannot be imported ({error}): pip install "unet-edge-training[tensorboard]", '
                "or train without --tensorboard"
            ) from error
        self._event, self._summary, self._writer = event_pb2, summary_pb2, RecordWriter
        name = f"events.out.tfevents.{time.time():.6f}.{os.getpid()}"  # the third word is what TensorBoard looks for
        self._paths = {run: folder / run / name for run in (TRAIN, VALIDATION)}
        with writing(folder):
            for path in self._paths.values():
                path.parent.mkdir(parents=True, exist_ok=True)

    def add(
        self, run: str, step: int, scalars: Mapping[str, float], pictures: Mapping[str, np.ndarray] | None = None
    ) -> None:
        """What TensorBoard shows of one step.

        Args:
            run: ``TRAIN`` or ``VALIDATION``.
            step: an epoch's number, from 1.
            scalars: by name.
            pictures: uint8 (h, w, 3) RGB in 0..255, by name.

        Raises:
            OutputError: the file cannot be written.
        """
        values = [self._summary.Summary.Value(tag=tag, simple_value=value) for tag, value in scalars.items()]
        values += [self._summary.Summary.Value(tag=tag, image=self._image(it)) for tag, it in (pictures or {}).items()]
        events = [{"step": step, "summary": self._summary.Summary(value=values)}]
        path = self._paths[run]
        if not path.exists():
            # The start tells TensorBoard to forget an earlier training's figures from this step on.
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
    """Writes each epoch's figures and a few validation photos beside truth and prediction. Among the callbacks it
    belongs after one that puts averaged weights in the model's place for a validation: those are shown.

    Args:
        folder: where to.
        examples: photos to show.
        colors: RGB of each class id.
        speed: photos per second of the epoch's training steps.

    Raises:
        OutputError: a file cannot be written.
    """

    def __init__(
        self,
        folder: EventFolder,
        examples: Labelled,
        colors: Sequence[tuple[int, int, int]],
        speed: Callable[[], float],
    ) -> None:
        super().__init__()
        self._folder, self._examples, self._speed = folder, examples, speed
        self._colors = np.array(colors, np.uint8)
        self._pictures: dict[str, np.ndarray] = {}

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        # Here, not at the epoch's end: now the weights are those that are validated. Called, not predict(): that
        # would compile a graph of its own.
        probabilities = keras.ops.convert_to_numpy(self.model(self._examples.photos, training=False))
        examples = self._examples
        photos = answered(examples.photos, examples.margin)
        shown = zip(examples.names, photos, examples.truths, probabilities.argmax(-1), strict=True)
        self._pictures = {
            f"photo, truth, prediction/{name}": np.concatenate(
                [photo, self._colors[truth], self._colors[mask]], axis=1
            )  # (h, 3 w, 3)
            for name, photo, truth, mask in shown
        }

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        figures = logs or {}
        train = {name: value for name, value in figures.items() if not name.startswith(_VALIDATED)}
        train["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        train["photos_per_second"] = self._speed()
        validation = {name[len(_VALIDATED) :]: v for name, v in figures.items() if name.startswith(_VALIDATED)}
        self._folder.add(TRAIN, epoch + 1, train)
        self._folder.add(VALIDATION, epoch + 1, validation, self._pictures)


def examples(photos: Labelled, count: int = 4) -> Labelled:
    """``count`` of them, or all if they are fewer, spread evenly."""
    chosen = np.unique(np.linspace(0, len(photos) - 1, count).round().astype(int))
    names = [photos.names[index] for index in chosen]
    return Labelled(names, photos.photos[chosen], photos.masks[chosen], [], photos.margin)

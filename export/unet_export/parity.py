"""The gate: run every artifact as a device will, beside the trained model, on photos it never saw.

An artifact that cannot be run here has failed: nothing is accepted unseen.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from unet_export.errors import ExportError
from unet_export.gate import Figures, Gate, ParityResult, judge
from unet_export.saved_model import INPUT_NAME, OUTPUT_NAME, SIGNATURE_NAME
from unet_runtime.artifact import read_artifact, read_saved_model_spec
from unet_runtime.backends import load
from unet_runtime.errors import BackendError, ModelFileError
from unet_runtime.labelled import LabelledPhoto, confusion, iou, model_labels, open_trimap
from unet_runtime.preprocess import model_input, open_photo
from unet_runtime.spec import ModelSpec

DEFAULT_COUNT = 128
MIN_COUNT = 64
"""Fewer do not tell half a point of IoU from chance."""

_BATCH = 8
"""Photos at a time: bounds memory whatever the number of photos."""

Images = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]
Run = Callable[[Images], Probabilities]
"""uint8 (n, h, w, 3), RGB in 0..255, NHWC -> float32 (n, h', w', classes)."""


@dataclass(frozen=True)
class Candidate:
    """An artifact to be proven."""

    format: str
    """``saved_model``, or the name of a runtime backend: ``onnx``, ``tflite``."""
    path: Path
    gate: Gate


def prove(
    reference: Run, candidates: Sequence[Candidate], photos: Sequence[LabelledPhoto], spec: ModelSpec
) -> list[ParityResult]:
    """Measure every candidate against ``reference`` on ``photos``.

    Args:
        reference: the trained model in float32.
        candidates: artifacts as a device would get them.
        photos: with their trimaps.
        spec: of the model.

    Returns:
        One result a candidate, in their order; a failed one is a result too.

    Raises:
        ImageError: a photo or trimap that cannot be read.
        ExportError: trimaps with other classes than the model.
    """
    runners = [_Runner(candidate, spec) for candidate in candidates]
    reference_tally = _Tally(len(spec.classes))
    for images, labels in _batches(photos, spec):
        expected = reference(images)
        reference_tally.add(expected, expected, labels)
        for runner in runners:
            runner.check(images, expected, labels)
    return [runner.result(reference_tally) for runner in runners]


class _Tally:
    """Running sums over batches."""

    def __init__(self, classes: int) -> None:
        self._confusion = np.zeros((classes, classes), np.int64)
        self._max_abs = np.float64(0)
        self._sum_abs = 0.0
        self._values = self._pixels = self._agreeing = 0

    def add(self, expected: Probabilities, actual: Probabilities, labels: Images) -> None:
        difference = np.abs(expected.astype(np.float64) - actual)  # (n, h, w, classes)
        self._max_abs = np.maximum(self._max_abs, difference.max())  # unlike max(), keeps NaN
        self._sum_abs += float(difference.sum())
        self._values += difference.size
        mask = actual.argmax(axis=-1).astype(np.uint8)  # (n, h, w)
        self._agreeing += int((mask == expected.argmax(axis=-1)).sum())
        self._pixels += mask.size
        self._confusion += confusion(labels, mask, len(self._confusion))

    def mean_iou(self) -> float:
        """Over the classes that the truth has: the same ones whatever the masks say."""
        present = self._confusion.sum(axis=1) > 0
        return float(iou(self._confusion)[present].mean())

    def figures(self, reference: _Tally) -> Figures:
        return Figures(
            max_abs=float(self._max_abs),
            mean_abs=self._sum_abs / self._values,
            agreement=self._agreeing / self._pixels,
            reference_mean_iou=reference.mean_iou(),
            mean_iou=self.mean_iou(),
        )


class _Runner:
    """One candidate: its engine, its sums, and what went wrong with it."""

    def __init__(self, candidate: Candidate, spec: ModelSpec) -> None:
        self._candidate = candidate
        self._tally = _Tally(len(spec.classes))
        self._engine = "none"
        self._run: Run | None = None
        self._problem = ""
        try:
            self._engine, self._run = _open(candidate)
        except (BackendError, ModelFileError) as error:
            self._problem = f"not checked: {error}"

    def check(self, images: Images, expected: Probabilities, labels: Images) -> None:
        if self._run is None:
            return
        try:
            actual = self._run(images)
        except BackendError as error:
            self._problem, self._run = f"not checked: {error}", None
            return
        if actual.shape != expected.shape:
            self._problem = f"not checked: output {actual.shape}, expected {expected.shape}"
            self._run = None
            return
        self._tally.add(expected, actual, labels)

    def result(self, reference: _Tally) -> ParityResult:
        candidate = self._candidate
        if self._problem:
            figures = Figures(math.nan, math.nan, math.nan, reference.mean_iou(), math.nan)
            failures: tuple[str, ...] = (self._problem,)
        else:
            figures = self._tally.figures(reference)
            failures = judge(figures, candidate.gate)
        size, sha256 = _identity(candidate.path)
        return ParityResult(
            candidate.format, candidate.path, self._engine, size, sha256, candidate.gate, figures, failures
        )


def _open(candidate: Candidate) -> tuple[str, Run]:
    """(engine, function) of an artifact, opened as a user would: the embedded digest is verified too."""
    if candidate.format == "saved_model":
        saved_model = _SavedModel(candidate.path)
        return saved_model.engine, saved_model.run
    backend = load(candidate.format, read_artifact(candidate.path), device="cpu")
    return backend.engine, backend.run


class _SavedModel:
    """A SavedModel in TensorFlow; holds the loaded object, without which its signature loses its variables."""

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf

        read_saved_model_spec(folder)
        self._tf = tf
        self._loaded = tf.saved_model.load(str(folder))
        self.engine = f"TensorFlow {tf.__version__}"

    def run(self, images: Images) -> Probabilities:
        serve = self._loaded.signatures[SIGNATURE_NAME]
        result: Probabilities = serve(**{INPUT_NAME: self._tf.constant(images)})[OUTPUT_NAME].numpy()
        return result


def _batches(photos: Sequence[LabelledPhoto], spec: ModelSpec) -> Iterator[tuple[Images, Images]]:
    """(images (n, h, w, 3), class ids (n, h', w')), n at most ``_BATCH``."""
    for start in range(0, len(photos), _BATCH):
        batch = photos[start : start + _BATCH]
        images = np.concatenate([model_input(open_photo(entry.photo), spec.input) for entry in batch])
        yield images, np.stack([_labels(entry, spec) for entry in batch])


def _labels(entry: LabelledPhoto, spec: ModelSpec) -> Images:
    """Class ids at the model's output size: (h', w')."""
    labels = open_trimap(entry.trimap)
    if labels.max() >= len(spec.classes):
        raise ExportError(
            f"{entry.trimap}: class {labels.max()}, but the model has {len(spec.classes)} classes "
            f"({', '.join(spec.class_names)}): the data is not what the model was trained on"
        )
    margin = spec.output.margin
    return model_labels(labels, spec.input)[margin : spec.input.height - margin, margin : spec.input.width - margin]


def _identity(path: Path) -> tuple[int, str]:
    """(bytes, SHA-256) of a file; of a SavedModel all its bytes, and the SHA-256 of its list of sums."""
    if path.is_dir():
        size = sum(entry.stat().st_size for entry in path.rglob("*") if entry.is_file())
        return size, hashlib.sha256((path / "assets.extra" / "SHA256SUMS").read_bytes()).hexdigest()
    content = path.read_bytes()
    return len(content), hashlib.sha256(content).hexdigest()

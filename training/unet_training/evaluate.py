"""Measure a model, trained or exported, on photos with their truth, as a device would see them.

Photos are read, predicted and forgotten batch by batch: memory does not grow with their number.
"""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image

from unet_runtime import engines
from unet_runtime.core import masks, tiling
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.cores import usable_cores
from unet_runtime.core.datasets import Part, Sample, check_split, evenly, open_for_model, read_split
from unet_runtime.core.errors import BackendError, ModelFileError, SourceError
from unet_runtime.core.geometry import grid_labels, model_input
from unet_runtime.core.spec import ModelSpec
from unet_runtime.engines.base import Backend
from unet_training import segmentation_metrics
from unet_training.data.pairs import Labelled, open_pair
from unet_training.errors import DatasetError, UnusableError
from unet_training.identity import BREEDS, breed_of
from unet_training.segmentation_metrics import Bin, Labels, Probabilities, SegmentationMetrics, Sums

logger = logging.getLogger(__name__)

SOURCES = "SOURCES.tsv"
"""Beside the photos, where there is one: name, tab, resolution class of each."""

_BATCH = 16
_LOG_EVERY = 512  # photos; a multiple of the batch

_Item = TypeVar("_Item")


class Model(NamedTuple):
    """A model file, loaded into an engine."""

    spec: ModelSpec
    backend: Backend

    def predict(self, images: Labels) -> Probabilities:
        """uint8 (n, h, w, 3) RGB in 0..255 -> float32 probabilities (n, h', w', classes).

        Raises:
            BackendError: the engine fails, or its output is not what the spec says.
        """
        output = self.spec.output
        expected = (len(images), output.height, output.width, len(self.spec.classes))
        probabilities = self.backend.run(images)
        if probabilities.shape != expected:
            raise BackendError(
                f"the model's output is {probabilities.shape}, its spec says {expected}: export it again"
            )
        if not np.isfinite(probabilities).all():
            raise BackendError(
                "the model's output has NaN or infinity, expected probabilities: train or export it again"
            )
        return masks.activated(probabilities, self.spec)


class MetricRow(NamedTuple):
    """One metric over all photos, for a table."""

    label: str
    value: float
    """At the model's size; NaN where there is nothing to measure."""
    own_size: float | None = None
    """At the photos' own size; None: not measured there."""
    of_class: bool = False
    """A single class's."""


@dataclass(frozen=True)
class Evaluation:
    """How good a model is on a part of its split."""

    model: str
    precision: str
    weights_sha256: str
    engine: str
    device: str
    split: str
    """``official``, ``article`` or ``random:SEED``: the model's own, which kept the test part out of its training."""
    part: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    """(height, width) of the model's output, pixels."""
    overall: SegmentationMetrics
    confusion: list[list[int]]
    """Pixels at the model's size: row = truth, column = prediction."""
    confusion_shares: list[list[float]]
    """The same as shares of each row; NaN in the row of a class that never occurs."""
    calibration_error: float
    """Expected calibration error of the confidences, 0..1."""
    calibration: list[Bin]
    whole: tuple[str, ...]
    """Foreground and neutral classes, which ``whole_pet_iou`` takes as one; empty where no class is neutral."""
    breeds: Mapping[str, SegmentationMetrics]
    """By breed, of the photos that are named as Oxford-IIIT Pet's are; empty without one."""
    resolutions: Mapping[str, SegmentationMetrics]
    """By the class that SOURCES.tsv gives a photo; empty without one."""
    problems: list[str]
    """Photos left out, and why."""

    def to_json(self) -> str:
        """Every metric; NaN, which JSON has not, is null."""
        values = json.loads(json.dumps(asdict(self)), parse_constant=lambda word: None)
        return json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False)

    def rows(self) -> list[MetricRow]:
        """The metrics over all photos, the most important first."""
        overall = self.overall
        rows = [MetricRow("mean IoU", overall.mean_iou, overall.own_size_mean_iou)]
        for name in self.classes:
            rows.append(MetricRow(f"{name} IoU", overall.iou[name], overall.own_size_iou[name], of_class=True))
        if self.whole:
            rows.append(MetricRow(f"{' + '.join(self.whole)} IoU", overall.whole_pet_iou))
        if not math.isnan(overall.boundary_f1):
            rows.append(MetricRow("boundary F1", overall.boundary_f1))
        return [
            *rows,
            MetricRow("pixel accuracy", overall.pixel_accuracy),
            MetricRow("loss", overall.loss),
            MetricRow("calibration error", self.calibration_error),
        ]


def load_model(path: Path, backend: str = "auto") -> Model:
    """Open a ``.keras`` file with Keras, any other with the runtime's engine ``backend``.

    Raises:
        ModelFileError: missing, damaged, without a spec or a known split, or refused by its engine.
        BackendError: the engine is not installed, or does not read such files.
    """
    artifact = read_artifact(path)
    if not artifact.spec.provenance.split:
        raise ModelFileError(f"{path}: its spec does not say which photos were held out: train it with unet-train")
    try:
        check_split(artifact.spec.provenance.split)
    except SourceError as error:
        raise ModelFileError(f"{path}: its spec names {error}: train it again") from error
    if path.suffix == ".keras" and backend == "auto":
        from unet_training import keras_backend  # seconds, and a framework, that an exported model does not need

        return Model(artifact.spec, keras_backend.KerasBackend(keras_backend.load_model(artifact)))
    name = engines.engine_for(path.suffix) if backend == "auto" else backend
    return Model(artifact.spec, engines.load(name, artifact))


def evaluate(model: Model, data: Path, *, part: Part = "test", count: int | None = None) -> Evaluation:
    """Measure ``model`` on photos of its own split.

    Args:
        model: as ``load_model`` opens it.
        data: a dataset's folder, of any layout.
        part: ``test``, which training never saw, or ``trainval``.
        count: photos, spread evenly over the part; None: all.

    Raises:
        SourceError: no such folder or list, or other classes than the model's.
        DatasetError: no photo can be used, or a malformed SOURCES.tsv.
        BackendError: the engine fails, or its output is not what the spec says.
    """
    spec = model.spec
    photos = read_split(open_for_model(data, spec), spec.provenance.split, part)
    photos = photos if count is None else evenly(photos, count)
    resolutions = _read_resolutions(data / SOURCES)
    problems: list[str] = []
    measured = list(_measured(model, photos, partial(_read, spec, problems)))
    if not measured:
        raise DatasetError(f"none of {len(photos)} photos can be used; the first: {min(problems)}")
    return _evaluation(model, part, measured, resolutions, sorted(problems))


def evaluate_decoded(model: Model, photos: Labelled, *, part: str) -> tuple[Evaluation, list[float]]:
    """Measure ``model`` on photos in memory, at the model's size alone: metrics at the photos' own size are NaN.

    Returns:
        The evaluation, which calls the photos ``part``, and each photo's mean IoU (NaN where it shows no class).

    Raises:
        BackendError: the engine fails, or its output is not what the spec says.
    """
    truths = photos.truths

    def read(index: int) -> _Measurable:
        return _Measurable(photos.names[index], photos.photos[index : index + 1], truths[index], None)

    measured = list(_measured(model, range(len(photos)), read))
    scores = [segmentation_metrics.summarize(sums, model.spec).mean_iou for _, sums in measured]
    return _evaluation(model, part, measured, {}, photos.problems), scores


def _evaluation(
    model: Model, part: str, measured: Sequence[tuple[str, Sums]], resolution_of: Mapping[str, str], problems: list[str]
) -> Evaluation:
    """The evaluation of photos of which name and sums are given."""
    spec = model.spec
    total = Sums.none(len(spec.classes))
    breeds: dict[str, Sums] = defaultdict(lambda: Sums.none(len(spec.classes)))
    resolutions: dict[str, Sums] = defaultdict(lambda: Sums.none(len(spec.classes)))
    for name, sums in measured:
        total += sums
        if breed_of(name) in BREEDS:
            breeds[breed_of(name)] += sums
        if name in resolution_of:
            resolutions[resolution_of[name]] += sums
    error, bins = segmentation_metrics.calibration(total.bins)
    with np.errstate(invalid="ignore"):  # 0 / 0: a class that never occurs
        shares = total.matrix / total.matrix.sum(axis=1, keepdims=True)
    return Evaluation(
        model=spec.name,
        precision=spec.precision,
        weights_sha256=spec.provenance.weights_sha256,
        engine=model.backend.engine,
        device=model.backend.device,
        split=spec.provenance.split,
        part=part,
        classes=spec.class_names,
        size=(spec.output.height, spec.output.width),
        overall=segmentation_metrics.summarize(total, spec),
        confusion=total.matrix.tolist(),
        confusion_shares=shares.tolist(),
        calibration_error=error,
        calibration=bins,
        whole=_whole(spec),
        breeds=_summarize_groups(breeds, spec),
        resolutions=_summarize_groups(resolutions, spec),
        problems=problems,
    )


class _Measurable(NamedTuple):
    name: str
    image: Labels
    """uint8 (1, h, w, 3), as the model is fed."""
    truth: Labels
    """Class ids (h', w') on the grid of the model's output."""
    own_truth: Labels | None
    """Class ids (H, W) at the photo's own size; None where that is not at hand."""
    photo: Image.Image | None = None
    """The whole photo, where ``image`` shows a part of it."""


def _measured(
    model: Model, items: Sequence[_Item], read: Callable[[_Item], _Measurable | None]
) -> Iterator[tuple[str, Sums]]:
    """Name and sums of each photo that ``read`` can read, in order."""

    def measure_one(sample: _Measurable, probabilities: Probabilities, own_mask: Labels | None) -> tuple[str, Sums]:
        sums = segmentation_metrics.measure(probabilities, sample.truth, sample.own_truth, model.spec, own_mask)
        return sample.name, sums

    with ThreadPoolExecutor(usable_cores()) as pool:
        for start in range(0, len(items), _BATCH):
            if start and start % _LOG_EVERY == 0:
                logger.info("%d of %d photos", start, len(items))
            samples = list(filter(None, pool.map(read, items[start : start + _BATCH])))
            if samples:
                outputs = model.predict(np.concatenate([sample.image for sample in samples]))
                own_masks = [_tiled(model, sample.photo) for sample in samples]
                yield from pool.map(measure_one, samples, outputs, own_masks)


def _tiled(model: Model, photo: Image.Image | None) -> Labels | None:
    """Class ids (H, W) as the runtime finds them in a photo that it covers with tiles."""
    return None if photo is None else tiling.segment(photo, model.spec, model.predict).mask


def _read(spec: ModelSpec, problems: list[str], item: Sample) -> _Measurable | None:
    """A photo and its truth; None where it cannot be used, with the reason added to ``problems``."""
    try:
        photo, labels = open_pair(item)
    except UnusableError as error:
        problems.append(str(error))
        return None
    truth = grid_labels(labels, spec)
    whole = photo if spec.input.fit == "crop" else None
    return _Measurable(item.name, model_input(photo, spec.input), truth, labels, whole)


def _read_resolutions(path: Path) -> dict[str, str]:
    """Photo's name -> resolution class; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}): repair it, or move it away") from error
    resolutions = {}
    for line in text.splitlines():
        name, tab, resolution = line.partition("\t")
        if tab and "\t" not in resolution:
            resolutions[name] = resolution
        elif line.strip():
            raise DatasetError(f"{path}: a line holds {line!r}, expected a photo's name, a tab, its resolution class")
    return resolutions


def _whole(spec: ModelSpec) -> tuple[str, ...]:
    neutral = spec.roles("neutral")
    return tuple(spec.class_names[index] for index in sorted(spec.roles("foreground") + neutral)) if neutral else ()


def _summarize_groups(groups: Mapping[str, Sums], spec: ModelSpec) -> dict[str, SegmentationMetrics]:
    return {name: segmentation_metrics.summarize(groups[name], spec) for name in sorted(groups)}

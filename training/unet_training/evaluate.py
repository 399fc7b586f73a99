"""Measure a model, trained or exported, on photos with their truth, as a device would see them.

Photos are read, answered and forgotten batch by batch: memory does not grow with their number.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from unet_runtime import engines
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets.oxford_pets import LabelledPhoto, Part, check_split, evenly, read_split
from unet_runtime.core.errors import BackendError, ModelFileError, SourceError
from unet_runtime.core.geometry import model_input, model_labels
from unet_runtime.core.spec import ModelSpec
from unet_runtime.engines.base import Backend
from unet_training.data.pairs import Labelled, open_pair
from unet_training.errors import DatasetError, UnusableError
from unet_training.figures import Bin, Figures, Labels, Probabilities, Sums, calibration, figures, measure

SOURCES = "SOURCES.tsv"
"""Beside the photos, where there is one: name, tab, resolution class of each."""

_BATCH = 16
_SAY_EVERY = 512  # photos; a multiple of the batch

Say = Callable[[str], None]


class Model(NamedTuple):
    """A model file, loaded into an engine."""

    spec: ModelSpec
    backend: Backend


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
    """(height, width) of the model's answer, pixels."""
    overall: Figures
    confusion: list[list[int]]
    """Pixels at the model's size: row = truth, column = mask."""
    confusion_shares: list[list[float]]
    """The same as shares of each row; NaN in the row of a class that never occurs."""
    calibration_error: float
    """Expected calibration error of the confidences, 0..1."""
    calibration: list[Bin]
    breeds: Mapping[str, Figures]
    """By a photo's name before its last underscore."""
    resolutions: Mapping[str, Figures]
    """By the class that SOURCES.tsv gives a photo; empty without one."""
    problems: list[str]
    """Photos left out, and why."""

    def to_json(self) -> str:
        """Every figure; NaN, which JSON has not, is null."""
        return json.dumps(_without_nan(asdict(self)), indent=1, ensure_ascii=False, allow_nan=False)


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

        return Model(artifact.spec, keras_backend.load(artifact))
    name = engines.engine_for(path.suffix) if backend == "auto" else backend
    return Model(artifact.spec, engines.load(name, artifact))


def evaluate(model: Model, data: Path, *, part: Part = "test", count: int | None = None, say: Say) -> Evaluation:
    """Measure ``model`` on photos of its own split.

    Args:
        model: as ``load_model`` opens it.
        data: folder in Oxford-IIIT Pet's layout.
        part: ``test``, which training never saw, or ``trainval``.
        count: photos, spread evenly over the part; None: all.
        say: receives a line of progress now and then.

    Raises:
        SourceError: no such folder or list.
        DatasetError: no photo can be used, other classes than the model's, or a malformed SOURCES.tsv.
        BackendError: the engine fails, or answers what the spec does not say.
    """
    spec = model.spec
    photos = read_split(data, spec.provenance.split, part)
    photos = photos if count is None else evenly(photos, count)
    resolutions = _resolutions(data / SOURCES)
    tally, problems = _Tally(spec), list[str]()
    for item, result in _results(model, photos, lambda item: _read(item, spec), say):
        if isinstance(result, str):
            problems.append(result)
        else:
            tally.add(item.name, result, resolutions.get(item.name))
    if not tally.total.photos:
        raise DatasetError(f"none of {len(photos)} photos can be used; the first: {problems[0]}")
    return tally.evaluation(model, part, problems)


def evaluate_decoded(model: Model, photos: Labelled, *, part: str, say: Say) -> tuple[Evaluation, list[float]]:
    """Measure ``model`` on photos in memory. Their truth at their own size is not at hand: those figures are NaN.

    Args:
        model: as ``load_model`` opens it.
        photos: fitted to the model's input; at least one.
        part: what the evaluation calls them.
        say: receives a line of progress now and then.

    Returns:
        The evaluation, and each photo's own mean IoU in the photos' order (NaN where it shows no class).

    Raises:
        BackendError: the engine fails, or answers what the spec does not say.
    """
    tally, scores = _Tally(model.spec), list[float]()

    def read(index: int) -> _Sample:
        return _Sample(photos.photos[index : index + 1], photos.truths[index], None)

    for index, result in _results(model, range(len(photos)), read, say):
        assert not isinstance(result, str)  # ``read`` gives samples alone
        tally.add(photos.names[index], result)
        scores.append(figures(result, model.spec).mean_iou)
    return tally.evaluation(model, part, photos.problems), scores


class _Tally:
    """Sums of photos, of all and by group, on their way to an ``Evaluation``."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self.total = Sums.none(len(spec.classes))
        self._breeds, self._resolutions = dict[str, Sums](), dict[str, Sums]()

    def add(self, name: str, sums: Sums, resolution: str | None = None) -> None:
        self.total += sums
        _add(self._breeds, name.rpartition("_")[0] or name, sums)
        if resolution is not None:
            _add(self._resolutions, resolution, sums)

    def evaluation(self, model: Model, part: str, problems: list[str]) -> Evaluation:
        spec, total = self._spec, self.total
        error, bins = calibration(total.bins)
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
            overall=figures(total, spec),
            confusion=total.matrix.tolist(),
            confusion_shares=shares.tolist(),
            calibration_error=error,
            calibration=bins,
            breeds=_figures(self._breeds, spec),
            resolutions=_figures(self._resolutions, spec),
            problems=problems,
        )


_Item = TypeVar("_Item")


def _results(
    model: Model, items: Sequence[_Item], read: Callable[[_Item], _Sample | str], say: Say
) -> Iterator[tuple[_Item, Sums | str]]:
    """Each photo in order with its sums, or with why it has none."""
    spec = model.spec
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(items), _BATCH):
            if start and start % _SAY_EVERY == 0:
                say(f"{start} of {len(items)} photos")
            batch = items[start : start + _BATCH]
            found = list(pool.map(read, batch))
            samples = [sample for sample in found if not isinstance(sample, str)]
            answers = iter(_answers(model, samples))
            sums = pool.map(
                lambda pair: measure(pair[1], pair[0].truth, pair[0].own_truth, spec),
                zip(samples, answers, strict=True),
            )
            for item, sample in zip(batch, found, strict=True):
                yield item, sample if isinstance(sample, str) else next(sums)


class _Sample(NamedTuple):
    image: Labels
    """uint8 (1, h, w, 3), as the model is fed."""
    truth: Labels
    """Class ids (h', w') on the grid of the model's answer."""
    own_truth: Labels | None
    """Class ids (H, W) at the photo's own size; None where that is not at hand."""


def _read(item: LabelledPhoto, spec: ModelSpec) -> _Sample | str:
    """A photo and its truth, or why it cannot be used."""
    try:
        photo, labels = open_pair(item)
    except UnusableError as error:
        return str(error)
    if labels.max() >= len(spec.classes):
        raise DatasetError(
            f"{item.trimap}: class {labels.max()}, but the model has {len(spec.classes)} classes "
            f"({', '.join(spec.class_names)}): the data is not what the model was trained on"
        )
    return _Sample(model_input(photo, spec.input), model_labels(labels, spec.input)[spec.input.valid], labels)


def _answers(model: Model, samples: Sequence[_Sample]) -> Probabilities:
    """float32 (n, h', w', classes)."""
    output = model.spec.output
    expected = (len(samples), output.height, output.width, len(model.spec.classes))
    if not samples:
        return np.empty(expected, np.float32)
    answers = model.backend.run(np.concatenate([sample.image for sample in samples]))
    if answers.shape != expected:
        raise BackendError(f"the model answers {answers.shape}, its spec says {expected}: export it again")
    if not np.isfinite(answers).all():
        raise BackendError("the model answers NaN or infinity, expected probabilities: train or export it again")
    return answers


def _resolutions(path: Path) -> dict[str, str]:
    """Photo's name -> resolution class; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}): repair it, or move it away") from error
    rows = [line.split("\t") for line in text.splitlines() if line.strip()]
    for row in rows:
        if len(row) != 2:
            raise DatasetError(f"{path}: a line holds {row}, expected a photo's name, a tab, its resolution class")
    return dict(rows)


def _add(groups: dict[str, Sums], key: str, sums: Sums) -> None:
    groups[key] = groups[key] + sums if key in groups else sums


def _figures(groups: Mapping[str, Sums], spec: ModelSpec) -> dict[str, Figures]:
    return {key: figures(groups[key], spec) for key in sorted(groups)}


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value

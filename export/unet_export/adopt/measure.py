"""A described model measured on photos with masks, beside the same model fed otherwise: a wrong mean shows at once."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from unet_export.adopt.describe import CAFFE_MEAN, IMAGENET
from unet_export.errors import ExportError
from unet_export.gate.gate import masks_of
from unet_export.photos import MIN_PARITY, inputs, labelled
from unet_runtime.core.datasets import evenly, open_for_model, read_split
from unet_runtime.core.errors import GATE
from unet_runtime.core.geometry import grid_labels
from unet_runtime.core.metrics import confusion, iou, mean_iou
from unet_runtime.core.spec import BYTES, InputSpec, ModelSpec
from unet_runtime.core.text import table

logger = logging.getLogger(__name__)

COUNT = MIN_PARITY
"""Photos that are measured."""

_TRIED = 24
"""Photos on which other preprocessing is tried."""

_BETTER = 0.02
"""Gain of mean IoU from which another preprocessing is no chance."""

_MOST_ORDERED = 6
"""Classes of which every order is tried."""

Infer = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
Open = Callable[[ModelSpec], Infer]
"""A spec of the model -> its ``Segmenter.infer`` under that spec."""


class WrongDescriptionError(ExportError):
    """The description is not the model's: another one is better on the user's own photos."""

    exit_code = GATE


class Preprocessing(NamedTuple):
    """How pixels become values, and what it gave."""

    options: str
    """As options of the command."""
    mean_iou: float


@dataclass(frozen=True)
class Measurement:
    """What a model is worth on the user's photos."""

    photos: int
    iou: dict[str, float]
    mean_iou: float
    tried: tuple[Preprocessing, ...]
    """Other preprocessing on the first photos, the best one first."""
    same: float
    """Mean IoU of the description itself on those first photos."""

    def table(self) -> str:
        """For the terminal."""
        rows = [("class", "IoU"), *((name, f"{value:.4f}") for name, value in self.iou.items())]
        rows.append(("mean", f"{self.mean_iou:.4f}"))
        lines = [f"measured on {self.photos} photos:", table(rows, indent="  ")]
        if self.tried:
            best = self.tried[0]
            first = f"  as described {self.same:.4f} on the first of them"
            lines.append(f"{first}; next best {best.mean_iou:.4f} with {best.options}")
        return "\n".join(lines)


def measure(opened: Open, spec: ModelSpec, data: Path, *, tried: bool = True, count: int = COUNT) -> Measurement:
    """IoU of each class on photos of a dataset with the model's classes; and with other preprocessing.

    Args:
        opened: makes the model run under a spec.
        spec: as described.
        data: the dataset's folder; where the spec names a split, its test part.
        tried: whether other preprocessing is tried.
        count: photos.

    Raises:
        SourceError: the folder is no dataset of these classes.
        ImageError: a photo or mask cannot be read.
    """
    photos, truths = _samples(spec, data, count)
    matrix = _confusion(opened(spec), photos, truths, spec)
    scores = iou(matrix)
    found: list[Preprocessing] = []
    first, labels = photos[:_TRIED], truths[:_TRIED]
    same = mean_iou(iou(_confusion(opened(spec), first, labels, spec)))
    if tried:
        for other in alternatives(spec.input):
            changed = replace(spec, input=other)
            value = mean_iou(iou(_confusion(opened(changed), first, labels, changed)))
            found.append(Preprocessing(options_of(other), value))
        found += _other_orders(matrix, spec)
    found.sort(key=lambda entry: -entry.mean_iou)
    by_class = dict(zip(spec.class_names, scores.tolist(), strict=True))
    return Measurement(len(photos), by_class, mean_iou(scores), tuple(found), same)


def check(measurement: Measurement) -> None:
    """Refuse a description that another one beats.

    Raises:
        WrongDescriptionError: it names the options that are better.
    """
    if not measurement.tried:
        return
    best = measurement.tried[0]
    if best.mean_iou > measurement.same + _BETTER:
        near = [entry.options for entry in measurement.tried if entry.mean_iou > best.mean_iou - _BETTER]
        options = " (or ".join(near[:2]) + ")" * (len(near) > 1)
        raise WrongDescriptionError(
            f"as described the mean IoU is {measurement.same:.3f}, with {options} it is {best.mean_iou:.3f}: give "
            "these options, or --no-alternatives where yours are right"
        )


def alternatives(source: InputSpec) -> Iterator[InputSpec]:
    """Other usual ways of preprocessing for the same input tensor; never the one that is given."""
    orders = ("grey",) if source.channels == "grey" else ("rgb", "bgr")
    ranges = [(BYTES, (), ()), ((0.0, 1.0), (), ()), ((-1.0, 1.0), (), ()), ((0.0, 1.0), *IMAGENET)]
    ranges.append((BYTES, CAFFE_MEAN, ()))
    ranges.append((source.range, source.mean, source.std))
    if source.dtype == "uint8" and source.range == BYTES:  # a photo's bytes: only their order is open
        ranges = ranges[-1:]
    made = [source]
    for (low_high, mean, std), order in itertools.product(ranges, orders):
        if order == "grey" and len(mean) == 3:
            continue
        is_reversed = order == "rgb" if mean == CAFFE_MEAN else order == "bgr"
        if mean == source.mean:  # as given for the order that is given
            is_reversed = order != source.channels
        step = -1 if is_reversed else 1
        other = replace(source, range=low_high, mean=mean[::step], std=std[::step], channels=order)  # type: ignore[arg-type]
        if other not in made:
            made.append(other)
            yield other


def options_of(source: InputSpec) -> str:
    """Preprocessing as it is typed."""
    low, high = source.range
    words = [f"--channels {source.channels}", f"--range {low:g}..{high:g}"]
    for name in ("mean", "std"):
        values = getattr(source, name)
        if values:
            words.append(f"--{name} {','.join(f'{value:g}' for value in values)}")
    return " ".join(words)


def _other_orders(matrix: npt.NDArray[np.int64], spec: ModelSpec) -> list[Preprocessing]:
    """The best other order of the classes, where there are few."""
    count = len(matrix)
    if count > _MOST_ORDERED:
        return []
    names, best = spec.class_names, None
    for order in itertools.permutations(range(count)):
        if order == tuple(range(count)):
            continue
        value = mean_iou(iou(matrix[:, list(order)]))
        if best is None or value > best[0]:
            best = (value, order)
    if best is None:
        return []
    renamed = [""] * count
    for position, channel in enumerate(best[1]):
        renamed[channel] = names[position]
    return [Preprocessing(f"--classes {','.join(renamed)}", best[0])]


def _samples(spec: ModelSpec, data: Path, count: int) -> tuple[npt.NDArray[np.uint8], list[npt.NDArray[np.uint8]]]:
    dataset = open_for_model(data, spec)
    split = spec.provenance.split
    samples = read_split(dataset, split, "test") if split else dataset.samples
    chosen = labelled(evenly(samples, count))
    truths = []
    for photo in chosen:
        assert photo.labels is not None
        truths.append(grid_labels(photo.labels.read(), spec))
    return inputs(chosen, spec.input), truths


def _confusion(
    infer: Infer, photos: npt.NDArray[np.uint8], truths: Sequence[npt.NDArray[np.uint8]], spec: ModelSpec
) -> npt.NDArray[np.int64]:
    total = np.zeros((len(spec.classes), len(spec.classes)), np.int64)
    for image, truth in zip(photos, truths, strict=True):
        total += confusion([truth], [masks_of(infer(image[np.newaxis]))[0]], len(spec.classes))
    return total


def suggested(opened: Open, spec: ModelSpec, data: Path) -> str:
    """What of all usual preprocessing is best on the photos, in words, for what nobody has said."""
    photos, truths = _samples(spec, data, _TRIED)
    found = []
    for other in [spec.input, *alternatives(spec.input)]:
        changed = replace(spec, input=other)
        found.append(
            Preprocessing(options_of(other), mean_iou(iou(_confusion(opened(changed), photos, truths, changed))))
        )
    found.sort(key=lambda entry: -entry.mean_iou)
    best, second = found[:2]
    return (
        f"measured on {len(photos)} photos, mean IoU {best.mean_iou:.3f} with {best.options}; next "
        f"{second.mean_iou:.3f} with {second.options}"
    )

"""An Evaluation as lines of text for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from unet_training.evaluate import Evaluation
from unet_training.figures import Figures

_SHOWN = 5
"""Breeds at each end."""


def lines(evaluation: Evaluation) -> Iterator[str]:
    """Overall figures, confusion matrix, worst and best breeds, resolution classes."""
    yield (
        f"{evaluation.model} {evaluation.precision} on {evaluation.engine}, {evaluation.device}: "
        f"{evaluation.overall.photos} {evaluation.part} photos of the {evaluation.split} split"
    )
    yield from _overall(evaluation)
    yield from _confusion(evaluation)
    yield from _breeds(evaluation)
    if evaluation.resolutions:
        yield from _groups("resolution", evaluation.resolutions, list(evaluation.resolutions))


class Row(NamedTuple):
    label: str
    value: float
    """At the model's size; NaN where there is nothing to measure."""
    own_size: float | None = None
    """At the photos' own size; None: of another kind than what is measured there."""


def overall(evaluation: Evaluation) -> list[Row]:
    """The figures over all photos, in the order of their weight; those of single classes have an indented label."""
    figures = evaluation.overall
    return [
        Row("mean IoU", figures.mean_iou, figures.own_size_mean_iou),
        *(Row(f"  {name} IoU", figures.iou[name], figures.own_size_iou[name]) for name in evaluation.classes),
        Row("pet + border IoU", figures.whole_pet_iou),
        Row("boundary F1", figures.boundary_f1),
        Row("pixel accuracy", figures.pixel_accuracy),
        Row("loss", figures.loss),
        Row("calibration error", evaluation.calibration_error),
    ]


def _overall(evaluation: Evaluation) -> Iterator[str]:
    height, width = evaluation.size
    yield from ("", f"{'':<20}{f'{width}x{height}':>10}{'own size':>10}")
    for label, value, own in overall(evaluation):
        yield f"{label:<20}{value:>10.4f}" + ("" if own is None else f"{own:>10.4f}")


def _confusion(evaluation: Evaluation) -> Iterator[str]:
    yield from ("", f"{'truth':<14}" + "".join(f"{name:>12}" for name in evaluation.classes) + "  taken for, %")
    for name, row in zip(evaluation.classes, evaluation.confusion_shares, strict=True):
        yield f"{name:<14}" + "".join(f"{100 * share:>12.2f}" for share in row)


def _breeds(evaluation: Evaluation) -> Iterator[str]:
    ordered = sorted(evaluation.breeds, key=lambda name: evaluation.breeds[name].mean_iou)
    if len(ordered) <= 2 * _SHOWN:
        yield from _groups("breed", evaluation.breeds, ordered)
        return
    yield from _groups(f"worst {_SHOWN} breeds", evaluation.breeds, ordered[:_SHOWN])
    yield from _groups(f"best {_SHOWN} breeds", evaluation.breeds, ordered[-_SHOWN:])


def _groups(title: str, groups: Mapping[str, Figures], names: Sequence[str]) -> Iterator[str]:
    head = ("photos", "mean IoU", "pet+border", "boundary F1", "own size")
    yield from ("", f"{title:<28}" + "".join(f"{word:>12}" for word in head))
    for name in names:
        figures = groups[name]
        values = (figures.mean_iou, figures.whole_pet_iou, figures.boundary_f1, figures.own_size_mean_iou)
        yield f"{name:<28}{figures.photos:>12}" + "".join(f"{value:>12.4f}" for value in values)

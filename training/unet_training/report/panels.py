"""Photos above their truth and the model's prediction: the best, the worst, and some at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unet_runtime.core.metrics import confusion, iou
from unet_runtime.core.spec import ClassSpec, ModelSpec
from unet_training.data.pairs import Labelled, class_colors, without_margin
from unet_training.evaluate import Model
from unet_training.report.canvas import Picture, new_figure, plain, save
from unet_training.segmentation_metrics import Labels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PHOTOS = 6
"""Photos per panel; more would be too small to see on a page."""

_NAME = 26
"""Letters of a photo's name that fit above it."""

_COLUMNS = 8
"""Classes in a line of the legend."""

_GAP = 0.04
"""Space between two photos, in widths of one."""


def choose(scores: Sequence[float], seed: int, count: int = _PHOTOS) -> dict[str, list[int]]:
    """Indices of the photos to show, at most ``count`` per panel, by their mean IoU; of NaN none is chosen.

    Returns:
        ``best`` (best first), ``worst`` (worst first) and ``random`` (in the photos' order). No photo is among the
        best and the worst, unless there is but one; the random ones may be among either.
    """
    known = np.flatnonzero(~np.isnan(scores))
    ordered = known[np.argsort(-np.asarray(scores)[known], kind="stable")]
    each = min(count, max(1, len(known) // 2))
    drawn = np.random.default_rng(seed).choice(len(known), min(count, len(known)), replace=False)
    return {
        "best": ordered[:each].tolist(),
        "worst": ordered[::-1][:each].tolist(),
        "random": np.sort(known[drawn]).tolist(),
    }


def draw(model: Model, photos: Labelled, scores: Sequence[float], chosen: Sequence[int], path: Path) -> Picture | None:
    """Draw one panel, PNG: a column with truth and prediction for each chosen photo; None where none is chosen.

    Args:
        model: predicts.
        photos, scores: fitted to the model's input, and the mean IoU of each.
        chosen: indices of the photos, from the left.
        path: the file.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    if not chosen:
        return None
    spec = model.spec
    images = photos.photos[list(chosen)]  # (n, h, w, 3)
    truths = photos.truths[list(chosen)]  # (n, h', w')
    predictions = model.backend.run(images).argmax(axis=-1).astype(np.uint8)  # (n, h', w')
    colors = class_colors(spec.classes)
    titles, notes, words = [], [], []
    for index, truth, prediction in zip(chosen, truths, predictions, strict=True):
        name = photos.names[index]
        titles.append(plain(name if len(name) <= _NAME else name[: _NAME - 1] + "…"))
        notes.append(_score(scores[index], truth, prediction, spec))
        words.append(f"{name} {scores[index]:.3f}")
    figure = new_figure(max(5.0, 2.1 * len(chosen)), 7.2)
    photo_axes, truth_axes, prediction_axes = figure.subplots(3, 1)
    _draw_row(photo_axes, "photo", without_margin(images, photos.margin), titles)
    _draw_row(truth_axes, "truth", colors[truths], [""] * len(chosen))
    _draw_row(prediction_axes, "prediction", colors[predictions], notes)
    for entry in _shown(spec, truths, predictions):
        photo_axes.bar(0, 0, color=np.divide(entry.color, 255), label=plain(entry.name))  # for the legend
    figure.legend(loc="outside lower center", ncols=min(len(spec.classes), _COLUMNS), frameon=False)
    caption = f"Mean IoU, from the left: {', '.join(words)}."
    return save(figure, path, "Photos above their truth and their prediction.", caption)


def _shown(spec: ModelSpec, truths: Labels, predictions: Labels) -> list[ClassSpec]:
    """The classes for the legend: all, or of many those that the pictures show."""
    if len(spec.classes) <= _COLUMNS:
        return list(spec.classes)
    present = np.union1d(truths, predictions)
    return [entry for index, entry in enumerate(spec.classes) if index in present]


def _draw_row(axes: Axes, label: str, images: Labels, notes: Sequence[str]) -> None:
    """RGB images (n, h, w, 3) side by side, each with a note above it."""
    # All in one pair of axes: one pair per image takes four times as long.
    height = (1 - _GAP) * images.shape[1] / images.shape[2]
    for column, (image, note) in enumerate(zip(images, notes, strict=True)):
        axes.imshow(image, extent=(column, column + 1 - _GAP, 0, height))
        axes.text(column + (1 - _GAP) / 2, height + 0.03, note, ha="center", va="bottom", fontsize=9)
    axes.text(-0.06, height / 2, label, ha="right", va="center", rotation=90, fontsize=11)
    axes.set(xlim=(0, len(images) - _GAP), ylim=(0, height))
    axes.axis("off")


def _score(score: float, truth: Labels, mask: Labels, spec: ModelSpec) -> str:
    """The photo's mean IoU and, of the classes that are no background, the IoU of the first that the photo shows."""
    scores = iou(confusion([truth], [mask], len(spec.classes)))
    words = f"mean IoU {score:.3f}"
    for entry, value in zip(spec.classes, scores.tolist(), strict=True):
        if entry.role != "background" and not math.isnan(value):
            return f"{words}\n{plain(entry.name)} {value:.3f}"
    return words

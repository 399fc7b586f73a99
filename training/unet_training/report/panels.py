"""Photos beside their truth and what the model makes of them: the best, the worst, and some at random."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from unet_runtime.core.metrics import confusion, iou
from unet_runtime.core.spec import ModelSpec
from unet_training.data.pairs import Labelled, without_margin
from unet_training.evaluate import Model
from unet_training.figures import Labels
from unet_training.report import plots
from unet_training.report.page import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

_PHOTOS = 6
"""A panel; more would be too small to see on a page."""

_NAME = 26
"""Letters of a photo's name that fit above it."""

_GAP = 0.04
"""Between two photos, in widths of one."""

_NO_TRUTH = (255, 255, 255)
"""Colour of pixels outside a letterboxed photo."""


class _Shown(NamedTuple):
    name: str
    photo: Labels
    """uint8 (h, w, 3), RGB."""
    truth: Labels
    """Class ids (h', w')."""
    mask: Labels
    """Class ids (h', w'), as predicted."""
    score: float
    """Mean IoU of the photo."""


def choose(scores: Sequence[float], seed: int, count: int = _PHOTOS) -> dict[str, list[int]]:
    """Indices of the photos to show, at most ``count`` a panel.

    Args:
        scores: each photo's mean IoU; NaN is neither good nor bad, and not chosen.
        seed: of the random ones.
        count: photos a panel.

    Returns:
        ``best`` (best first), ``worst`` (worst first) and ``random`` (in the photos' order). None is among the best
        and the worst, unless there is but one; the random ones may be among either.
    """
    known = [index for index, score in enumerate(scores) if not math.isnan(score)]
    ordered = sorted(known, key=lambda index: -scores[index])
    each = min(count, max(1, len(ordered) // 2))
    drawn = np.random.default_rng(seed).choice(len(known), min(count, len(known)), replace=False)
    return {
        "best": ordered[:each],
        "worst": ordered[::-1][:each],
        "random": sorted(known[index] for index in drawn.tolist()),
    }


def pictures(
    model: Model, photos: Labelled, scores: Sequence[float], seed: int, paths: Mapping[str, Path]
) -> dict[str, Picture | None]:
    """Draw the panels ``best``, ``worst`` and ``random``.

    Args:
        model: predicts.
        photos: fitted to the model's input; scores: mean IoU of each.
        seed: of the random ones.
        paths: of the files, by panel.

    Returns:
        Each panel by its name; None for one without photos.

    Raises:
        OutputError: a picture cannot be written.
    """
    result: dict[str, Picture | None] = {}
    for name, chosen in choose(scores, seed).items():
        shown = _shown(model, photos, scores, chosen) if chosen else []
        result[name] = _picture(shown, model.spec, paths[name]) if shown else None
    return result


def _shown(model: Model, photos: Labelled, scores: Sequence[float], chosen: Sequence[int]) -> list[_Shown]:
    images = photos.photos[list(chosen)]  # (n, h, w, 3)
    masks = model.backend.run(images).argmax(axis=-1).astype(np.uint8)  # (n, h', w')
    return [
        _Shown(photos.names[index], image, photos.truths[index], mask, scores[index])
        for index, image, mask in zip(chosen, without_margin(images, photos.margin), masks, strict=True)
    ]


def _picture(shown: Sequence[_Shown], spec: ModelSpec, path: Path) -> Picture:
    figure = plots.figure(max(5.0, 2.1 * len(shown)), 7.2)
    colors = np.full((256, 3), _NO_TRUTH, np.uint8)  # by class id, IGNORED included
    colors[: len(spec.classes)] = [entry.color for entry in spec.classes]
    rows = {
        "photo": [(one.photo, plots.plain(_short(one.name))) for one in shown],
        "truth": [(colors[one.truth], "") for one in shown],
        "prediction": [(colors[one.mask], _score(one, spec)) for one in shown],
    }
    for axes, (label, pictures) in zip(figure.subplots(3, 1), rows.items(), strict=True):
        _row(axes, label, pictures)
    figure.legend(handles=_legend(spec), loc="outside lower center", ncols=len(spec.classes), frameon=False)
    plots.save(figure, path)
    listed = ", ".join(f"{one.name} {one.score:.3f}" for one in shown)
    return Picture.read(path, "Photos above their truth and their prediction.", f"Mean IoU, from the left: {listed}.")


def _row(axes: Axes, label: str, pictures: Sequence[tuple[Labels, str]]) -> None:
    """RGB pictures (h, w, 3) of one size side by side, each with the words above it."""
    # In one pair of axes: a pair for every picture takes four times as long.
    for column, (picture, words) in enumerate(pictures):
        height = (1 - _GAP) * picture.shape[0] / picture.shape[1]
        axes.imshow(picture, extent=(column, column + 1 - _GAP, 0, height))
        axes.text(column + (1 - _GAP) / 2, height + 0.03, words, ha="center", va="bottom", fontsize=9)
    axes.text(-0.06, height / 2, label, ha="right", va="center", rotation=90, fontsize=11)
    axes.set(xlim=(0, len(pictures) - _GAP), ylim=(0, height))
    axes.axis("off")


def _short(name: str) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def _score(one: _Shown, spec: ModelSpec) -> str:
    """Mean IoU and, where the photo has it, that of the first class."""
    first = iou(confusion([one.truth], [one.mask], len(spec.classes)))[0]
    words = f"mean IoU {one.score:.3f}"
    return words if math.isnan(first) else f"{words}\n{plots.plain(spec.classes[0].name)} {first:.3f}"


def _legend(spec: ModelSpec) -> list[Patch]:
    from matplotlib.patches import Patch

    return [
        Patch(color="#{:02x}{:02x}{:02x}".format(*entry.color), label=plots.plain(entry.name)) for entry in spec.classes
    ]

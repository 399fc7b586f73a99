"""Confusion matrix, and bars of breeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from unet_training.evaluate import Evaluation
from unet_training.report.canvas import Picture, new_figure, plain, save

_WRITTEN = 12
"""Classes whose shares are written into the confusion matrix; of more it has colours alone."""

_SAID = 0.05
"""Least share that is said in words of a matrix of more classes."""

_LARGEST = 24
"""Inches of a side."""

_BARS = 60
"""Bars at most, half of them from each end: of more groups than that the names are no breeds."""


def confusion_matrix(evaluation: Evaluation, path: Path) -> Picture:
    """Draw each true class's pixels by the class that was predicted, in percent of the row.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    shares = np.array(evaluation.confusion_shares)  # (classes, classes); NaN in the row of a class that never occurs
    names = list(map(plain, evaluation.classes))
    is_small = len(names) <= _WRITTEN
    side = 1.0 if is_small else 0.35
    figure = new_figure(
        min(_LARGEST, max(4.5, 1.2 * side * len(names) + 2)), min(_LARGEST, max(3.8, 0.9 * side * len(names) + 1.4))
    )
    axes = figure.subplots()
    image = axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    words = []
    for (row, column), share in np.ndenumerate(shares):
        text = "\N{EN DASH}" if np.isnan(share) else f"{100 * share:.1f} %"
        if is_small:
            axes.text(column, row, text, ha="center", va="center", color="white" if share > 0.65 else "black")
        if not np.isnan(share) and (is_small or share >= _SAID):
            words.append(f"{evaluation.classes[row]} taken for {evaluation.classes[column]} {text}")
    axes.set_xticks(range(len(names)), labels=names, rotation=0 if is_small else 90)
    axes.set_yticks(range(len(names)), labels=names, rotation=90 if is_small else 0, va="center")
    axes.set(xlabel="prediction", ylabel="truth")
    axes.spines[:].set_visible(False)
    scale = figure.colorbar(image, format=lambda share, _: f"{100 * share:.0f} %")
    scale.outline.set_visible(False)
    return save(figure, path, f"Confusion matrix: {', '.join(words)}.")


def breed_bars(evaluation: Evaluation, path: Path) -> Picture | None:
    """Draw each breed's mean IoU, best first; None where the photos' names make fewer than two groups.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    breeds = evaluation.breeds
    known = [name for name in breeds if not np.isnan(breeds[name].mean_iou)]
    ordered = sorted(known, key=lambda name: -breeds[name].mean_iou)
    if len(ordered) < 2:
        return None
    caption = ""
    if len(ordered) > _BARS:
        caption = f"The best {_BARS // 2} and the worst {_BARS // 2} of {len(ordered)} groups."
        ordered = [*ordered[: _BARS // 2], *ordered[-_BARS // 2 :]]
    figure = new_figure(9, 0.24 * len(ordered) + 1)
    axes = figure.subplots()
    places = range(len(ordered))
    bars = axes.barh(places, [breeds[name].mean_iou for name in ordered], color="#4c78a8", height=0.75)
    # On white, for the line of all photos passes among the numbers.
    axes.bar_label(bars, fmt="%.3f", padding=4, fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    labels, words = [], []
    for name in ordered:
        title = name.replace("_", " ")
        labels.append(f"{plain(title)} ({breeds[name].photos})")
        words.append(f"{title} {breeds[name].mean_iou:.3f}")
    axes.set_yticks(places, labels=labels, fontsize=9)
    axes.axvline(evaluation.overall.mean_iou, color="grey", linestyle=":", zorder=0, label="all photos together")
    axes.set(xlabel="mean IoU (in brackets: photos)", xlim=(0, 1.08), ylim=(len(ordered) - 0.4, -0.6))
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower right", frameon=False, fontsize=9)
    return save(figure, path, f"Mean IoU by breed, best first: {', '.join(words)}.", caption)

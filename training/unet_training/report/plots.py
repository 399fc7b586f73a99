"""Confusion matrix and bars of breeds, and what every plot shares."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unet_training.evaluate import Evaluation
from unet_training.files import replacing
from unet_training.report.page import Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 110

_BARS = 60
"""More groups than that are no breeds; as many are shown, half from each end."""


def figure(width: float, height: float) -> Figure:
    """Inches. No pyplot: it would look for a display, and keep every figure."""
    from matplotlib.figure import Figure  # 0.5 s that a training without a report need not wait

    return Figure(figsize=(width, height), layout="constrained")


def save(drawn: Figure, path: Path) -> None:
    """As PNG.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    with replacing(path) as temporary:
        drawn.savefig(temporary, dpi=_DPI)


def plain(text: str) -> str:
    """``text`` as it stands: dollars start no formula, and what the font cannot show is a question mark."""
    shown = "".join(letter if letter.isprintable() and ord(letter) in _letters() else "?" for letter in text)
    return shown.replace("$", r"\$")


@cache
def _letters() -> frozenset[int]:
    """Code points of the font that plots are written in."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("sans")).get_charmap())


def confusion_matrix(evaluation: Evaluation, path: Path) -> Picture:
    """Draw each true class's pixels by the class that was predicted, in percent of the row.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    shares = np.array(evaluation.confusion_shares)  # (classes, classes); NaN in the row of a class that never occurs
    names = [plain(name) for name in evaluation.classes]
    drawn = figure(max(4.5, 1.2 * len(names) + 2), max(3.8, 0.9 * len(names) + 1.4))
    axes = drawn.subplots()
    image = axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        text = "\N{EN DASH}" if np.isnan(share) else f"{100 * share:.1f} %"
        axes.text(column, row, text, ha="center", va="center", color="white" if share > 0.65 else "black")
    axes.set_xticks(range(len(names)), labels=names)
    axes.set_yticks(range(len(names)), labels=names, rotation=90, va="center")
    axes.set(xlabel="prediction", ylabel="truth")
    axes.spines[:].set_visible(False)
    scale = drawn.colorbar(image, format=lambda share, _: f"{100 * share:.0f} %")
    scale.outline.set_visible(False)
    save(drawn, path)
    cells = [
        f"{truth} taken for {predicted} {100 * share:.1f} %"
        for truth, row in zip(evaluation.classes, evaluation.confusion_shares, strict=True)
        for predicted, share in zip(evaluation.classes, row, strict=True)
        if not np.isnan(share)
    ]
    return Picture.read(path, f"Confusion matrix: {', '.join(cells)}.")


def breed_bars(evaluation: Evaluation, path: Path) -> Picture | None:
    """Draw each breed's mean IoU, best first; None where the photos' names make fewer than two groups.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    breeds = [(name, group.photos, group.mean_iou) for name, group in evaluation.breeds.items()]
    ordered = sorted((entry for entry in breeds if not np.isnan(entry[2])), key=lambda entry: -entry[2])
    if len(ordered) < 2:
        return None
    caption = ""
    if len(ordered) > _BARS:
        caption = f"The best {_BARS // 2} and the worst {_BARS // 2} of {len(ordered)} groups."
        ordered = [*ordered[: _BARS // 2], *ordered[-_BARS // 2 :]]
    drawn = figure(9, 0.24 * len(ordered) + 1)
    axes, places = drawn.subplots(), range(len(ordered))
    bars = axes.barh(places, [value for *_, value in ordered], color="#4c78a8", height=0.75)
    # On white, for the line of all photos passes among the numbers.
    axes.bar_label(bars, fmt="%.3f", padding=4, fontsize=8, bbox={"facecolor": "white", "edgecolor": "none", "pad": 1})
    labels = [f"{plain(_words(name))} ({photos})" for name, photos, _ in ordered]
    axes.set_yticks(places, labels=labels, fontsize=9)
    axes.axvline(evaluation.overall.mean_iou, color="grey", linestyle=":", zorder=0, label="all photos together")
    axes.set(xlabel="mean IoU (in brackets: photos)", xlim=(0, 1.08), ylim=(len(ordered) - 0.4, -0.6))
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.spines[["top", "right"]].set_visible(False)
    drawn.legend(loc="outside lower right", frameon=False, fontsize=9)
    save(drawn, path)
    listed = ", ".join(f"{_words(name)} {value:.3f}" for name, _, value in ordered)
    return Picture.read(path, f"Mean IoU by breed, best first: {listed}.", caption)


def _words(name: str) -> str:
    return name.replace("_", " ")

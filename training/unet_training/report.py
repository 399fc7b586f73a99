"""Two pictures of a training: its curves, and photos beside truth and prediction."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import keras
import numpy as np

from unet_runtime.labelled import confusion, iou
from unet_runtime.spec import ModelSpec
from unet_training.files import replacing
from unet_training.pairs import Labelled
from unet_training.train import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

CURVES = "curves.png"
PANEL = "panel.png"

_PANEL_PHOTOS = 8
_CURVES = {"loss": "loss", "mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy"}


def write_report(result: Result, output: Path) -> None:
    """Write ``curves.png`` and ``panel.png`` into ``output``.

    The panel's predictions are those of the written model file, not of the model in memory.

    Raises:
        OutputError: a picture cannot be written.
    """
    _save(_curves(result), output / CURVES)
    _save(_panel(result), output / PANEL)


def _figure(width: float, height: float) -> Figure:
    """Inches. No pyplot: it would look for a display, and keep every figure."""
    from matplotlib.figure import Figure  # 0.5 s that a training without a report need not wait

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)


def _curves(result: Result) -> Figure:
    figure = _figure(13, 4)
    best = result.spec.provenance.metrics["epoch"]
    for axes, (name, title) in zip(figure.subplots(1, len(_CURVES)), _CURVES.items(), strict=True):
        for key, label in ((name, "train"), (f"val_{name}", "validation")):
            values = result.history[key]
            axes.plot(range(1, len(values) + 1), values, marker=".", label=label)
        axes.axvline(best, color="grey", linestyle=":", label=f"best epoch: {best}")
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _panel(result: Result) -> Figure:
    photos, spec = result.test, result.spec
    chosen = np.unique(np.linspace(0, len(photos) - 1, _PANEL_PHOTOS).round().astype(int))
    model = keras.models.load_model(result.model, compile=False)
    masks = model.predict(photos.photos[chosen], verbose=0).argmax(axis=-1).astype(np.uint8)  # (n, h, w)
    figure = _figure(2.2 * len(chosen), 7.2)
    grid = figure.subplots(3, len(chosen), squeeze=False)
    for column, (index, mask) in enumerate(zip(chosen, masks, strict=True)):
        _column(grid[:, column], photos, int(index), mask, spec)
    for axes, label in zip(grid[:, 0], ("photo", "truth", "prediction"), strict=True):
        axes.set_ylabel(label)
    figure.legend(handles=_legend(spec), loc="outside lower center", ncols=len(spec.classes))
    return figure


def _column(rows: np.ndarray, photos: Labelled, index: int, mask: np.ndarray, spec: ModelSpec) -> None:
    """One photo: itself, its truth, its prediction with the IoU."""
    truth = photos.masks[index]
    colors = np.array([entry.color for entry in spec.classes], np.uint8)
    scores = iou(confusion([truth], [mask], len(colors)))
    titles = (
        photos.names[index],
        "",
        f"mean IoU {np.nanmean(scores):.2f}\n{spec.classes[0].name} {scores[0]:.2f}",
    )
    pictures = (photos.photos[index], colors[truth], colors[mask])
    axes: Axes
    for axes, picture, title in zip(rows, pictures, titles, strict=True):
        axes.imshow(picture)
        axes.set_title(title, fontsize=8)
        axes.set_xticks([])
        axes.set_yticks([])


def _legend(spec: ModelSpec) -> list[Patch]:
    from matplotlib.patches import Patch

    return [Patch(color="#{:02x}{:02x}{:02x}".format(*entry.color), label=entry.name) for entry in spec.classes]

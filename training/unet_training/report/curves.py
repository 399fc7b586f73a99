"""Curves of a training, and how far validation lies from training at the best epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from unet_training.report.canvas import Picture, label_decades, new_figure, save

History = Mapping[str, Sequence[float]]
"""Keras' history: one value per epoch for each name."""

_LOG_FROM = 10
"""How many times the lowest loss the highest may be before a linear axis shows nothing of the end."""


class Gap(NamedTuple):
    """One metric at the best epoch."""

    label: str
    train: float
    validation: float


class _Curve(NamedTuple):
    label: str
    train: Sequence[float]
    validation: Sequence[float]


def gaps(history: History, epoch: int) -> list[Gap]:
    """Train and validation at ``epoch``, from 1; none for an epoch that the history does not hold."""
    result = []
    for curve in _curves(history):
        if 0 < epoch <= min(len(curve.train), len(curve.validation)):
            result.append(Gap(curve.label, curve.train[epoch - 1], curve.validation[epoch - 1]))
    return result


def draw(history: History, epoch: int, path: Path) -> Picture | None:
    """Draw the curves with ``epoch``, the best one, marked; None where the history is empty.

    Raises:
        OutputError: ``path`` cannot be written.
    """
    curves = _curves(history)
    if not curves:
        return None
    figure = new_figure(13, 4.2)
    for axes, curve in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves, strict=True):
        for values, label in ((curve.train, "train"), (curve.validation, "validation")):
            axes.plot(range(1, len(values) + 1), values, marker="o", markersize=3.5, label=label)
        axes.axvline(epoch, color="grey", linestyle=":", label=f"best epoch: {epoch}")
        shown = [*curve.train, *curve.validation]
        if curve.label.startswith("loss") and min(shown) > 0 and max(shown) > _LOG_FROM * min(shown):
            axes.set_yscale("log")
            label_decades(axes.yaxis)
        axes.set(title=curve.label, xlabel="epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3, which="both")
        axes.legend()
    words = [f"{gap.label}: train {gap.train:.4f}, validation {gap.validation:.4f}" for gap in gaps(history, epoch)]
    return save(figure, path, f"Curves of train and validation. At the best epoch, {epoch}: {'; '.join(words)}.")


def _curves(history: History) -> list[_Curve]:
    # The training's loss may hold more terms than the cross-entropy, which alone compares with the validation's.
    loss = "cross_entropy" if "cross_entropy" in history else "loss"
    curves = []
    for train, validation, label in (
        (loss, "val_loss", "loss (cross-entropy)"),
        ("mean_iou", "val_mean_iou", "mean IoU"),
        ("pixel_accuracy", "val_pixel_accuracy", "pixel accuracy"),
    ):
        if history.get(train) and history.get(validation):
            curves.append(_Curve(label, history[train], history[validation]))
    return curves

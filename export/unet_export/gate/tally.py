"""Running sums of differences and decisions over batches: all that the gate and its report know of an artifact."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from unet_export.gate.gate import Figures
from unet_runtime.core.metrics import confusion, iou
from unet_runtime.core.spec import ModelSpec

DECADES = range(-9, 1)
"""Powers of ten that the histogram's columns begin with; the first holds all below it too."""

_BINS_PER_DECADE = 100
"""A percentile is told to within 2.4 %, the width of one."""

Probabilities = npt.NDArray[np.float32]


class Tally:
    """Of one artifact in one engine; of the trained model itself, for what the truth says of it."""

    def __init__(self, spec: ModelSpec) -> None:
        classes = len(spec.classes)
        self._neutral = spec.roles("neutral")[:1]
        self._truth = np.zeros((classes, classes), np.int64)
        self._keras = np.zeros((classes, classes), np.int64)
        self._bins = np.zeros(len(DECADES) * _BINS_PER_DECADE, np.int64)
        self._max_abs = np.float64(0)
        self._sum_abs = 0.0
        self._values = 0

    def add(self, expected: Probabilities, actual: Probabilities, labels: npt.NDArray[np.uint8] | None) -> None:
        """One batch: probabilities (n, h, w, classes) of the trained model and of the artifact, class ids (n, h, w)."""
        difference = np.abs(expected - actual)
        self._max_abs = np.maximum(self._max_abs, difference.max())  # unlike max(), keeps NaN
        self._sum_abs += float(difference.sum(dtype=np.float64))
        self._values += difference.size
        self._bins += _binned(difference)
        wanted, mask = (values.argmax(axis=-1).astype(np.uint8) for values in (expected, actual))  # (n, h, w)
        self._keras += confusion(wanted, mask, len(self._keras))
        if labels is not None:
            self._truth += confusion(labels, mask, len(self._truth))

    def histogram(self) -> tuple[int, ...]:
        """Differences a decade of ``DECADES``."""
        return tuple(int(count) for count in self._bins.reshape(len(DECADES), -1).sum(axis=1))

    def figures(self, own: Tally) -> Figures:
        """``own``: the trained model's tally on the same batches."""
        return Figures(
            max_abs=float(self._max_abs),
            p999_abs=self._percentile(0.999),
            mean_abs=self._sum_abs / self._values,
            agreement=float(np.trace(self._keras) / self._keras.sum()),
            keras_mean_iou=_mean_iou(self._keras),
            keras_border_iou=self._border(self._keras),
            reference_mean_iou=_mean_iou(own._truth) if own._truth.any() else None,
            reference_border_iou=self._border(own._truth),
            mean_iou=_mean_iou(self._truth) if self._truth.any() else None,
            border_iou=self._border(self._truth),
        )

    def _percentile(self, share: float) -> float:
        """Upper edge of the bin that holds it, so never less than it; at most the largest difference."""
        if np.isnan(self._max_abs):
            return float("nan")
        index = int(np.searchsorted(np.cumsum(self._bins), share * self._bins.sum()))
        edge: float = 10.0 ** (DECADES[0] + (index + 1) / _BINS_PER_DECADE)
        return min(float(self._max_abs), edge)

    def _border(self, matrix: npt.NDArray[np.int64]) -> float | None:
        """Of the neutral class, where there is one and the truth has it."""
        if not self._neutral or not matrix[self._neutral[0]].any():
            return None
        return float(iou(matrix)[self._neutral[0]])


def _binned(difference: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Counts a bin; NaN and everything from the last on is in the last."""
    with np.errstate(divide="ignore", invalid="ignore"):
        place = np.floor((np.log10(difference.ravel()) - DECADES[0]) * _BINS_PER_DECADE)
    last = len(DECADES) * _BINS_PER_DECADE - 1
    place = np.nan_to_num(place, nan=last, posinf=last, neginf=0).clip(0, last).astype(np.intp)
    return np.bincount(place, minlength=last + 1)


def _mean_iou(matrix: npt.NDArray[np.int64]) -> float:
    """Over the classes that the truth has: the same ones whatever the masks say."""
    return float(iou(matrix)[matrix.sum(axis=1) > 0].mean())

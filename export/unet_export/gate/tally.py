"""Running sums of differences and decisions over batches, from which the metrics of an artifact follow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from unet_export.gate.gate import Metrics, masks_of
from unet_runtime.core.metrics import confusion, iou
from unet_runtime.core.spec import ModelSpec

DECADES = range(-9, 1)
"""Exponents of ten at which the histogram's columns begin; the first column holds everything below it too."""

_BINS_PER_DECADE = 100
"""A percentile is exact to 2.4 %, the width of one bin."""

Probabilities = npt.NDArray[np.float32]


class Tally:
    """Sums of one artifact in one engine, or of the trained model itself."""

    def __init__(self, spec: ModelSpec) -> None:
        classes = len(spec.classes)
        self._neutral = spec.roles("neutral")[:1]
        self._truth = np.zeros((classes, classes), np.int64)
        self._keras = np.zeros((classes, classes), np.int64)
        self._bins = np.zeros(len(DECADES) * _BINS_PER_DECADE, np.int64)
        self._max_abs = np.float64(0)
        self._sum_abs = 0.0
        self._values = 0

    def add(
        self, expected: Probabilities, actual: Probabilities, labels: npt.NDArray[np.uint8] | None
    ) -> npt.NDArray[np.float64]:
        """Add probabilities (n, h, w, classes) of the trained model and of the artifact; labels (n, h, w) or None.

        Returns:
            Share of pixels (0..1) with the same class, per photo: (n,).
        """
        difference = np.abs(expected - actual)
        self._max_abs = np.maximum(self._max_abs, difference.max())  # unlike max(), keeps NaN
        self._sum_abs += float(difference.sum(dtype=np.float64))
        self._values += difference.size
        self._bins += _binned(difference)
        expected_masks = masks_of(expected)  # (n, h, w)
        masks = masks_of(actual)
        self._keras += confusion(expected_masks, masks, len(self._keras))
        if labels is not None:
            self._truth += confusion(labels, masks, len(self._truth))
        agreements: npt.NDArray[np.float64] = (expected_masks == masks).mean(axis=(1, 2))
        return agreements

    def histogram(self) -> tuple[int, ...]:
        """Number of differences in each decade of ``DECADES``."""
        return tuple(self._bins.reshape(len(DECADES), -1).sum(axis=1).tolist())

    def metrics(self, reference: Tally) -> Metrics:
        """The metrics; ``reference``: the trained model's tally on the same batches."""
        return Metrics(
            max_abs=float(self._max_abs),
            p999_abs=self._percentile(0.999),
            mean_abs=self._sum_abs / self._values,
            agreement=float(np.trace(self._keras) / self._keras.sum()),
            keras_mean_iou=_mean_iou(self._keras),
            keras_border_iou=self._border(self._keras),
            reference_mean_iou=_mean_iou(reference._truth) if reference._truth.any() else None,
            reference_border_iou=self._border(reference._truth),
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
        """IoU of the neutral class; None where there is none or the truth has none of it."""
        if not self._neutral or not matrix[self._neutral[0]].any():
            return None
        return float(iou(matrix)[self._neutral[0]])


def _binned(difference: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Number of differences per bin; the last holds NaN and everything above it too."""
    with np.errstate(divide="ignore", invalid="ignore"):
        place = np.floor((np.log10(difference.ravel()) - DECADES[0]) * _BINS_PER_DECADE)
    last = len(DECADES) * _BINS_PER_DECADE - 1
    place = np.nan_to_num(place, nan=last, posinf=last, neginf=0).clip(0, last).astype(np.intp)
    return np.bincount(place, minlength=last + 1)


def _mean_iou(matrix: npt.NDArray[np.int64]) -> float:
    """Mean over the classes that the truth has: the same ones whatever the masks are."""
    return float(iou(matrix)[matrix.sum(axis=1) > 0].mean())

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

    def __init__(self, spec: ModelSpec, margin: float = 0.0) -> None:
        """``margin``: a pixel whose best class leads the second by more than that is sure; 0: nobody asks."""
        self._margin = margin
        self._sure = np.zeros(2, np.int64)  # sure pixels, and those of them with the same class
        classes = len(spec.classes)
        self._names = spec.class_names
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
        if self._margin:
            best = np.partition(expected, -2, axis=-1)
            sure = best[..., -1] - best[..., -2] > self._margin  # (n, h, w)
            self._sure += (int(sure.sum()), int((sure & (expected_masks == masks)).sum()))
        if labels is not None:
            self._truth += confusion(labels, masks, len(self._truth))
        agreements: npt.NDArray[np.float64] = (expected_masks == masks).mean(axis=(1, 2))
        return agreements

    @property
    def max_abs(self) -> float:
        """Largest difference of a probability so far."""
        return float(self._max_abs)

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
            keras_iou=self._by_class(self._keras),
            reference_iou=self._by_class(reference._truth),
            iou=self._by_class(self._truth),
            pixels=self._pixels(),
            sure=float(self._sure[0] / self._keras.sum()) if self._margin else 1.0,
            sure_agreement=float(self._sure[1] / self._sure[0]) if self._sure[0] else float("nan"),
        )

    def _percentile(self, share: float) -> float:
        """Upper edge of the bin that holds it, so never less than it; at most the largest difference."""
        if np.isnan(self._max_abs):
            return float("nan")
        index = int(np.searchsorted(np.cumsum(self._bins), share * self._bins.sum()))
        edge: float = 10.0 ** (DECADES[0] + (index + 1) / _BINS_PER_DECADE)
        return min(float(self._max_abs), edge)

    def _by_class(self, matrix: npt.NDArray[np.int64]) -> dict[str, float]:
        """IoU by name of the class; empty where nothing was counted."""
        return dict(zip(self._names, iou(matrix).tolist(), strict=True)) if matrix.any() else {}

    def _pixels(self) -> dict[str, int]:
        """Pixels by name of each class that the truth has."""
        counts = zip(self._names, self._truth.sum(axis=1).tolist(), strict=True)
        return {name: count for name, count in counts if count}


def _binned(difference: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Number of differences per bin; the last holds NaN and everything above it too."""
    with np.errstate(divide="ignore", invalid="ignore"):
        place = np.floor((np.log10(difference.ravel()) - DECADES[0]) * _BINS_PER_DECADE)
    last = len(DECADES) * _BINS_PER_DECADE - 1
    place = np.nan_to_num(place, nan=last, posinf=last, neginf=0).clip(0, last).astype(np.intp)
    return np.bincount(place, minlength=last + 1)

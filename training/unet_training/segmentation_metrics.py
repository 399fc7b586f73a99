"""Metrics of a segmentation, in NumPy: one photo at a time, added up in running sums.

measure               one photo's truth and probabilities -> Sums
Sums                  of any number of photos; their size does not grow with it
SegmentationMetrics   what the sums mean
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from unet_runtime.core.geometry import place
from unet_runtime.core.masks import class_mask, photo_planes, shares
from unet_runtime.core.metrics import IGNORED, confusion, iou, mean_iou
from unet_runtime.core.spec import ModelSpec

BINS = 15
"""Equal-width bins of confidence, as Guo et al., "On Calibration of Modern Neural Networks", ICML 2017."""

BOUNDARY_TOLERANCE = 0.0075
"""Share of the picture's diagonal, as Csurka et al., "What is a good evaluation measure for semantic
segmentation?", BMVC 2013."""

_EPSILON = 1e-7  # Keras' own: keeps the logarithm finite

Labels = npt.NDArray[np.uint8]
Probabilities = npt.NDArray[np.float32]
Region = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sums:
    """Sums over one photo or many; ``+`` adds them up."""

    photos: int
    matrix: npt.NDArray[np.int64]
    """Pixels at the model's size, (classes, classes): row = truth, column = prediction."""
    own_matrix: npt.NDArray[np.int64]
    """The same at each photo's own size; zeros where it was not measured there."""
    loss: float
    """Cross-entropy in nats, over the pixels of ``matrix``."""
    boundary_f1: float
    outlined: int
    """Photos whose boundary F1 is defined."""
    bins: npt.NDArray[np.float64]
    """(3, BINS): pixels, sum of their confidences, how many of them are right."""

    def __add__(self, other: Sums) -> Sums:
        return Sums(*map(operator.add, vars(self).values(), vars(other).values()))

    @classmethod
    def none(cls, classes: int) -> Sums:
        """Sums over no photo."""
        matrix = np.zeros((classes, classes), np.int64)
        return cls(0, matrix, matrix, 0.0, 0.0, 0, np.zeros((3, BINS)))


@dataclass(frozen=True)
class SegmentationMetrics:
    """Metrics of a set of photos. NaN where there is nothing to measure, such as the IoU of a class that never occurs.

    At the model's size, where a name does not say ``own_size``.
    """

    photos: int
    loss: float
    """Sparse categorical cross-entropy per pixel, nats."""
    pixel_accuracy: float
    mean_iou: float
    """Over the classes that truth or predictions have."""
    iou: Mapping[str, float]
    """By class name; from the pixels of all photos together."""
    whole_pet_iou: float
    """IoU of foreground and neutral classes as one: of the pet with its border. NaN where no class is neutral."""
    boundary_f1: float
    """See ``boundary_f1``; mean over the photos."""
    own_size_mean_iou: float
    """At each photo's own size, masks as ``core.masks.class_mask`` makes them."""
    own_size_iou: Mapping[str, float]


@dataclass(frozen=True)
class Bin:
    """Pixels whose confidence, the chosen class's probability among ``core.masks.shares``, is in (low, high]."""

    low: float
    high: float
    pixels: int
    confidence: float
    """Mean of the bin."""
    accuracy: float
    """Share of its pixels that are right."""


def measure(
    probabilities: Probabilities,
    truth: Labels,
    own_truth: Labels | None,
    spec: ModelSpec,
    own_prediction: Labels | None = None,
) -> Sums:
    """Measure one photo. Pixels that are ``IGNORED`` do not count.

    Args:
        probabilities: float32 (h, w, classes), the model's output.
        truth: class ids (h, w) on the model's grid, ``IGNORED`` also outside a letterboxed photo.
        own_truth: class ids (H, W) at the photo's own size; None: not measured there.
        spec: of the model.
        own_prediction: class ids (H, W), where they are not those of ``probabilities`` at that size.
    """
    none = Sums.none(len(spec.classes))
    prediction = probabilities.argmax(axis=-1).astype(np.uint8)  # (h, w)
    # The truth is one class per pixel. A sigmoid model's largest probability is no chance of being right.
    likely = shares(probabilities, spec)
    labelled, foreground = truth != IGNORED, spec.roles("foreground")
    score = boundary_f1(np.isin(truth, foreground), np.isin(prediction, foreground), labelled)
    own_matrix = none.own_matrix
    if own_truth is not None:
        size = (own_truth.shape[1], own_truth.shape[0])
        if own_prediction is None:
            own_prediction = class_mask(photo_planes(probabilities, place(size, spec), spec), size)
        own_matrix = confusion([own_truth], [own_prediction], len(spec.classes))
    return Sums(
        photos=1,
        matrix=confusion([truth], [prediction], len(spec.classes)),
        own_matrix=own_matrix,
        loss=cross_entropy(likely[labelled], truth[labelled]),
        boundary_f1=float(np.nan_to_num(score)),
        outlined=int(not math.isnan(score)),
        bins=confidence_bins(likely[labelled], truth[labelled]),
    )


def summarize(sums: Sums, spec: ModelSpec) -> SegmentationMetrics:
    """Turn sums into metrics."""
    scores, own_scores = iou(sums.matrix), iou(sums.own_matrix)
    pixels = int(sums.matrix.sum())
    neutral = spec.roles("neutral")
    whole = spec.roles("foreground") + neutral
    return SegmentationMetrics(
        photos=sums.photos,
        loss=_share(sums.loss, pixels),
        pixel_accuracy=_share(np.trace(sums.matrix), pixels),
        mean_iou=mean_iou(scores),
        iou=dict(zip(spec.class_names, scores.tolist(), strict=True)),
        whole_pet_iou=binary_iou(sums.matrix, whole) if neutral else math.nan,
        boundary_f1=_share(sums.boundary_f1, sums.outlined),
        own_size_mean_iou=mean_iou(own_scores),
        own_size_iou=dict(zip(spec.class_names, own_scores.tolist(), strict=True)),
    )


def binary_iou(matrix: npt.NDArray[np.int64], positive: Sequence[int]) -> float:
    """IoU of the classes ``positive`` taken as one, from ``confusion``; NaN where neither has any."""
    inside = np.isin(np.arange(len(matrix)), positive)
    both, neither = matrix[np.ix_(inside, inside)].sum(), matrix[np.ix_(~inside, ~inside)].sum()
    return _share(both, matrix.sum() - neither)


def cross_entropy(probabilities: Probabilities, truth: Labels) -> float:
    """Sum over pixels, nats, of probabilities (n, classes) and class ids (n,), as Keras has it: clipped, then made to
    sum to 1 (int8 probabilities do so only nearly)."""
    clipped = np.clip(probabilities.astype(np.float64), _EPSILON, 1 - _EPSILON)
    chosen = np.take_along_axis(clipped, truth[:, np.newaxis].astype(np.intp), axis=1)[:, 0]
    return float((np.log(clipped.sum(axis=1)) - np.log(chosen)).sum())


def confidence_bins(probabilities: Probabilities, truth: Labels) -> npt.NDArray[np.float64]:
    """float64 (3, BINS), as ``Sums.bins``, of probabilities (n, classes) and class ids (n,)."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == truth).astype(np.float64)
    index = np.clip(np.ceil(confidence * BINS).astype(np.intp) - 1, 0, BINS - 1)  # bins are open below
    return np.stack([np.bincount(index, weights, BINS) for weights in (np.ones_like(right), confidence, right)])


def calibration(bins: npt.NDArray[np.float64]) -> tuple[float, list[Bin]]:
    """Expected calibration error (Guo et al. 2017: the mean distance of a bin's accuracy from its confidence, weighted
    by its pixels) and its bins, from ``Sums.bins``."""
    pixels, confidence, right = bins
    rows = []
    for index in range(BINS):
        count = pixels[index]
        means = _share(confidence[index], count), _share(right[index], count)
        rows.append(Bin(index / BINS, (index + 1) / BINS, int(count), *means))
    return _share(np.abs(right - confidence).sum(), pixels.sum()), rows


def boundary_f1(truth: Region, prediction: Region, visible: Region | None = None) -> float:
    """How well the foreground's outline is met in one photo (Csurka et al. 2013): 0..1, NaN where neither has one.

    An outline is the pixels of the region that touch, by a side, a pixel of the picture outside it; where the picture's
    edge cuts the animal there is none, nor where what lies beside it is not labelled. Precision is the share of the
    prediction's outline closer than ``BOUNDARY_TOLERANCE`` of the diagonal to some pixel of the truth's (Euclidean),
    recall the reverse, F1 their harmonic mean.

    Args:
        truth, prediction: (h, w), True where the foreground is.
        visible: (h, w), True where the truth is known; None: everywhere. The picture is the rectangle around it.
    """
    known = np.ones_like(truth) if visible is None else visible
    if not known.any():
        return math.nan
    box = np.ix_(known.any(axis=1), known.any(axis=0))
    truth, prediction, known = truth[box], prediction[box], known[box]
    tolerance = BOUNDARY_TOLERANCE * math.hypot(*truth.shape)
    expected, actual = _outline(truth, known), _outline(prediction, known)
    if not expected.any() or not actual.any():
        return 0.0 if expected.any() or actual.any() else math.nan
    recall = float(_dilated(actual, tolerance)[expected].mean())
    precision = float(_dilated(expected, tolerance)[actual].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _outline(region: Region, known: Region) -> Region:
    inner: Region = ndimage.binary_erosion(region | ~known, border_value=1)
    return region & known & ~inner


def _dilated(points: Region, distance: float) -> Region:
    """True closer than ``distance`` pixels to a True one."""
    reach = max(0, math.ceil(distance) - 1)
    y, x = np.ogrid[-reach : reach + 1, -reach : reach + 1]
    result: Region = ndimage.binary_dilation(points, np.hypot(y, x) < distance)
    return result


def _share(part: Any, whole: Any) -> float:
    return float(part) / float(whole) if whole else math.nan

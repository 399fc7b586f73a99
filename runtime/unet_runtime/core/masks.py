"""Probabilities (h, w, C) of the model's grid -> class ids, and opacity, at the photo's own size.

Probabilities are resampled, not labels: an outline drawn at 160x160 stays smooth on a large photo.
The work goes in bands of rows (resample.py), so a 100-megapixel photo needs little more memory than its mask.

    photo_planes    what the model says of the photo, one plane per class: the others take these planes
    class_mask, opacity, probability_bands, scores
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from unet_runtime.core import resample
from unet_runtime.core.geometry import Placement
from unet_runtime.core.runs import LARGE, Runs
from unet_runtime.core.spec import ModelSpec

if TYPE_CHECKING:
    import numpy.typing as npt

    from unet_runtime.core.resample import Planes

_LEAST = 1e-7  # Keras' epsilon: where no class has any, as in an int8 model's output, all are equally likely

_LARGEST_EXPONENT = np.float32(80)  # its exponential is a float32

_LEAD = np.float32(1 - 1e-6)  # several steps of float32

CLEAR, SOLID = 0.2, 0.8
"""Odds of the foreground up to which a pixel of a cut-out is transparent, and from which it is opaque. The widest such
pair, and so the softest edge, with which 95 % of the background have opacity 0 and 95 % of the pets 250 or more, on
validation photos: ``benchmarks/cutouts.py``."""

_EVEN = 1e-3  # keeps the odds defined where the neutral class takes all: half foreground, half background


def activated(outputs: npt.NDArray[np.float32], spec: ModelSpec) -> npt.NDArray[np.float32]:
    """Probabilities of what a model file gives: itself, or the activation of its logits.

    Args:
        outputs: float32 (..., C), the file's output; overwritten.
        spec: of the model.

    Returns:
        float32 (..., C) probabilities; those of a softmax lie in memory plane by plane, as ``photo_planes`` wants them.
    """
    if not spec.output.logits:
        return outputs
    if spec.output.activation == "sigmoid":
        np.negative(outputs, out=outputs)
        np.exp(np.minimum(outputs, _LARGEST_EXPONENT, out=outputs), out=outputs)
        outputs += 1
        return np.reciprocal(outputs, out=outputs)
    planes = np.ascontiguousarray(np.moveaxis(outputs, -1, 0))  # NumPy is ten times slower along so short an axis
    planes -= planes.max(axis=0)
    np.exp(planes, out=planes)
    total = planes[0] + planes[1]
    for plane in planes[2:]:
        total += plane
    planes *= np.reciprocal(total, out=total)
    return np.moveaxis(planes, 0, -1)


def shares(probabilities: npt.NDArray[np.float32], spec: ModelSpec) -> npt.NDArray[np.float32]:
    """Probabilities of a pixel's classes, given that it has exactly one of them.

    A softmax model's are that already. A sigmoid model estimates each class by itself, and what it has been
    trained for is each class's share of their sum: the sum itself is arbitrary, and may differ from pixel to pixel.

    Args:
        probabilities: float32 (..., C), the model's output.
        spec: of the model.

    Returns:
        float32 (..., C), sum 1 (nearly, for an int8 softmax model); ``probabilities`` itself for a softmax model.
    """
    if spec.output.activation == "softmax":
        return probabilities
    clipped = np.maximum(probabilities, np.float32(_LEAST))
    result: npt.NDArray[np.float32] = clipped / clipped.sum(axis=-1, keepdims=True)
    return result


def photo_planes(probabilities: npt.NDArray[np.float32], placement: Placement, spec: ModelSpec) -> Planes:
    """The part of the grid that the photo covers, one contiguous plane per class.

    Args:
        probabilities: float32 (h, w, C), the model's output for one photo.
        placement: of the photo.
        spec: of the model.

    Returns:
        float32 (C, h', w'), as ``shares``.
    """
    left, top, width, height = placement.part
    if spec.input.fit != "stretch" and probabilities.shape[:2] != spec.input.covered:
        # The photo's edges lie between pixels of such a grid.
        planes = enlarged(shares(probabilities, spec), spec.input.covered)
        return np.ascontiguousarray(planes[:, top : top + height, left : left + width])
    # Shares before resampling: else a pixel whose probabilities are all large would outvote its neighbours.
    part = shares(probabilities[top : top + height, left : left + width], spec)
    return np.ascontiguousarray(part.transpose(2, 0, 1))


def enlarged(probabilities: npt.NDArray[np.float32], size: tuple[int, int]) -> Planes:
    """Shares float32 (h, w, C) -> planes float32 (C, *size), ``size``: (height, width)."""
    planes = np.ascontiguousarray(probabilities.transpose(2, 0, 1))
    return resample.rows_of(planes, (size[1], size[0]), 0, size[0])


class Leaders(NamedTuple):
    """The most probable class of each point of the grid."""

    ids: npt.NDArray[np.uint8]
    """(h, w); of a tie the lower one."""
    is_certain: npt.NDArray[np.bool_]
    """(h, w): whether it leads by more than rounding could make up between two such points."""


def leaders(planes: Planes) -> Leaders:
    """What ``class_mask``, ``class_runs`` and ``region_sums`` of some planes, float32 (C, h, w), have in common."""
    best, second = np.maximum(planes[0], planes[1]), np.minimum(planes[0], planes[1])
    ids = (planes[1] > planes[0]).view(np.uint8)
    for index in range(2, len(planes)):
        _raise_where(planes[index] > best, index, ids)
        np.maximum(second, np.minimum(best, planes[index]), out=second)
        np.maximum(best, planes[index], out=best)
    return Leaders(ids, second < best * _LEAD)


def class_mask(planes: Planes, size: tuple[int, int], at_points: Leaders | None = None) -> npt.NDArray[np.uint8]:
    """Most probable class of each pixel of the photo.

    Args:
        planes: as ``photo_planes``.
        size: (width, height) of the photo in pixels.
        at_points: of ``planes``, where they are known.

    Returns:
        uint8 (height, width), class ids.
    """
    return resample.label(planes, size, _known(at_points), first_of_the_largest)


def class_runs(planes: Planes, size: tuple[int, int], at_points: Leaders | None = None) -> list[Runs]:
    """The runs of a large photo's ``class_mask``, in a fifth of the time; none where there is no quicker way to them.

    Args:
        planes: as ``photo_planes``.
        size: (width, height) of the photo in pixels.
        at_points: of ``planes``, where they are known.
    """
    if size[0] * size[1] < LARGE:
        return []
    from unet_runtime.core import outlines  # few photos need it

    if not outlines.can_trace(planes, size):
        return []
    return list(outlines.trace(planes, size, _known(at_points), first_of_the_largest))


def first_of_the_largest(planes: Planes) -> npt.NDArray[np.uint8]:
    """Shares float32 (C, ...) -> ids uint8 (...); a tie goes to the lower id, as argmax has it, which is slower."""
    best = planes[0].copy()
    ids = np.zeros(best.shape, np.uint8)
    for index in range(1, len(planes)):
        _raise_where(planes[index] > best, index, ids)
        np.maximum(best, planes[index], out=best)
    return ids


def _raise_where(is_larger: npt.NDArray[np.bool_], index: int, ids: npt.NDArray[np.uint8]) -> None:
    """Set ids, which are all lower, to ``index``: without a branch, six times as fast as an assignment by a mask."""
    np.maximum(ids, is_larger.view(np.uint8) * np.uint8(index), out=ids)


def _known(found: Leaders | None) -> resample.CertainLabel:
    return leaders if found is None else lambda planes: found


def opacity(planes: Planes, size: tuple[int, int], spec: ModelSpec) -> npt.NDArray[np.uint8]:
    """Opacity of each pixel in a cut-out, by the odds of foreground against background, see ``opacity_of``.

    Neutral classes (the unlabelled border) have no vote, so the edge runs softly through their middle.

    Returns:
        uint8 (height, width): 0 background .. 255 foreground.
    """
    share = foreground_share(planes, spec)[np.newaxis]
    return resample.label(share, size, _certain_opacity, _first_opacity)


def opacity_of(share: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Odds float32 (...) -> opacity uint8 (...): 0 up to ``CLEAR``, 255 from ``SOLID`` on, linear between.

    Where a model is sure to one in five it is right nearly always, and what is left of its doubt would be a veil over
    the whole cut-out.
    """
    scale = np.float32(255 / (SOLID - CLEAR))
    levels = np.clip((share - np.float32(CLEAR)) * scale, 0, 255)
    result: npt.NDArray[np.uint8] = np.rint(levels, out=levels).astype(np.uint8)
    return result


def _first_opacity(planes: Planes) -> npt.NDArray[np.uint8]:
    return opacity_of(planes[0])


def _certain_opacity(planes: Planes) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Opacity, and where it is none or whole: it is so wherever the odds lie between such ones."""
    opacity = _first_opacity(planes)
    return opacity, (opacity == 0) | (opacity == 255)


def region_sums(planes: Planes, ids: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """What the score of each class is made of: see ``scores``.

    Args:
        planes: shares (C, ...).
        ids: (...) the most probable class of each point.

    Returns:
        float64 (2, C): the sum of a class's shares where it is the most probable one, and how many points these are.
    """
    sums = np.zeros((2, len(planes)))
    for index, plane in enumerate(planes):
        region = ids == index
        sums[:, index] = plane.sum(where=region, dtype=np.float64), np.count_nonzero(region)
    return sums


def scores(sums: npt.NDArray[np.float64]) -> tuple[float, ...]:
    """Mean probability of each class in its region, by class id, from ``region_sums``; 0 where it has no region."""
    return tuple((sums[0] / np.maximum(sums[1], 1)).tolist())


def without(probabilities: npt.NDArray[np.float32], ids: Sequence[int], rest: int) -> npt.NDArray[np.float32]:
    """Probabilities (..., C), given that the classes ``ids`` are not in the photo: a new array of sum 1.

    Where no other class has any, ``rest`` has all.
    """
    result = probabilities.copy()
    result[..., list(ids)] = 0
    result[..., rest] += np.float32(_LEAST)
    result /= result.sum(axis=-1, keepdims=True)
    return result


def probability_bands(planes: Planes, size: tuple[int, int]) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Probabilities at the photo's own size, a band of rows at a time: memory stays bounded whatever the size.

    Yields:
        (top, band) from the top down: the band's first row, and float32 (rows, width, C), of which ``class_mask`` is
        the argmax: sum 1 (``shares``), nearly for an int8 softmax model.
    """
    for top, bottom in resample.bands(size):
        yield top, np.ascontiguousarray(resample.rows_of(planes, size, top, bottom).transpose(1, 2, 0))


def foreground_share(planes: Planes, spec: ModelSpec) -> npt.NDArray[np.float32]:
    """Shares float32 (C, ...) -> the foreground's odds against the background, float32 (...) in 0..1."""
    foreground = _total(planes, spec.roles("foreground"))
    result: npt.NDArray[np.float32] = foreground / (foreground + _total(planes, spec.roles("background")))
    return result


def _total(planes: Planes, ids: Sequence[int]) -> npt.NDArray[np.float32]:
    total: npt.NDArray[np.float32] = planes[list(ids)].sum(axis=0, initial=_EVEN)
    return total

"""Rounding weights, to float16 or to integers, so that what a layer computes moves least."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from unet_export.transforms.rescale import clone, rescalable, rescale_channels

_Kernel = TypeVar("_Kernel", int, str)

SHARE_OF_FLOAT32 = 0.05
"""Share of the weights that stay float32 where float16 only stores them, at most."""

MOMENT_PHOTOS = 24
"""Photos on which float16 files are rounded: millions of pixels for the moments of 1x1 kernels."""

_PIXELS = 800
"""Pixels of an activation that a photo contributes to the moments."""

_SMALLEST = float(np.finfo(np.float16).tiny)
"""Below it float16 has fewer bits, and a bias says little."""

_DAMPING = 1e-4
"""Share of the mean moment that is added to each: keeps the matrix far from singular where inputs are always 0."""

_TINY = 1e-12


def with_biases_of_float16(model: Any) -> Any:
    """A clone that computes the same in float32, with biases (BatchNormalization folded) that float16 holds exactly.

    A bias moves every pixel of its channel the same way, so that no later layer averages its rounding out: four
    fifths of a float16 file's error came from there (see docs/results.md). Each channel is multiplied by what its
    bias's rounding would have been, within 2^-11 of 1, and its readers' kernels, whose rounding can be spread over
    their taps, are divided by it. A layer whose channels cannot be rescaled keeps its bias.
    """
    copy = clone(model)
    for source in rescalable(copy):
        bias = source.bias()
        rounded = bias.astype(np.float16).astype(np.float64)
        representable = np.isfinite(rounded) & (np.abs(rounded) >= _SMALLEST)
        rescale_channels(source, np.divide(rounded, bias, out=np.ones_like(bias), where=representable))
    return copy


def stored_as_float16(sizes: Mapping[_Kernel, int]) -> list[_Kernel]:
    """Kernels, by their ``sizes``, that a file stores in float16: all but the smallest.

    Those are a small part of the file, and they are the first layers', whose rounding all others pass on.
    """
    left = sum(sizes.values()) * SHARE_OF_FLOAT32
    rounded = []
    for kernel in sorted(sizes, key=lambda kernel: (sizes[kernel], kernel)):
        left -= sizes[kernel]
        if left < 0:
            rounded.append(kernel)
    return rounded


def held_by_float16(values: npt.NDArray[np.float32]) -> bool:
    """Whether none is beyond the range of float16."""
    return bool(np.abs(values).max(initial=0) <= np.finfo(np.float16).max)


def moments(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Mean of ``x * x^T`` over pixels x of one photo, (..., n, channels) -> (..., channels, channels)."""
    count = pixels.shape[-2]
    some = pixels[..., :: max(1, count // _PIXELS), :].astype(np.float64)
    mean: npt.NDArray[np.float64] = np.swapaxes(some, -1, -2) @ some / some.shape[-2]
    return mean


def diffused(kernels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Round float32 (a, b, *taps) to float16, each tap taking over the error of the one before, the largest first.

    Neighbouring pixels are much alike, so what a kernel does to them follows its sum, which is kept to within the
    rounding of its smallest tap. Plain rounding moves probabilities six times as far (see docs/results.md).
    """
    taps = kernels.reshape(kernels.shape[0] * kernels.shape[1], -1).astype(np.float64)
    rounded, error, rows = np.empty_like(taps), np.zeros(len(taps)), np.arange(len(taps))
    for columns in np.argsort(-np.abs(taps), axis=1, kind="stable").T:  # one tap of every kernel at a time
        exact = taps[rows, columns] + error
        rounded[rows, columns] = exact.astype(np.float16)
        error = exact - rounded[rows, columns]
    return rounded.astype(np.float32).reshape(kernels.shape)


def nearest_float16(column: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The nearest values that float16 has: a grid for ``compensated``."""
    return column.astype(np.float16).astype(np.float64)


def compensated(
    weights: npt.NDArray[np.float32],
    moments: npt.NDArray[np.float64],
    nearest: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]],
) -> npt.NDArray[np.float32]:
    """Round weights, each one's error made up for by those of inputs that go along with it.

    E. Frantar, S. Ashkboos, T. Hoefler, D. Alistarh, "GPTQ: Accurate Post-Training Quantization for Generative
    Pre-trained Transformers", ICLR 2023. An input is a channel of a 1x1 convolution, or a tap of a channel.

    Args:
        weights: float32 (..., out, in), of layers whose output is ``weights @ input``.
        moments: mean of ``input * input^T`` on photos, (..., in, in).
        nearest: an input's weights (..., out) -> the nearest values that the file can hold, as ``nearest_float16``.
    """
    count = weights.shape[-1]
    strengths = np.diagonal(moments, axis1=-2, axis2=-1)
    order = np.argsort(-strengths, axis=-1, kind="stable")  # the largest first, as long as there are others left
    columns = order[..., np.newaxis, :]
    ordered = np.take_along_axis(np.take_along_axis(moments, order[..., np.newaxis], -2), columns, -1)
    damping = _DAMPING * strengths.mean(axis=-1) + _TINY
    stable = ordered + np.eye(count) * damping[..., np.newaxis, np.newaxis]
    upper = np.swapaxes(np.linalg.cholesky(np.linalg.inv(stable)), -1, -2)
    exact = np.take_along_axis(weights.astype(np.float64), columns, -1)
    rounded = np.empty_like(exact)
    for index in range(count):
        rounded[..., index] = nearest(exact[..., index])
        error = (exact[..., index] - rounded[..., index]) / upper[..., index, index, np.newaxis]
        exact[..., index + 1 :] -= error[..., np.newaxis] * upper[..., index, np.newaxis, index + 1 :]
    result = np.empty_like(weights)
    np.put_along_axis(result, columns, rounded.astype(weights.dtype), -1)
    return result


def rounded_integers(
    weights: npt.NDArray[np.float32], moments: npt.NDArray[np.float64], steps: npt.NDArray[np.float64], largest: int
) -> npt.NDArray[np.int8]:
    """``compensated`` for weights (..., out, in) that are held as integers times ``steps`` (..., out).

    ``largest``: of those integers.
    """

    def nearest(column: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.clip(np.rint(column / steps), -largest, largest) * steps

    return np.rint(compensated(weights, moments, nearest) / steps[..., np.newaxis]).astype(np.int8)

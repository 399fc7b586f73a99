"""Rounding weights to float16 so that what a layer computes moves least."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def diffused(kernels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Round to float16, each tap taking over the error of the one before, the largest first.

    Neighbouring pixels are much alike, so what a kernel does to them follows its sum, which is kept to within the
    rounding of its smallest tap. Plain rounding moves probabilities six times as far (see docs/results.md).

    Args:
        kernels: float32 (a, b, *taps).
    """
    taps = kernels.reshape(kernels.shape[0] * kernels.shape[1], -1).astype(np.float64)
    rounded, error, rows = np.empty_like(taps), np.zeros(len(taps)), np.arange(len(taps))
    for columns in np.argsort(-np.abs(taps), axis=1, kind="stable").T:  # one tap of every kernel at a time
        wanted = taps[rows, columns] + error
        rounded[rows, columns] = wanted.astype(np.float16)
        error = wanted - rounded[rows, columns]
    return rounded.astype(np.float32).reshape(kernels.shape)

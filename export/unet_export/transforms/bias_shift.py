"""Bias correction: what rounding the weights does to the mean of a layer's output, given back by its bias.

M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight Equalization and Bias
Correction", ICCV 2019. Behind a ReLU6 all inputs are positive, so that the errors of a kernel's weights do not average
out: each channel of the output moves by their sum, the same way at every pixel, and the layers behind add that up.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def bias_shift(
    error: npt.NDArray[np.floating], means: npt.NDArray[np.float64], groups: int = 1
) -> npt.NDArray[np.float64]:
    """What to add to a layer's biases, (out,), so that its output keeps its mean.

    Pixels at the photo's edge see fewer taps, and are corrected as the others.

    Args:
        error: exact weights less the rounded ones, (out, in / groups, *taps).
        means: of the input's channels on calibration photos, (in,).
        groups: into which input and output are divided; of a depthwise convolution as many as inputs.
    """
    outputs, inputs = error.shape[:2]
    sums = error.reshape(outputs, inputs, -1).sum(axis=2, dtype=np.float64)
    seen = np.repeat(means.reshape(groups, inputs), outputs // groups, axis=0)  # (out, in / groups)
    shift: npt.NDArray[np.float64] = (sums * seen).sum(axis=1)
    return shift

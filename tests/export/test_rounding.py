"""float16 kernels keep their sums: what a flat neighbourhood becomes is what it was."""

from __future__ import annotations

import numpy as np

from unet_export.formats.rounding import diffused


def test_values_are_those_of_float16_and_sums_are_kept() -> None:
    kernels = np.random.default_rng(1).normal(0, 0.3, (16, 8, 3, 3)).astype(np.float32)
    rounded = diffused(kernels)
    assert rounded.dtype == np.float32
    assert (rounded == rounded.astype(np.float16)).all()
    assert np.abs(rounded - kernels).max() < 2e-3

    def error(values: np.ndarray) -> float:
        return float(
            np.abs(values.sum(axis=(2, 3), dtype=np.float64) - kernels.sum(axis=(2, 3), dtype=np.float64)).mean()
        )

    assert error(rounded) < 0.2 * error(kernels.astype(np.float16))


def test_what_float16_can_hold_is_left_alone() -> None:
    kernels = np.random.default_rng(2).normal(0, 1, (2, 2, 5, 5)).astype(np.float16).astype(np.float32)
    assert (diffused(kernels) == kernels).all()

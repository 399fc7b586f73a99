"""The identity of trained weights: one definition for training and export."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


def weights_sha256(weights: Iterable[tuple[str, npt.ArrayLike]]) -> str:
    """SHA-256 of the names, shapes and float32 bytes of a model's weights, (name, values), in the model's order."""
    digest = hashlib.sha256()
    for name, values in weights:
        array = np.ascontiguousarray(values, np.float32)
        digest.update(f"{name} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()

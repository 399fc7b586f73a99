"""The digest that identifies trained weights, whatever file holds them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


def weights_sha256(weights: Iterable[tuple[str, npt.NDArray[np.generic]]]) -> str:
    """SHA-256 of all weights' names, shapes and float32 bytes, as ``Provenance.weights_sha256`` records it.

    Args:
        weights: (name, array) in the model's order.
    """
    digest = hashlib.sha256()
    for name, array in weights:
        value = np.ascontiguousarray(array, np.float32)
        digest.update(f"{name} {value.shape}".encode() + value.tobytes())
    return digest.hexdigest()

"""What every engine offers; one module an engine, each importing its engine only when it is loaded."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from unet_runtime.artifact import Artifact


class Backend(Protocol):
    """A model loaded into an engine."""

    name: str
    """``onnx``, ``tflite`` or ``openvino``."""
    device: str
    """Where the model really runs, read back from the engine: ``cpu`` or ``cuda``."""
    engine: str
    """Engine and version for people: ``ONNX Runtime 1.31.1``."""

    note: str
    """Why a faster device was not taken, where there is one; else empty."""

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, h, w, 3) RGB 0..255, NHWC -> float32 probabilities (n, h', w', classes).

        Raises:
            BackendError: the engine refuses the input or fails.
        """
        ...


class Load(Protocol):
    """``load`` of every backend module."""

    def __call__(self, artifact: Artifact, device: str, threads: int | None) -> Backend:
        """Load a verified model file.

        Args:
            artifact: the model.
            device: ``auto``, ``cpu`` or ``cuda``; ``auto`` takes the fastest that really runs.
            threads: CPU threads; None lets the engine choose.

        Raises:
            BackendError: the engine is not installed, or does not run on ``device``.
            ModelFileError: the engine refuses the model.
        """
        ...

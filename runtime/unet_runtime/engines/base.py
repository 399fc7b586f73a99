"""What every engine offers; one module an engine, each importing its engine only when it is loaded."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from unet_runtime.core.artifact import Artifact


class Backend(Protocol):
    """A model loaded into an engine."""

    name: str
    """``onnx``, ``tflite`` or ``openvino``."""
    device: str
    """Where the model really runs, read back from the engine: ``cpu``, ``cuda`` or ``tensorrt``."""
    engine: str
    """Engine and version for people: ``ONNX Runtime 1.31.1``."""
    note: str
    """Why a faster device was not taken, or what of the model it leaves to the CPU; else empty."""

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, h, w, 3) RGB 0..255, NHWC -> float32 probabilities (n, h', w', classes).

        May be called from several threads; the answer belongs to the caller.

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
            device: ``cpu``, ``cuda``, ``tensorrt``, or ``auto``: CUDA where it really runs, else the CPU.
            threads: CPU threads; None: the cores that this process may use.

        Raises:
            BackendError: the engine is not installed, or does not run on ``device``.
            ModelFileError: the engine refuses the model.
        """
        ...

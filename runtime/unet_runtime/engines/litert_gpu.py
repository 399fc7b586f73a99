"""LiteRT's GPU accelerator, on Linux WebGPU through Vulkan: taken only where it has the whole model."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_runtime.core.artifact import Artifact
from unet_runtime.core.errors import BackendError
from unet_runtime.engines.base import Backend, split_device
from unet_runtime.engines.drivers import DRIVERS

if TYPE_CHECKING:
    import numpy.typing as npt


class LiteRTGpuBackend:
    """One compiled model with a buffer for its input and one for its output, so ``run`` takes turns under a lock."""

    name = "tflite"
    device = "gpu"
    note = "integers are computed as real numbers"

    batch = 1

    def __init__(self, compiled: Any, output: Any, engine: str) -> None:
        self._compiled = compiled
        (self._input,) = compiled.create_input_buffers(0)
        (self._output,) = compiled.create_output_buffers(0)
        self._shape: tuple[int, ...] = tuple(output["shape"].tolist())
        self._dtype: type[Any] = output["dtype"]
        self._scale, self._zero_point = output["quantization"]
        self._lock = threading.Lock()
        self.scaling = (0.0, 0)
        self.engine = engine

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, h, w, 3) RGB 0..255 -> float32 probabilities or logits (n, h', w', classes), dequantised."""
        results = np.empty((len(images), *self._shape[1:]), np.float32)
        try:
            with self._lock:
                for index in range(len(images)):
                    self._input.write(np.ascontiguousarray(images[index : index + 1]))
                    self._compiled.run_by_index(0, [self._input], [self._output])
                    found = self._output.read(int(np.prod(self._shape)), self._dtype)
                    results[index] = found.reshape(self._shape)[0]
        except (ValueError, RuntimeError) as error:
            raise BackendError(f"LiteRT failed on input {images.dtype}{images.shape}: {error}") from error
        if self._scale:
            results -= self._zero_point
            results *= self._scale
        return results


def load(artifact: Artifact, device: str, output: Any, engine: str) -> Backend:
    """Compile a model, whose output is described as LiteRT's interpreter does, for the GPU.

    Raises:
        BackendError: no GPU, one that the accelerator refuses, or one that it leaves a part of the model out for.
    """
    if split_device(device)[1]:
        raise BackendError(f"device {device}: LiteRT takes the GPU that the system prefers, expected gpu, no number")
    if not artifact.spec.is_plain:
        raise BackendError(f"device {device}: LiteRT runs models of unet-export alone on it: take --device cpu")
    try:
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    except ImportError as error:
        raise BackendError(
            f"device {device}: {engine} has no GPU accelerator: pip install --upgrade ai-edge-litert"
        ) from error
    try:
        compiled = CompiledModel.from_buffer(artifact.content, hardware_accel=HardwareAccelerator.GPU)
        is_whole = compiled.is_fully_accelerated()
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BackendError(f"device {device}: {engine} does not start it: {reason}: {DRIVERS}") from error
    if not is_whole:
        raise BackendError(f"device {device}: {engine} leaves a part of the model to the CPU: take --device cpu")
    return LiteRTGpuBackend(compiled, output, engine)

"""OpenVINO: reads ONNX files; the fastest engine on many Intel CPUs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from unet_runtime.core import cores
from unet_runtime.core.artifact import Artifact
from unet_runtime.core.errors import BackendError, ModelFileError

_OUTPUT = "probabilities"


class OpenVINOBackend:
    """One compiled model; each call makes its own request, so ``run`` may be called from several threads."""

    name = "openvino"
    device = "cpu"
    note = ""

    def __init__(self, model: Any, output: int) -> None:
        self._model = model
        self._output = output
        self.engine = f"OpenVINO {openvino.get_version().split('-')[0]}"

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, h, w, 3) RGB 0..255 -> float32 probabilities (n, h', w', classes)."""
        try:
            request = self._model.create_infer_request()
            # The pixels are read where they lie; the answer is copied out of the request, and so the caller's own.
            result: npt.NDArray[np.float32] = request.infer({0: images}, share_inputs=True)[self._output]
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed on input {images.dtype}{images.shape}: {error}") from error
        return result


def load(artifact: Artifact, device: str, threads: int | None) -> OpenVINOBackend:
    """See ``backends.base.Load``."""
    if device in ("cuda", "tensorrt"):
        raise BackendError(f"device {device}: OpenVINO does not run on NVIDIA GPUs: use --backend onnx")
    # float32 whatever the CPU prefers: bfloat16 by default would not be the model that was proven.
    # LATENCY: all threads work on one photo; the engine counts physical cores, but no container's quota.
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    limited = threads or cores.limit()
    if limited:
        config["INFERENCE_NUM_THREADS"] = limited
    try:
        core = openvino.Core()
        model: Any = core.compile_model(core.read_model(model=artifact.content), "CPU", config)
    except RuntimeError as error:
        raise ModelFileError(f"{artifact.path}: OpenVINO refuses it: {error}") from error
    if len(model.inputs) != 1 or not model.outputs:  # it accepts an empty graph
        raise ModelFileError(
            f"{artifact.path}: OpenVINO refuses it: {len(model.inputs)} inputs and {len(model.outputs)} outputs, "
            "expected one input, and one output or more"
        )
    return OpenVINOBackend(model, _probabilities(artifact, model.outputs))


def _probabilities(artifact: Artifact, outputs: list[Any]) -> int:
    """Position of the contract's output: the only one, or of several the one of that name."""
    names = [sorted(output.get_names()) for output in outputs]
    found = [position for position, known in enumerate(names) if _OUTPUT in known]
    if len(outputs) == 1:
        return 0
    if len(found) != 1:
        raise ModelFileError(f"{artifact.path}: OpenVINO finds outputs {names}, expected one named {_OUTPUT}")
    return found[0]

"""OpenVINO: reads ONNX files; the fastest engine on many Intel CPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unet_runtime.core import cores
from unet_runtime.core.artifact import Artifact
from unet_runtime.core.errors import BackendError, ModelFileError
from unet_runtime.engines.base import FLOAT_ONNX, Backend, Device, Engine, Tensor, check_graph, output_position

if TYPE_CHECKING:
    import numpy.typing as npt

_OUTPUT = "probabilities"


class OpenVINOBackend:
    """One compiled model; each call makes its own request, so ``run`` may be called from several threads."""

    name = "openvino"
    device = "cpu"
    note = ""
    scaling = (0.0, 0)

    def __init__(self, model: Any, output: int, engine: str) -> None:
        batch = model.inputs[0].partial_shape[0]
        self.batch: int | None = batch.get_length() if batch.is_static else None
        self._model = model
        self._output = output
        self.engine = engine

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, h, w, 3) RGB 0..255 -> float32 probabilities (n, h', w', classes)."""
        try:
            request = self._model.create_infer_request()
            # The pixels are read in place; the result is copied out of the request, and so the caller's own.
            result: npt.NDArray[np.float32] = request.infer({0: images}, share_inputs=True)[self._output]
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed on input {images.dtype}{images.shape}: {error}") from error
        return result


def load(artifact: Artifact, device: Device, threads: int | None) -> Backend:
    """See ``base.Load``."""
    import openvino

    # float32 whatever the CPU prefers: bfloat16, the default on some
    # (https://github.com/openvinotoolkit/openvino/issues/28032), would not be the model that was proven.
    # LATENCY: all threads work on one photo; the engine counts physical cores, but no container's quota.
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    limited = threads or cores.limit()
    if limited:
        config["INFERENCE_NUM_THREADS"] = limited
    try:
        core = openvino.Core()
        model: Any = core.compile_model(core.read_model(model=artifact.content), "CPU", config)
    except (RuntimeError, UnicodeError) as error:  # its message may quote bytes of the file
        raise ModelFileError(f"{artifact.path}: OpenVINO refuses it: {error}") from error
    if len(model.inputs) != 1 or not model.outputs:  # it accepts an empty graph
        raise ModelFileError(
            f"{artifact.path}: OpenVINO refuses it: {len(model.inputs)} inputs and {len(model.outputs)} outputs, "
            "expected one input, and one output or more"
        )
    position = _output_position(artifact, model.outputs)
    check_graph(artifact, [_tensor(port) for port in model.inputs], _tensor(model.outputs[position]))
    version = openvino.get_version().split("-")[0]
    return OpenVINOBackend(model, position, f"OpenVINO {version}")


def _output_position(artifact: Artifact, outputs: list[Any]) -> int:
    """Position of the probabilities: 0 if there is one output, else of the one with that name."""
    if len(outputs) == 1 and not artifact.spec.output.name:
        return 0
    names = [sorted(output.get_names()) for output in outputs]
    if not artifact.spec.is_plain:
        return output_position(artifact, names)
    found = [position for position, known in enumerate(names) if _OUTPUT in known]
    if len(found) != 1:
        raise ModelFileError(f"{artifact.path}: OpenVINO finds outputs {names}, expected one named {_OUTPUT}")
    return found[0]


def _tensor(port: Any) -> Tensor:
    sizes = [size.get_length() if size.is_static else str(size) for size in port.partial_shape]
    return port.element_type.to_dtype().name, sizes


ENGINE = Engine(
    name="openvino",
    label="OpenVINO",
    package="openvino",
    extra="openvino",
    suffixes=(".onnx",),
    default_model=FLOAT_ONNX,
    default_threads=cores.usable_cores,
    load=load,
    foreign=True,
)

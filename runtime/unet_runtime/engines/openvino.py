"""OpenVINO: reads ONNX files; the fastest engine on many Intel CPUs, and the one for Intel's GPUs and NPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unet_runtime.core import cores
from unet_runtime.core.artifact import Artifact
from unet_runtime.core.errors import BackendError, ModelFileError
from unet_runtime.engines import drivers
from unet_runtime.engines.base import (
    FLOAT_ONNX,
    Backend,
    Engine,
    Tensor,
    check_graph,
    output_position,
    split_device,
)

if TYPE_CHECKING:
    import numpy.typing as npt

_OUTPUT = "probabilities"

_PLUGINS = {"auto": "CPU", "cpu": "CPU", "gpu": "GPU", "npu": "NPU"}
"""Device -> OpenVINO's name."""

_DRIVERS = {
    "gpu": "install Intel's driver (Debian: apt-get install intel-opencl-icd) and join the groups video and render "
    '(sudo usermod -aG video,render "$USER", then log in again); for a GPU of another maker take '
    "--backend onnx or tflite",
    "npu": "install Intel's linux-npu-driver with its firmware (Linux 6.8 or newer has the kernel's part), and join "
    "the group render",
}


class OpenVINOBackend:
    """One compiled model; each call makes its own request, so ``run`` may be called from several threads."""

    name = "openvino"
    scaling = (0.0, 0)

    def __init__(self, model: Any, output: int, engine: str, device: str = "cpu", note: str = "") -> None:
        batch = model.inputs[0].partial_shape[0]
        self.batch: int | None = batch.get_length() if batch.is_static else None
        self._model = model
        self._output = output
        self._one_by_one = device.startswith("npu")  # its model is compiled for a batch of 1
        self.engine = engine
        self.device = device
        self.note = note

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, h, w, 3) RGB 0..255 -> float32 probabilities (n, h', w', classes)."""
        if self._one_by_one and len(images) > 1:
            return np.concatenate([self.run(images[index : index + 1]) for index in range(len(images))])
        try:
            request = self._model.create_infer_request()
            # The pixels are read in place; the result is copied out of the request, and so the caller's own.
            result: npt.NDArray[np.float32] = request.infer({0: images}, share_inputs=True)[self._output]
        except RuntimeError as error:
            raise BackendError(f"OpenVINO failed on input {images.dtype}{images.shape}: {error}") from error
        return result


def load(artifact: Artifact, device: str, threads: int | None) -> Backend:
    """See ``base.Load``."""
    import openvino

    # float32 whatever the CPU prefers: bfloat16, the default on some
    # (https://github.com/openvinotoolkit/openvino/issues/28032), would not be the model that was proven.
    # LATENCY: all threads work on one photo; the engine counts physical cores, but no container's quota.
    kind, number = split_device(device)
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    limited = threads or cores.limit()
    if limited and _PLUGINS[kind] == "CPU":
        config["INFERENCE_NUM_THREADS"] = limited
    core = openvino.Core()
    try:
        graph = core.read_model(model=artifact.content)
        if _PLUGINS[kind] == "CPU":
            model: Any = core.compile_model(graph, "CPU", config)
    except (RuntimeError, UnicodeError) as error:  # its message may quote bytes of the file
        raise ModelFileError(f"{artifact.path}: OpenVINO refuses it: {error}") from error
    if _PLUGINS[kind] != "CPU":
        model = _compile_on(core, graph, kind, number, config)
    if len(model.inputs) != 1 or not model.outputs:  # it accepts an empty graph
        raise ModelFileError(
            f"{artifact.path}: OpenVINO refuses it: {len(model.inputs)} inputs and {len(model.outputs)} outputs, "
            "expected one input, and one output or more"
        )
    position = _output_position(artifact, model.outputs)
    check_graph(artifact, [_tensor(port) for port in model.inputs], _tensor(model.outputs[position]))
    version = openvino.get_version().split("-")[0]
    if _PLUGINS[kind] == "CPU":
        return OpenVINOBackend(model, position, f"OpenVINO {version}")
    note = "an NPU computes in float16" if kind == "npu" else ""
    return OpenVINOBackend(model, position, f"OpenVINO {version}", used_device(model, device), note)


def _compile_on(core: Any, graph: Any, kind: str, number: int, config: dict[str, Any]) -> Any:
    """Compile a model for a GPU or NPU.

    Raises:
        BackendError: OpenVINO finds no such device, or its driver fails.
    """
    plugin = _PLUGINS[kind]
    found = [name for name in core.available_devices if name.partition(".")[0] == plugin]
    if number >= len(found):
        have = ", ".join(core.available_devices) or "none"
        raise BackendError(
            f"device {kind}:{number}: OpenVINO finds {len(found)} of them (it has {have}): {_DRIVERS[kind]}"
        )
    if kind == "npu":
        config = {"PERFORMANCE_HINT": "LATENCY"}  # it knows float16 alone
        height, width, channels = (int(size.get_length()) for size in list(graph.inputs[0].partial_shape)[1:])
        graph.reshape([1, height, width, channels])
    try:
        return core.compile_model(graph, found[number], config)
    except RuntimeError as error:
        raise BackendError(f"device {kind}:{number}: OpenVINO does not start it: {error}: {_DRIVERS[kind]}") from error


def used_device(model: Any, wanted: str) -> str:
    """The device that a compiled model runs on, read back: ``gpu`` or ``gpu:1``.

    Raises:
        BackendError: another one than was asked for.
    """
    kind, number = split_device(wanted)
    used = [str(name) for name in model.get_property("EXECUTION_DEVICES")]
    names = {_PLUGINS[kind], f"{_PLUGINS[kind]}.{number}"}
    if not used or not set(used) <= names:
        raise BackendError(f"device {wanted}: OpenVINO runs the model on {', '.join(used) or 'nothing'}")
    return f"{kind}:{number}" if number else kind


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


def _missing_for_gpu() -> str:
    problem = drivers.no_gpu()
    return f"{problem}: {_DRIVERS['gpu']}" if problem else ""


def _missing_for_npu() -> str:
    problem = drivers.no_npu()
    return f"{problem}: {_DRIVERS['npu']}" if problem else ""


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
    devices=("cpu", "gpu", "npu"),
    missing={"gpu": _missing_for_gpu, "npu": _missing_for_npu},
)

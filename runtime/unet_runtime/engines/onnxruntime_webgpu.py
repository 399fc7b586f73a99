"""ONNX Runtime's WebGPU provider, a plug-in of its own package: any GPU with Vulkan, Metal or Direct3D 12.

The engine hands a session whose adapter was refused to the CPU with a message alone; here that is an error, and the
session is asked which provider got which nodes.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from unet_runtime.core import install
from unet_runtime.core.artifact import Artifact
from unet_runtime.core.errors import BackendError
from unet_runtime.engines import onnxruntime_cpu as on_cpu
from unet_runtime.engines.base import Backend, split_device
from unet_runtime.engines.drivers import DRIVERS
from unet_runtime.engines.onnxruntime_cpu import TITLE
from unet_runtime.engines.onnxruntime_gpu import assigned

if TYPE_CHECKING:
    import numpy.typing as npt

NOT_INSTALLED = "ONNX Runtime's WebGPU plug-in, for GPUs of any maker, is not installed"

WEBGPU = "WebGpuExecutionProvider"

SOFTWARE = "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"
"""Variable of the environment that the plug-in reads: 1 lets it compute on the CPU, through a Vulkan in software."""


class WebGpuBackend(on_cpu.OnnxBackend):
    """One session on a GPU. ``run`` takes turns under a lock: there is one queue to the GPU."""

    def __init__(self, session: Any, output: int, note: str) -> None:
        super().__init__(session, output, note, "gpu")
        self._lock = threading.Lock()

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, h, w, 3) RGB 0..255 -> float32 probabilities (n, h', w', classes)."""
        with self._lock:
            return super().run(images)


def load(artifact: Artifact, device: str, threads: int | None) -> Backend:
    """See ``base.Load``; ``device`` is ``gpu``."""
    if split_device(device)[1]:
        raise BackendError(
            f"device {device}: WebGPU takes the GPU that the system prefers, expected gpu without number"
        )
    ort.set_default_logger_severity(on_cpu._FATAL_ONLY)
    found = _device()
    options = on_cpu.session_options(threads, artifact.spec.disabled_optimizers)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.add_provider_for_devices([found], {})
    try:
        session = ort.InferenceSession(artifact.content, options, enable_fallback=0)
    except Exception as error:  # the engine's exceptions share no base but Exception
        on_cpu.load(artifact, threads)  # a model that no device takes is the model's fault, and says so
        raise BackendError(f"device {device}: WebGPU does not start: {_reason(error)}: {DRIVERS}") from error
    session._model_bytes = None  # as in open_session
    position = on_cpu.check_session(artifact, session)
    used, note = assigned(session)
    if used != WEBGPU:
        raise BackendError(f"device {device}: WebGPU was given no part of the model, which runs on {used}")
    if found.device.type == ort.OrtHardwareDeviceType.CPU:
        note = "; ".join(filter(None, ("the adapter is software: this is the CPU", note)))
    backend = WebGpuBackend(session, position, note)
    if artifact.spec.is_plain:  # shaders are compiled in the first run, not at the first photo
        backend.run(np.zeros((1, artifact.spec.input.height, artifact.spec.input.width, 3), np.uint8))
    return backend


@cache
def _register() -> None:
    """Make the plug-in known to the engine, once in a process.

    Raises:
        BackendError: it is not installed, or not one for this engine.
    """
    try:
        import onnxruntime_ep_webgpu as plugin
    except ImportError as error:
        raise BackendError(
            f"device gpu: {NOT_INSTALLED}: {install.pip_command('webgpu')}, or for a GPU of Intel's "
            f"{install.pip_command('openvino')}"
        ) from error
    try:
        ort.register_execution_provider_library("unet-edge-webgpu", plugin.get_library_path())
    except Exception as error:  # as above; ONNX Runtime before 1.24.4 has no such function, or refuses the library
        raise BackendError(
            f"{TITLE} does not take its WebGPU plug-in ({error}): {install.pip_command('webgpu')} --upgrade"
        ) from error


def _device() -> Any:
    """The engine's device for the plug-in.

    Raises:
        BackendError: there is none.
    """
    _register()
    devices = ort.get_ep_devices()
    for found in devices:
        if found.ep_name == WEBGPU:
            return found
    raise BackendError(f"device gpu: WebGPU finds no GPU: {DRIVERS}")


def _reason(error: Exception) -> str:
    """What Dawn says of a refused adapter, without the engine's own place in its source."""
    lines = list(filter(None, map(str.strip, str(error).splitlines())))
    return " ".join(lines).partition("Error creating execution provider: ")[2][:300] or lines[0][:300]

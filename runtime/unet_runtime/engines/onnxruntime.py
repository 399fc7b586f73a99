"""ONNX Runtime on the CPU, and the way to its GPU providers (onnxruntime_gpu.py, imported where one is wanted)."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from unet_runtime.core import cores
from unet_runtime.core.artifact import Artifact
from unet_runtime.core.errors import BackendError, ModelFileError
from unet_runtime.engines import wheels
from unet_runtime.engines.base import Backend

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"

ENGINE = f"ONNX Runtime {ort.__version__}"  # here, because a half-removed wheel has no version: found at import

GPU_HINT = wheels.replace_by("cuda")

_FATAL_ONLY = 4  # what the engine has to say is said by our exceptions, once

_NVIDIA_DRIVER = (
    "/proc/driver/nvidia/version",  # Linux
    "/etc/nv_tegra_release",  # Jetson
    "/usr/lib/wsl/lib/libcuda.so.1",  # Linux within Windows
    "C:/Windows/System32/nvcuda.dll",
)
"""One of them is there where an NVIDIA driver is installed."""


class OnnxBackend:
    """One session on the CPU. ``run`` may be called from several threads: sessions are thread-safe."""

    name = "onnx"
    device = "cpu"

    def __init__(self, session: Any, note: str = "") -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name
        self.engine = ENGINE
        self.note = note

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, h, w, 3) RGB 0..255 -> float32 probabilities (n, h', w', classes)."""
        try:
            result: npt.NDArray[np.float32] = self._session.run([self._output], {self._input: images})[0]
        except Exception as error:  # the engine's exceptions share no base but Exception
            raise BackendError(f"ONNX Runtime failed on input {images.dtype}{images.shape}: {error}") from error
        return result


def load(artifact: Artifact, device: str, threads: int | None) -> Backend:
    """See ``backends.base.Load``."""
    ort.set_default_logger_severity(_FATAL_ONLY)
    if device == "cpu":
        return load_cpu(artifact, threads)
    if device == "auto" and CUDA not in ort.get_available_providers():
        return load_cpu(artifact, threads, _idle_gpu())
    from unet_runtime.engines import onnxruntime_gpu  # no machine without a GPU pays for it

    return onnxruntime_gpu.load(artifact, device, threads)


def load_cpu(artifact: Artifact, threads: int | None, note: str = "") -> OnnxBackend:
    """The model on the CPU; ``note`` says why not on a GPU.

    Raises:
        ModelFileError: the engine refuses the model.
    """
    try:
        return OnnxBackend(open_session(artifact, session_options(threads), [CPU]), note)
    except Exception as error:  # as above; undamaged, so a model this engine's version cannot run
        raise ModelFileError(f"{artifact.path}: {ENGINE} refuses it: {error}") from error


def session_options(threads: int | None) -> Any:
    """What differs from the engine's defaults; docs/devices.md has the figures."""
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    # 0: the engine counts physical cores and pins a thread to each. In a container it counts the whole machine's.
    options.intra_op_num_threads = threads or cores.limit() or 0
    # Threads wait for work by spinning, which makes a run faster, and by default go on after it: that takes the
    # cores from whoever decodes the next photo, and a camera's battery for nothing.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def open_session(artifact: Artifact, options: Any, providers: list[Any]) -> Any:
    """A session on ``providers`` or an error: the engine's own fallback prints, and hides where it runs."""
    session = ort.InferenceSession(artifact.content, options, providers=providers, enable_fallback=0)
    session._model_bytes = None  # kept for that fallback only: as much memory as the file is long
    return session


def nvidia_driver() -> bool:
    """Whether an NVIDIA driver is installed."""
    return any(os.path.exists(path) for path in _NVIDIA_DRIVER)  # noqa: PTH110 - pathlib costs every start more


def _idle_gpu() -> str:
    """A note where there is an NVIDIA driver, which this wheel of the engine cannot use."""
    if nvidia_driver():
        return f"an NVIDIA driver is installed, but this ONNX Runtime has no CUDA provider: {GPU_HINT}"
    return ""

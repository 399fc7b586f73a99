"""ONNX Runtime on the CPU, and what its GPU providers have in common with it. Importing it imports the engine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from unet_runtime.core import cores
from unet_runtime.core.artifact import Artifact
from unet_runtime.core.errors import BackendError, ModelFileError
from unet_runtime.core.spec import ALL_OPTIMIZERS
from unet_runtime.engines import wheels
from unet_runtime.engines.base import Tensor, check_graph, output_position

if TYPE_CHECKING:
    import numpy.typing as npt

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

TITLE = f"ONNX Runtime {ort.__version__}"  # here, because a half-removed wheel has no version: found at import

_NUMPY_TYPES = {"float": "float32", "double": "float64"}

_FATAL_ONLY = 4  # what the engine has to say is said by our exceptions, once

_NVIDIA_DRIVER = (
    "/proc/driver/nvidia/version",  # Linux
    "/etc/nv_tegra_release",  # Jetson
    "/usr/lib/wsl/lib/libcuda.so.1",  # Linux within Windows
    "C:/Windows/System32/nvcuda.dll",
)
"""One of these files exists where an NVIDIA driver is installed."""


class OnnxBackend:
    """One session on the CPU. ``run`` may be called from several threads: sessions are thread-safe."""

    name = "onnx"
    scaling = (0.0, 0)

    def __init__(self, session: Any, output: int = 0, note: str = "", device: str = "cpu") -> None:
        source = session.get_inputs()[0]
        self._session = session
        self._input = source.name
        self._output = session.get_outputs()[output].name
        self.batch = source.shape[0] if isinstance(source.shape[0], int) else None
        self.device = device
        self.engine = TITLE
        self.note = note

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, h, w, 3) RGB 0..255 -> float32 probabilities (n, h', w', classes)."""
        try:
            result: npt.NDArray[np.float32] = self._session.run([self._output], {self._input: images})[0]
        except Exception as error:  # the engine's exceptions share no base but Exception
            raise BackendError(f"ONNX Runtime failed on input {images.dtype}{images.shape}: {error}") from error
        return result


def load(artifact: Artifact, threads: int | None, note: str = "") -> OnnxBackend:
    """Load a model on the CPU; ``note`` says why not on a GPU.

    Raises:
        ModelFileError: the engine refuses the model.
    """
    ort.set_default_logger_severity(_FATAL_ONLY)
    try:
        session = open_session(artifact, session_options(threads, artifact.spec.disabled_optimizers), [CPU])
        return OnnxBackend(session, check_session(artifact, session), note)
    except ModelFileError:
        raise
    except Exception as error:  # as above; undamaged, so a model this engine's version cannot run
        raise ModelFileError(f"{artifact.path}: {TITLE} refuses it: {error}") from error


def session_options(threads: int | None, disabled: Sequence[str] = ()) -> Any:
    """What differs from the engine's defaults; docs/devices.md has the measurements.

    Args:
        threads: of the engine; None: the cores of this process.
        disabled: ``ModelSpec.disabled_optimizers``; the engine ignores a name that it has not.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    # 0: the engine counts physical cores and pins a thread to each. It does not see a container's quota:
    # https://github.com/microsoft/onnxruntime/issues/29510
    options.intra_op_num_threads = threads or cores.limit() or 0
    # Threads wait for work by spinning, which makes a run faster, and by default go on after it: that takes the
    # cores from whoever decodes the next photo (https://github.com/microsoft/onnxruntime/pull/11841).
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if ALL_OPTIMIZERS in disabled:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    elif disabled:
        options.add_session_config_entry("optimization.disable_specified_optimizers", ";".join(disabled))
    return options


def open_session(artifact: Artifact, options: Any, providers: list[Any]) -> Any:
    """A session on ``providers`` or an error.

    The engine's own fallback prints, and hides where a model runs: it is switched off
    (https://github.com/microsoft/onnxruntime/issues/21424).
    """
    session = ort.InferenceSession(artifact.content, options, providers=providers, enable_fallback=0)
    session._model_bytes = None  # kept for that fallback only: as much memory as the file is long
    return session


def check_session(artifact: Artifact, session: Any) -> int:
    """Compare a session's input and output with the model's spec; returns the position of the output.

    Raises:
        ModelFileError: they differ.
    """
    inputs = [_tensor(entry) for entry in session.get_inputs()]
    outputs = session.get_outputs()
    position = output_position(artifact, [[entry.name] for entry in outputs])
    check_graph(artifact, inputs, _tensor(outputs[position]))
    return position


def _tensor(entry: Any) -> Tensor:
    dtype = entry.type.removeprefix("tensor(").removesuffix(")")
    return _NUMPY_TYPES.get(dtype, dtype), entry.shape


def has_cuda_provider() -> bool:
    """Whether the installed wheel is one with CUDA."""
    return CUDA in ort.get_available_providers()


def has_nvidia_driver() -> bool:
    """Whether an NVIDIA driver is installed."""
    return any(map(os.path.exists, _NVIDIA_DRIVER))  # pathlib costs every start more


def unused_gpu() -> str:
    """A note where there is an NVIDIA driver that a wheel without CUDA cannot use; else empty."""
    if has_nvidia_driver():
        remedy = wheels.replace_by("cuda")
        return f"an NVIDIA driver is installed, but this ONNX Runtime has no CUDA provider: {remedy}"
    return ""

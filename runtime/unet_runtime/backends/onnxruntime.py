"""ONNX Runtime: the CPU provider everywhere, the CUDA provider where it really runs."""

from __future__ import annotations

import contextlib
import ctypes
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from unet_runtime.artifact import Artifact
from unet_runtime.errors import BackendError, ModelFileError

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
_GPU_HINT = 'pip uninstall -y onnxruntime onnxruntime-gpu && pip install "unet-edge-runtime[cuda]"'
_FATAL_ONLY = 4  # what the engine has to say is said by our exceptions, once


class OnnxBackend:
    """One session. ``run`` may be called from several threads: sessions are thread-safe."""

    name = "onnx"

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name
        # What was asked for is no proof: the engine falls back to the CPU with a log line only.
        self.device = "cuda" if session.get_providers()[0] == _CUDA else "cpu"
        self.engine = f"ONNX Runtime {ort.__version__}"
        self.note = ""

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, h, w, 3) RGB 0..255 -> float32 probabilities (n, h', w', classes)."""
        try:
            result: npt.NDArray[np.float32] = self._session.run([self._output], {self._input: images})[0]
        except Exception as error:  # the engine's exceptions share no base but Exception
            raise BackendError(f"ONNX Runtime failed on input {images.dtype}{images.shape}: {error}") from error
        return result


def load(artifact: Artifact, device: str, threads: int | None) -> OnnxBackend:
    """See ``backends.base.Load``."""
    ort.set_default_logger_severity(_FATAL_ONLY)
    if device == "cpu" or (device == "auto" and _CUDA not in ort.get_available_providers()):
        return OnnxBackend(_session(artifact, [_CPU], threads))
    return _load_cuda(artifact, device, threads)


def _load_cuda(artifact: Artifact, device: str, threads: int | None) -> OnnxBackend:
    """The CUDA provider, or with ``auto`` the CPU where CUDA does not really run."""
    if _CUDA not in ort.get_available_providers():
        raise BackendError(
            f"device cuda: the installed {_distributions()} has no CUDA provider "
            f"(it has {', '.join(ort.get_available_providers())}): {_GPU_HINT}"
        )
    with contextlib.redirect_stdout(io.StringIO()):  # it prints each library that it cannot find
        ort.preload_dlls()
    backend = OnnxBackend(_session(artifact, [_CUDA, _CPU], threads))
    if backend.device != "cuda":
        reason = f"the CUDA provider does not start ({_missing_library()})"
        if device == "cuda":
            raise BackendError(f"device cuda: {reason}. Install the NVIDIA driver, then: {_GPU_HINT}")
        backend.note = reason
    return backend


def _session(artifact: Artifact, providers: list[str], threads: int | None) -> ort.InferenceSession:
    options: Any = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return ort.InferenceSession(artifact.content, options, providers=providers)
    except Exception as error:  # as above; undamaged, so a model this engine's version cannot run
        raise ModelFileError(f"{artifact.path}: ONNX Runtime {ort.__version__} refuses it: {error}") from error


def _missing_library() -> str:
    """Load the provider's library as the engine does: the loader's message names what is missing."""
    provider = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(provider))
    except OSError as error:
        return str(error).replace(str(provider.parent) + "/", "")
    return "its libraries load, but no usable GPU was found"


def _distributions() -> str:
    """Which wheels of the engine are installed: both at once share a folder and break each other."""
    import importlib.metadata  # 20 ms that only an error message needs

    found = []
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return " and ".join(found) or f"onnxruntime {ort.__version__}"

"""ONNX Runtime's CUDA and TensorRT providers: taken only where they really run, bound to buffers on the GPU.

What was asked for is no proof. The engine lists providers whose libraries are missing, and a session may open with
a provider that got none of the model's nodes (https://github.com/microsoft/onnxruntime/issues/17801): so the session
is asked which provider got which, and then run once.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import os
import re
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from unet_runtime.core.artifact import Artifact
from unet_runtime.core.errors import BackendError, ModelFileError
from unet_runtime.engines import nvidia, wheels
from unet_runtime.engines import onnxruntime_cpu as on_cpu
from unet_runtime.engines.base import Backend, split_device
from unet_runtime.engines.onnxruntime_cpu import CPU, CUDA, TITLE

TENSORRT = "TensorrtExecutionProvider"

TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"

_PROVIDERS = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}

_TITLES = {"cuda": "CUDA", "tensorrt": "TensorRT"}

CUDA_OPTIONS = {
    # TF32 keeps 10 of float32's 23 bits of mantissa: not the model that the parity gate proved to 1e-5
    # (https://github.com/microsoft/onnxruntime/pull/19426).
    "use_tf32": "0",
    # The default, EXHAUSTIVE, makes the first run of each new batch size slow
    # (https://github.com/microsoft/onnxruntime/issues/19838).
    "cudnn_conv_algo_search": "HEURISTIC",
    # The default doubles what it takes: on a Jetson the GPU's memory is everyone's.
    "arena_extend_strategy": "kSameAsRequested",
}


class GpuBackend:
    """One session on a GPU. ``run`` takes turns under a lock: its buffers on the GPU are used again."""

    name = "onnx"

    def __init__(self, session: Any, artifact: Artifact, device: str, index: int, note: str) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name
        output = artifact.spec.output
        self._result_shape = (output.height, output.width, len(artifact.spec.classes))
        self._image: Any = None  # on the GPU, shape (n, h, w, 3) of the call before
        self._shape: tuple[int, ...] = ()
        self._lock = threading.Lock()
        self._one_by_one = device == "tensorrt"  # its engine is built for a batch of 1
        self._index = index
        self.device = f"{device}:{index}" if index else device
        self.engine = TITLE
        self.note = note

    def run(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """uint8 (n, h, w, 3) RGB 0..255 -> float32 probabilities (n, h', w', classes).

        The pixels are copied to the GPU once, the probabilities back once, straight into the array returned.
        """
        results = np.empty((len(images), *self._result_shape), np.float32)
        step = 1 if self._one_by_one else max(1, len(images))
        try:
            with self._lock:
                for first in range(0, len(images), step):
                    part = slice(first, first + step)
                    self._run(np.ascontiguousarray(images[part]), results[part])
        except Exception as error:  # the engine's exceptions share no base but Exception
            problem = f"ONNX Runtime failed on input {images.dtype}{images.shape}: {error}"
            raise BackendError(_with_remedy(problem, self._index)) from error
        return results

    def _run(self, images: npt.NDArray[np.uint8], results: npt.NDArray[np.float32]) -> None:
        if images.shape != self._shape:
            self._image = ort.OrtValue.ortvalue_from_shape_and_type(
                images.shape, images.dtype.type, "cuda", self._index
            )
            self._binding.bind_ortvalue_input(self._input, self._image)
            self._shape = images.shape
        self._image.update_inplace(images)
        self._binding.bind_output(self._output, "cpu", 0, np.float32, results.shape, results.ctypes.data)
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()


def load(artifact: Artifact, device: str, threads: int | None) -> Backend:
    """See ``base.Load``; ``auto`` takes CUDA, or else the CPU, with a note that says why."""
    if device != "auto":
        return _load_gpu(artifact, device, threads)
    try:
        return _load_gpu(artifact, "cuda", threads)
    except BackendError as error:
        return on_cpu.load(artifact, threads, str(error))


def _load_gpu(artifact: Artifact, named: str, threads: int | None) -> Backend:
    device, index = split_device(named)
    reason = missing(device) or _missing_gpu(index)
    if reason:
        raise BackendError(f"device {named}: {reason}")
    number = {"device_id": str(index)}
    providers: list[Any] = [(CUDA, CUDA_OPTIONS | number), CPU]
    options = on_cpu.session_options(threads, artifact.spec.disabled_optimizers)
    # Recorded from ONNX Runtime 1.24 on: which provider got which node.
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if device == "tensorrt":
        options.add_free_dimension_override_by_name("batch", 1)  # else the engine is built anew for other sizes
        providers.insert(0, (TENSORRT, tensorrt_options(artifact, index) | number))
    try:
        session = on_cpu.open_session(artifact, options, providers)
        position = on_cpu.check_session(artifact, session)
        used, note = assigned(session)
        if used != device:
            raise BackendError(f"device {named}: its provider was given no part of the model, which runs on {used}")
        note = joined_notes(note, tf32_note(artifact, used))
        if not artifact.spec.is_plain:  # what it gives has a shape of its own
            return on_cpu.OnnxBackend(session, position, note, used)
        backend = GpuBackend(session, artifact, used, index, note)
        # Kernels are loaded, algorithms chosen and TensorRT's engine built in the first run, not at the first photo.
        backend.run(np.zeros((1, artifact.spec.input.height, artifact.spec.input.width, 3), np.uint8))
    except (BackendError, ModelFileError):
        raise
    except Exception as error:  # as above
        on_cpu.load(artifact, threads)  # a model that no device takes is the model's fault, and says so
        raise BackendError(_with_remedy(f"device {named}: {TITLE} does not start it: {error}", index)) from error
    return backend


def _with_remedy(problem: str, index: int) -> str:
    """An error of CUDA, which says what failed, with what to do about it."""
    return f"{problem}: {advice}" if (advice := nvidia.remedy(problem, index)) else problem


def missing(device: str) -> str:
    """Why ``device`` cannot run here, with the command that installs what is missing; empty if its libraries load."""
    if _PROVIDERS[device] not in ort.get_available_providers():
        if not on_cpu.has_nvidia_driver():  # another wheel would run no better, and the one that is here works
            return (
                "no NVIDIA driver was found here: install that of the GPU first (a container needs to be started with "
                "its GPUs), or leave --device out"
            )
        have = ", ".join(ort.get_available_providers())
        return f"the installed {TITLE} has no {_TITLES[device]} provider (it has {have}): {wheels.replace_by(device)}"
    _preload(device)
    library = _library(device)
    if not library.exists():  # built into the engine itself, as in NVIDIA's own wheels
        return ""
    with contextlib.suppress(OSError):  # what every provider's library refers to
        ctypes.CDLL(str(_library("shared")), mode=getattr(ctypes, "RTLD_GLOBAL", 0))
    try:
        ctypes.CDLL(str(library))
    except OSError as error:  # the loader's message names the first library that is missing
        message = str(error).replace(str(library.parent) + os.sep, "")
        return f"the {_TITLES[device]} provider does not start ({message}). {_install(message, device)}"
    return _missing_late(device)


def _missing_late(device: str) -> str:
    """As ``missing``, for cuDNN: the provider opens it when a first convolution is prepared, and loads without it."""
    try:
        ctypes.CDLL("cudnn64_9.dll" if sys.platform == "win32" else "libcudnn.so.9")
    except OSError as error:
        advice = _install(str(error), device)
        return f"the {_TITLES[device]} provider needs cuDNN 9, which does not load ({error}). {advice}"
    return ""


def _missing_gpu(index: int) -> str:
    """Why there is no GPU of that number; empty where there is one, or no driver to ask."""
    found = nvidia.count()
    if found is None or index < found:
        return ""
    advice = "see nvidia-smi -L and CUDA_VISIBLE_DEVICES"
    return f"GPU {index} is not there, the driver lists {found} for this process: {advice}"


def joined_notes(*notes: str) -> str:
    """Notes that are not empty, in one line."""
    return "; ".join(filter(None, notes))


def tf32_note(artifact: Artifact, device: str) -> str:
    """What to say where TensorRT may round float32 to TF32.

    The provider has no option against it (https://github.com/microsoft/onnxruntime/issues/26029). NVIDIA's libraries
    read a variable when they are first used, which is the host process' own: commands set it for themselves.
    """
    if device != "tensorrt" or artifact.spec.precision != "float32" or os.environ.get(TF32_OVERRIDE) == "0":
        return ""
    return f"TensorRT may round to TF32: set {TF32_OVERRIDE}=0 before the process starts"


def assigned(session: Any) -> tuple[str, str]:
    """(device, note): the first provider that really got nodes of the model, and what it leaves to the CPU."""
    nodes: dict[str, int] = dict.fromkeys(session.get_providers(), 0)
    first = next(iter(nodes))
    if hasattr(session, "get_provider_graph_assignment_info"):
        for part in session.get_provider_graph_assignment_info():
            nodes[part.ep_name] = nodes.get(part.ep_name, 0) + len(part.get_nodes())
    used = next((provider for provider, count in nodes.items() if count), first)
    device = next((device for device, provider in _PROVIDERS.items() if provider == used), used)
    if device != "cpu" and nodes.get(CPU):
        return device, f"{nodes[CPU]} of the model's {sum(nodes.values())} nodes run on the CPU"
    return device, ""


def tensorrt_options(artifact: Artifact, index: int = 0) -> dict[str, str]:
    """An engine is built once for each model, GPU and version of TensorRT, and kept; float16 where the model is."""
    folder = cache_folder() / "tensorrt" / engine_key(artifact, nvidia.gpu(index), nvidia.tensorrt_version())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # nobody else's: an engine is code
    return {
        "trt_fp16_enable": str(artifact.spec.precision == "float16"),
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(folder),
    }


def engine_key(artifact: Artifact, gpu: nvidia.Gpu | None, tensorrt: str) -> str:
    """A folder's name for all that an engine depends on: one of another GPU or TensorRT is refused, or runs wrongly."""
    exact = os.environ.get(TF32_OVERRIDE) == "0"
    parts = [artifact.digest[:16], artifact.spec.precision + ("" if exact else "-tf32"), f"trt{tensorrt or '-unknown'}"]
    parts += [f"{gpu.capability}-{gpu.name}" if gpu else "gpu-unknown", f"ort{ort.__version__}"]
    return re.sub(r"[^\w.-]+", "-", "_".join(parts))


def cache_folder() -> Path:
    """This user's folder for what can be made again: XDG_CACHE_HOME/unet-edge, or the system's place for it."""
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        root = Path.home() / "Library" / "Caches"
    else:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "unet-edge"


def _preload(device: str) -> None:
    """Load CUDA, cuDNN and TensorRT from their wheels, where the system's loader would not look."""
    # It prints each library that it cannot find; what is missing in the end is found by loading the provider.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
        ort.preload_dlls()  # from 1.21 on
    if device != "tensorrt":
        return
    with contextlib.suppress(Exception):  # not installed, or broken: the provider's own error says more
        folder = Path(importlib.import_module("tensorrt_libs").__path__[0])  # importing it loads them, or this does:
        for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
            for library in folder.glob(f"lib{name}.so.*"):
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def _library(provider: str) -> Path:
    """The engine's library for ``cuda``, ``tensorrt``, or what they ``shared``."""
    name = f"onnxruntime_providers_{provider}"
    return Path(ort.__file__).parent / "capi" / (f"{name}.dll" if sys.platform == "win32" else f"lib{name}.so")


def _install(message: str, device: str) -> str:
    """What to install for the library that the loader names."""
    if "libcuda." in message or "nvcuda" in message:
        return "Install the NVIDIA driver: nvidia-smi must list the GPU"
    tensorrt = re.search(r"nv(?:infer|onnxparser)\w*\.so\.(\d+)", message)
    if tensorrt:
        cuda = str(getattr(ort, "cuda_version", "") or "13").partition(".")[0]
        return f'Run: pip install "tensorrt-cu{cuda}=={tensorrt[1]}.*"'
    driver = "Run: " if on_cpu.has_nvidia_driver() else "Install the NVIDIA driver, then: "
    return driver + wheels.replace_by(device)

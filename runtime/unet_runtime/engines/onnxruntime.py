"""ONNX Runtime: reads ONNX files; on the CPU, on NVIDIA GPUs with CUDA or TensorRT, on any GPU with WebGPU."""

from __future__ import annotations

import importlib.util
import os

from unet_runtime.core import cores, install
from unet_runtime.core.artifact import Artifact
from unet_runtime.engines import drivers, wheels
from unet_runtime.engines.base import FLOAT_ONNX, Backend, Engine, split_device

WEBGPU_PACKAGE = "onnxruntime_ep_webgpu"


def load(artifact: Artifact, device: str, threads: int | None) -> Backend:
    """See ``base.Load``."""
    from unet_runtime.engines import onnxruntime_cpu  # imports the engine

    if device == "cpu":
        return onnxruntime_cpu.load(artifact, threads)
    if device == "auto" and not onnxruntime_cpu.has_cuda_provider():
        return onnxruntime_cpu.load(artifact, threads, onnxruntime_cpu.unused_gpu())
    if split_device(device)[0] == "gpu":
        from unet_runtime.engines import onnxruntime_webgpu

        return onnxruntime_webgpu.load(artifact, device, threads)
    from unet_runtime.engines import onnxruntime_gpu  # no machine without a GPU pays for it

    return onnxruntime_gpu.load(artifact, device, threads)


def _missing_for_cuda() -> str:
    """Only what the engine itself says: CUDA's libraries may end a process, and are loaded in one of their own."""
    from unet_runtime.engines import onnxruntime_cpu, onnxruntime_gpu

    return "" if onnxruntime_cpu.has_cuda_provider() else onnxruntime_gpu.missing("cuda")


def _missing_for_tensorrt() -> str:
    from unet_runtime.engines import onnxruntime_gpu

    return onnxruntime_gpu.missing("tensorrt")


def _missing_for_webgpu() -> str:
    from unet_runtime.engines import onnxruntime_webgpu

    if importlib.util.find_spec(WEBGPU_PACKAGE) is not None:
        software = os.environ.get(onnxruntime_webgpu.SOFTWARE) == "1"
        problem = "" if software else drivers.no_gpu()
        return f"{problem}: {drivers.DRIVERS}" if problem else ""
    return f"{onnxruntime_webgpu.NOT_INSTALLED}: {install.pip_command('webgpu')}"


ENGINE = Engine(
    name="onnx",
    label="ONNX Runtime",
    package="onnxruntime",
    entry="unet_runtime.engines.onnxruntime_cpu",
    extra="onnx",
    suffixes=(".onnx",),
    default_model=FLOAT_ONNX,
    default_threads=cores.usable_cores,
    load=load,
    devices=("cpu", "cuda", "tensorrt", "gpu"),
    foreign=True,
    parallel=True,
    rival_wheels=wheels.ONNXRUNTIME,
    plugins={"gpu": WEBGPU_PACKAGE},
    missing={"cuda": _missing_for_cuda, "tensorrt": _missing_for_tensorrt, "gpu": _missing_for_webgpu},
    slow_start=("tensorrt",),
)

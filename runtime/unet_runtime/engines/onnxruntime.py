"""ONNX Runtime: reads ONNX files; on the CPU, or on NVIDIA GPUs with CUDA or TensorRT."""

from __future__ import annotations

from unet_runtime.core import cores
from unet_runtime.core.artifact import Artifact
from unet_runtime.engines import wheels
from unet_runtime.engines.base import FLOAT_ONNX, Backend, Engine


def load(artifact: Artifact, device: str, threads: int | None) -> Backend:
    """See ``base.Load``."""
    from unet_runtime.engines import onnxruntime_cpu  # imports the engine

    if device == "cpu":
        return onnxruntime_cpu.load(artifact, threads)
    if device == "auto" and not onnxruntime_cpu.has_cuda_provider():
        return onnxruntime_cpu.load(artifact, threads, onnxruntime_cpu.unused_gpu())
    from unet_runtime.engines import onnxruntime_gpu  # no machine without a GPU pays for it

    return onnxruntime_gpu.load(artifact, device, threads)


def _missing_for_tensorrt() -> str:
    from unet_runtime.engines import onnxruntime_gpu

    return onnxruntime_gpu.missing("tensorrt")


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
    devices=("cpu", "cuda", "tensorrt"),
    foreign=True,
    parallel=True,
    rival_wheels=wheels.ONNXRUNTIME,
    slow_start={"tensorrt": _missing_for_tensorrt},
)

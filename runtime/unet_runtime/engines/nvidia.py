"""NVIDIA GPUs as the driver describes them, and what its errors mean: through ctypes, no engine is imported."""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from contextlib import suppress
from typing import Any, NamedTuple

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CUdevice_attribute
_NAME_BYTES = 256
_JETSON = ("Orin", "Xavier", "Thor")

DRIVER_FOR_CUDA_13 = 580
"""Major version of the oldest driver for CUDA 13 on Linux."""


class Gpu(NamedTuple):
    """A GPU that the driver lists."""

    name: str
    """``NVIDIA GeForce RTX 4090``, ``Orin``."""
    capability: str
    """Compute capability, as kernels are named for it: ``sm_89``."""


def driver() -> Any | None:
    """The driver's library, initialised; None where it is not installed or does not start."""
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        return library if library.cuInit(0) == 0 else None
    except (OSError, AttributeError):
        return None


def count() -> int | None:
    """Number of GPUs that this process may use (``CUDA_VISIBLE_DEVICES``); None where there is no driver to ask."""
    library = driver()
    found = ctypes.c_int()
    if library is None or library.cuDeviceGetCount(ctypes.byref(found)):
        return None
    return found.value


def gpu(index: int = 0) -> Gpu | None:
    """The GPU of that number; None where the driver does not list it."""
    library = driver()
    handle, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(_NAME_BYTES)
    if library is None or library.cuDeviceGet(ctypes.byref(handle), index):
        return None
    library.cuDeviceGetName(name, _NAME_BYTES, handle)
    library.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, handle)
    library.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, handle)
    return Gpu(name.value.decode(errors="replace"), f"sm_{major.value}{minor.value}")


def tensorrt_version() -> str:
    """Version of the TensorRT that is loaded or can be: ``10.13.3``; empty where there is none."""
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL("nvinfer_10.dll" if sys.platform == "win32" else "libnvinfer.so.10")
        number = int(library.getInferLibVersion())  # 101303: 10.13.3
        return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return ""


_REMEDIES = (
    (
        r"no kernel image|cudaErrorNoKernelImageForDevice|SM version|invalid device function",
        "",  # see _other_wheel
    ),
    (
        r"driver version is insufficient|cudaErrorInsufficientDriver|system has unsupported display driver",
        f"the NVIDIA driver is older than this wheel's CUDA: CUDA 13 needs driver {DRIVER_FOR_CUDA_13} or newer "
        '(nvidia-smi shows yours); update it, or take the last wheel for CUDA 12: pip install "onnxruntime-gpu<1.27"',
    ),
    (
        r"no CUDA-capable device|cudaErrorNoDevice|invalid device ordinal|cudaErrorInvalidDevice",
        "the driver lists no such GPU for this process: see nvidia-smi -L and CUDA_VISIBLE_DEVICES; a container is "
        "started with --gpus all",
    ),
    (
        r"out of memory|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED|Failed to allocate memory",
        "the GPU's memory is full: nvidia-smi shows by whom; take smaller batches, or --device cpu",
    ),
    (
        r"CUDNN_STATUS_SUBLIBRARY|CUDNN_STATUS_NOT_INITIALIZED|CUDNN_STATUS_VERSION_MISMATCH|libcudnn",
        "cuDNN 9 is incomplete or of another version than CUDA: install all of the extra cuda again, and take other "
        "copies of cuDNN out of LD_LIBRARY_PATH",
    ),
    (
        r"system not yet initialized|cudaErrorSystemNotReady|cudaErrorSystemDriverMismatch|Driver/library version",
        "driver and its libraries are of two versions, or the fabric manager does not run: restart the machine",
    ),
    (
        r"unspecified launch failure|illegal memory access|uncorrectable ECC|device-side assert|has fallen off|Xid",
        "the GPU failed while it computed: see dmesg for Xid messages; restart the process, then the machine",
    ),
)
"""Words in an error -> what is wrong and what to do. The first that fits counts."""


def remedy(message: str, index: int = 0) -> str:
    """What to do about an error of CUDA or its libraries; empty for one that is not known."""
    for words, text in _REMEDIES:
        if re.search(words, message, re.IGNORECASE):
            return text or _other_wheel(gpu(index))
    return ""


def _other_wheel(found: Gpu | None) -> str:
    """Which wheel has code for a GPU: docs/devices.md has the table."""
    name, capability = found if found is not None else ("this GPU", "unknown compute capability")
    what = f"the installed wheel has no code for {name} ({capability})"
    if platform.machine() == "aarch64" or any(word in name for word in _JETSON):
        return (
            f"{what}: PyPI's wheel of onnxruntime-gpu for aarch64 is built for sm_89, 90a, 120a and 121a, not for "
            "Jetson (Orin sm_87, Thor sm_110): install the wheel that NVIDIA publishes for your JetPack, or take "
            "--device cpu"
        )
    return (
        f"{what}: from 1.27 on PyPI's wheels are built for sm_75 to sm_120a; for an older GPU: pip install "
        '"onnxruntime-gpu[cuda,cudnn]>=1.24,<1.27"'
    )

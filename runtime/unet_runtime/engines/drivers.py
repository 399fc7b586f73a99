"""Whether Linux has a device's file at all, without which no driver of it works: asked in microseconds."""

from __future__ import annotations

import sys
from pathlib import Path

_GPUS = ("dri/renderD*", "nvidia0", "dxg")
"""Below /dev: of the kernel's drivers, of NVIDIA's own, and of the Windows that runs this Linux."""

_NPUS = ("accel/accel*",)

DRIVERS = (
    "it needs a GPU with a Vulkan driver and the Vulkan loader (Debian: apt-get install libvulkan1 "
    "mesa-vulkan-drivers), and a user in the group render"
)
"""What engines need on Linux that use GPUs of any maker. Windows and macOS bring it."""


def no_gpu() -> str:
    """What to say where there is no GPU; empty where there may be one."""
    return _none(_GPUS)


def no_npu() -> str:
    """The same of an NPU."""
    return _none(_NPUS)


def _none(patterns: tuple[str, ...]) -> str:
    if sys.platform != "linux":
        return ""
    for pattern in patterns:
        if any(Path("/dev").glob(pattern)):
            return ""
    return f"there is no {' and no '.join(f'/dev/{pattern}' for pattern in patterns)} here"

"""Which engine ``auto`` takes, and with which bundled model: a table, so that no start pays for a measurement.

docs/devices.md has the measurements behind it. What a user names is taken as named: these rows fill in the rest.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from unet_runtime.engines import wheels
from unet_runtime.engines.base import FLOAT_ONNX, INT8_ONNX, INT8_TFLITE, split_device

_CPUINFO = Path("/proc/cpuinfo")
_FIRST_BYTES = 4096
"""They hold the flags of the first CPU; the file grows with the number of CPUs."""

_VNNI = ("avx512_vnni", "avx_vnni")
_X86 = ("x86_64", "amd64")


class Kind(NamedTuple):
    """What the table asks about a machine."""

    gpu: bool
    """Whether a GPU is asked for, or a wheel for GPUs is installed."""
    x86: bool
    vnni: bool
    """Whether the CPU multiplies and sums 8-bit integers in one step (x86)."""


class Row(NamedTuple):
    """An artifact, where it is the best choice, and why."""

    when: Callable[[Kind], bool]
    engine: str
    model: Path
    why: str


TABLE = (
    Row(lambda kind: kind.gpu, "onnx", FLOAT_ONNX, "arithmetic in float32 is what GPUs run well"),
    Row(lambda kind: kind.gpu, "openvino", FLOAT_ONNX, "arithmetic in float32 is what GPUs run well"),
    Row(lambda kind: kind.vnni, "tflite", INT8_TFLITE, "int8 in LiteRT is the fastest on CPUs with VNNI"),
    Row(lambda kind: kind.x86, "onnx", INT8_ONNX, "int8 in ONNX Runtime is the fastest on x86 without VNNI"),
    Row(lambda kind: kind.x86, "openvino", INT8_ONNX, "int8 is the fastest in OpenVINO on x86"),
    Row(lambda kind: True, "onnx", FLOAT_ONNX, "int8 ONNX was measured on x86 alone"),
    Row(lambda kind: True, "tflite", INT8_TFLITE, "int8 is what LiteRT is made for"),
    Row(lambda kind: True, "openvino", FLOAT_ONNX, "int8 ONNX was measured on x86 alone"),
)
"""The first row that fits the machine, of those whose engine is installed or asked for.

OpenVINO is last though it is the fastest of all on Intel's CPUs: it starts so much later that a photo or a hundred are
done by then."""


def rows(device: str, gpu_wheel: bool) -> list[Row]:
    """Rows that fit this machine, the preferred one first.

    Args:
        device: that was asked for.
        gpu_wheel: whether a wheel for GPUs is installed, which ``auto`` tries.
    """
    wanted, _ = split_device(device)
    kind = this_kind(wanted not in ("auto", "cpu") or (wanted == "auto" and gpu_wheel))
    return [row for row in TABLE if row.when(kind)]


def this_kind(gpu: bool = False) -> Kind:
    """This machine. Where the system does not list the CPU's instructions, it counts as one without."""
    x86 = platform.machine().lower() in _X86
    return Kind(gpu, x86, x86 and bool(set(_VNNI).intersection(_flags())))


def has_gpu_wheel(package: Path | None) -> bool:
    """Whether ONNX Runtime's package, as ``engines.package_file`` finds it, is one with GPU providers."""
    return package is not None and "onnxruntime-gpu" in wheels.found(package.parent, wheels.ONNXRUNTIME)


def _flags() -> list[str]:
    """The first CPU's instructions, as Linux calls them; empty elsewhere."""
    try:
        with _CPUINFO.open(encoding="ascii", errors="replace") as file:
            lines = file.read(_FIRST_BYTES).splitlines()
    except OSError:
        return []
    for line in lines:
        if line.startswith("flags"):
            return line.split()
    return []

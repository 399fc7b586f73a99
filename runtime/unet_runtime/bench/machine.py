"""The machine that a measurement was taken on: CPU, the instructions that decide about int8, memory, load."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from unet_runtime.core.cores import usable_cores

_X86 = ("avx", "avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
_ARM = ("neon", "dotprod", "i8mm", "bf16", "sve")

FEATURES = frozenset(_X86 + _ARM)
"""Instructions that neural networks use, by their names in reports."""

_LINUX_NAMES = {"asimd": "neon", "asimddp": "dotprod"}
"""Those that Linux calls differently: its name -> the name in reports."""

INT8_FEATURES = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "dotprod", "i8mm"})
"""Instructions that multiply and sum 8-bit integers in one step."""

BUSY = 0.5
"""Load per core above which a machine is called busy."""


@dataclass(frozen=True)
class Machine:
    system: str
    """``Linux-6.1-x86_64``: operating system, version, architecture."""
    architecture: str
    cpu: str
    """The name that ``processor`` gives it."""
    cores: int
    """Cores that this process may use."""
    features: tuple[str, ...] | None
    """Some of ``FEATURES``; None where the system does not say."""
    memory: int | None
    """Bytes."""
    load: float | None
    """Average number of processes at work over the last minute, before the measurement."""
    python: str

    @property
    def busy(self) -> bool:
        return self.load is not None and self.load > BUSY * self.cores

    @property
    def multiplies_int8(self) -> bool | None:
        """Whether the CPU multiplies and sums 8-bit integers in one step; None: unknown."""
        return None if self.features is None else bool(INT8_FEATURES.intersection(self.features))


def this_machine() -> Machine:
    fields = _cpuinfo()
    flags = fields.get("flags", fields.get("Features"))
    features = None
    if flags is not None:
        names = {_LINUX_NAMES.get(flag, flag) for flag in flags.split()}
        features = tuple(sorted(FEATURES & names))
    return Machine(
        system=platform.platform(terse=True) + "-" + platform.machine(),
        architecture=platform.machine(),
        cpu=processor(),
        cores=usable_cores(),
        features=features,
        memory=_memory(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        python=platform.python_version(),
    )


def processor() -> str:
    """Name of the board or the CPU; empty where the system does not say."""
    return _board() or _cpuinfo().get("model name") or platform.processor()


def _cpuinfo() -> dict[str, str]:
    """Fields of the first CPU in /proc/cpuinfo; empty where there is no such file (Linux alone has it)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    fields = {}
    for line in text.split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        fields[name.strip()] = value.strip()
    return fields


def _board() -> str:
    """``Raspberry Pi 5 Model B``; needed because ARM's cpuinfo names no model."""
    try:
        return Path("/proc/device-tree/model").read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows, and systems without these names
        return None

"""What a measurement was taken on: CPU, the instructions that decide about int8, memory, load."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from unet_runtime.core.cores import usable_cores

FEATURES = {
    # x86
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "avx512f": "avx512f",
    "avx_vnni": "avx_vnni",
    "avx512_vnni": "avx512_vnni",
    "avx512_bf16": "avx512_bf16",
    "amx_int8": "amx_int8",
    "amx_bf16": "amx_bf16",
    # ARM, where Linux calls them otherwise
    "asimd": "neon",
    "neon": "neon",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
    "bf16": "bf16",
    "sve": "sve",
}
"""Instructions that neural networks use: Linux' name -> ours."""

INT8_FEATURES = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "dotprod", "i8mm"})
"""Those that multiply and sum 8-bit integers in one step."""

BUSY = 0.5
"""Load a core above which a machine is called busy."""


@dataclass(frozen=True)
class Machine:
    system: str
    """``Linux-6.1-x86_64``: operating system, version, architecture."""
    architecture: str
    cpu: str
    """As ``processor`` names it."""
    cores: int
    """That this process may use."""
    features: tuple[str, ...] | None
    """Of ``FEATURES``; None where the system does not say."""
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
    found = dict.fromkeys(FEATURES[flag] for flag in (flags or "").split() if flag in FEATURES)
    return Machine(
        system=platform.platform(terse=True) + "-" + platform.machine(),
        architecture=platform.machine(),
        cpu=processor(),
        cores=usable_cores(),
        features=None if flags is None else tuple(sorted(found)),
        memory=_memory(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        python=platform.python_version(),
    )


def processor() -> str:
    """The board's name, or the CPU's model; empty where the system does not say."""
    return _board() or _cpuinfo().get("model name") or platform.processor()


def _cpuinfo() -> dict[str, str]:
    """Of the first CPU, where there is such a file: Linux."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _board() -> str:
    """``Raspberry Pi 5 Model B``: ARM's cpuinfo names no model."""
    try:
        return Path("/proc/device-tree/model").read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows, and systems without these names
        return None

"""How many threads an inference should use here: the cores that this process really has."""

from __future__ import annotations

import os
from pathlib import Path

MOST = 8
"""A model for an edge device gains little beyond: its layers are too small to share among more."""

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_SIBLINGS = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def usable_cores() -> int:
    """Physical cores that this process may use: fewer than the machine has under taskset or a container's quota."""
    return min(physical_cores(), limit() or physical_cores())


def default_threads() -> int:
    """Threads for an engine that does not choose well by itself: ``usable_cores``, ``MOST`` at most."""
    return min(usable_cores(), MOST)


def limit() -> int | None:
    """Cores left to this process where it may not use the whole machine (taskset, containers); None: no limit.

    Engines count the machine's cores, and more threads than cores wait for each other at every layer.
    """
    usable = len(_allowed())
    quota = _quota()
    if quota is not None and quota < usable:
        return quota
    return usable if usable < (os.cpu_count() or 1) else None


def physical_cores() -> int:
    """Cores that this process may use; the two hardware threads of one core count once where Linux reports them."""
    return len({_core(cpu) for cpu in _allowed()})


def _allowed() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))  # macOS, Windows


def _core(cpu: int) -> str:
    try:
        return Path(_SIBLINGS.format(cpu)).read_text(encoding="ascii")
    except OSError:
        return str(cpu)


def _quota() -> int | None:
    """Whole cores of a container's time quota (``docker run --cpus``), at least 1; None: none is set."""
    try:
        share, period = _QUOTA.read_text(encoding="ascii").split()
        return max(1, int(share) // int(period))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return None

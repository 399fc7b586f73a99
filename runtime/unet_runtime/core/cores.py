"""How many threads an inference should use here: the cores that this process really has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

MOST = 8
"""A model for an edge device gains little beyond: its layers are too small to share among more."""

_GROUPS = Path("/proc/self/cgroup")
_CONTROLLERS = Path("/sys/fs/cgroup")
_CPU_FOLDERS = ("cpu,cpuacct", "cpu", "cpuacct,cpu")  # of cgroup version 1
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
    """Whole cores of the time quota of this process, at least 1; None: none is set.

    Containers (``docker run --cpus``), Kubernetes and systemd (``CPUQuota=``) set one for a control group: of this
    process or of any group around it. https://docs.kernel.org/admin-guide/cgroup-v2.html
    """
    shares = []
    for folder in _group_folders():
        share = _version_2(folder) or _version_1(folder)
        if share is not None:
            shares.append(share)
    return max(1, int(min(shares))) if shares else None


def _group_folders() -> Iterator[Path]:
    """The folders that hold the settings of this process' control groups, from the innermost to the outermost."""
    try:
        lines = _GROUPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        lines = []
    seen: set[Path] = set()
    for line in [*lines, "0::/"]:  # within a container the files may lie at the top, whatever its group is called
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" or "cpu" in controllers.split(","):
            for top in (_CONTROLLERS, *(_CONTROLLERS / name for name in _CPU_FOLDERS)):
                parts = [part for part in group.split("/") if part not in ("", ".", "..")]
                for length in range(len(parts), -1, -1):
                    folder = top.joinpath(*parts[:length])
                    if folder not in seen:
                        seen.add(folder)
                        yield folder


def _version_2(folder: Path) -> float | None:
    try:
        share, period = (folder / "cpu.max").read_text(encoding="ascii").split()
        return _cores(int(share), int(period))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return None


def _version_1(folder: Path) -> float | None:
    try:
        share = int((folder / "cpu.cfs_quota_us").read_text(encoding="ascii"))
        return _cores(share, int((folder / "cpu.cfs_period_us").read_text(encoding="ascii")))
    except (OSError, ValueError):
        return None


def _cores(share: int, period: int) -> float | None:
    return share / period if share > 0 and period > 0 else None  # -1: no quota

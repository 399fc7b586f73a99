"""A bound of memory, so that a file which asks for too much is an error and not the end of the machine."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

_MORE = 2 << 30
"""Bytes that a file of some kilobytes may take: engines reserve much that they never touch."""


def limit_memory() -> None:
    """Bound this process's address space to what it has now and ``_MORE``; only where there are /proc and limits."""
    with suppress(ImportError, OSError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + _MORE
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

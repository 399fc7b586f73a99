"""Peaks of memory, measured in child processes: what was resident (VmHWM), or what Python and NumPy allocated."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY

MB_A_MEGAPIXEL = 4.0
"""A photo in memory: Pillow keeps RGB in four bytes a pixel."""
WORKING = 40.0
"""MB for bands, the engine's buffers, the decoder's."""

PRELUDE = """
import json, sys
from pathlib import Path
import numpy as np
from PIL import Image
from unet_runtime import Segmenter

def megabytes(field):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1000

segmenter = Segmenter(sys.argv[1], threads=1)
segmenter(np.zeros((50, 50, 3), np.uint8)).mask
base = megabytes("VmRSS")
"""

needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from Linux's /proc")


def run_child(code: str, *arguments: Path) -> dict[str, float]:
    """What the child prints, as JSON. Any warning is an error in it."""
    command = [sys.executable, "-W", "error", "-c", PRELUDE + code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, float] = json.loads(done.stdout)
    return result


TRACED = """
import sys, tracemalloc
from pathlib import Path
{setup}
tracemalloc.start()
{work}
peak = tracemalloc.get_traced_memory()[1]
tracemalloc.stop()
print(peak)
"""


def traced_peak(setup: str, work: str, *arguments: Path) -> int:
    """Peak of what Python and NumPy allocate in ``work``, bytes.

    In a process of its own: where the tests run, every thread and every late import would be counted too.

    Args:
        setup: code before it, which imports what ``work`` needs; ``sys`` and ``Path`` are there.
        work: the code to be measured.
        arguments: ``sys.argv[1:]``.
    """
    code = TRACED.format(setup=setup, work=work)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return int(done.stdout)

"""Peaks of memory, read in child processes (VmHWM, the most that was ever resident)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    result: dict[str, float] = json.loads(done.stdout)
    return result

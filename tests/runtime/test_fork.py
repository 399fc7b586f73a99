"""A process that used an engine forks: the child has no threads of the engine's, and must not wait for them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from unet_runtime.engines import ENGINES

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")

CHILDREN = 30 if os.environ.get("SLOW_TESTS") == "1" else 6

PROGRAM = """
import os, signal, sys
import numpy as np
from unet_runtime import Segmenter

backend, limit, children = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
photo = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
segmenter = Segmenter(backend=backend, threads=2)
expected = segmenter(photo).mask
ended = []
for number in range(children):
    segmenter(photo)  # its threads may still be awake
    child = os.fork()
    if child == 0:
        signal.alarm(limit)  # ends a child that waits for ever
        use, leave = number % 2, number % 3
        same = not use or np.array_equal(segmenter(photo).mask, expected)
        if leave == 0:
            segmenter.close()
        if leave == 1:
            del segmenter
        if leave == 2:
            sys.exit(not same)  # as any program ends
        os._exit(not same)  # as multiprocessing ends
    ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
assert np.array_equal(segmenter(photo).mask, expected)
print(ended)
"""


@pytest.mark.parametrize("backend", list(ENGINES))
def test_a_forked_child_uses_frees_or_leaves_the_engine(backend: str) -> None:
    words = [sys.executable, "-c", PROGRAM, backend, "180", str(CHILDREN)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, f"{[0] * CHILDREN}\n"), ended.stderr

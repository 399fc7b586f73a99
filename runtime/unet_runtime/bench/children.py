"""Start a process for a combination, hear what it measured, end it whatever happens."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from unet_runtime.bench.plan import Combination
from unet_runtime.core.errors import BackendError

LIMIT = 600.0
"""Seconds that a process may take for its start and each photo's share (``LIMIT_A_PHOTO``): a hang must not last."""

LIMIT_A_PHOTO = 10.0
"""Seconds."""


class Start(NamedTuple):
    """From nothing to the first answer; seconds."""

    total: float
    """From the start of the process until its first photo was answered, as the one who waits sees it."""
    load: float
    """Of it: the engine imported, the model read, verified and prepared."""
    first: float
    """Of it: the first photo, from its file to a PNG. What remains is Python and the runtime's imports."""


class Answer(NamedTuple):
    start: Start
    engine: str
    device: str
    note: str
    result: dict[str, Any]
    """What ``worker`` answers last."""


def time_photos(combination: Combination, photos: Sequence[Path], kind: str) -> Answer:
    """Cold start, then each photo once; ``result`` has ``samples`` (seconds, photos x stages) and ``peak_memory``.

    Raises:
        BackendError: the process failed; the message says how.
    """
    return _ask(combination, photos, kind, [])


def compare_photos(combination: Combination, pairs: Sequence[tuple[Path, Path]]) -> Answer:
    """``result`` has the confusion ``matrix`` over photos with trimaps, and ``problems``, those left out.

    Raises:
        BackendError: the process failed; the message says how.
    """
    return _ask(combination, [pairs[0][0]], "mask", pairs)


def _ask(combination: Combination, photos: Sequence[Path], kind: str, pairs: Sequence[tuple[Path, Path]]) -> Answer:
    job = {
        "model": str(combination.model.path),
        "backend": combination.backend,
        "device": combination.device,
        "threads": combination.threads,
        "kind": kind,
        "photos": [str(path) for path in photos],
        "pairs": [[str(photo), str(trimap)] for photo, trimap in pairs],
    }
    first, result, total = _run(json.dumps(job), LIMIT + LIMIT_A_PHOTO * (len(photos) + len(pairs)))
    start = Start(total, first["load"], first["first"])
    return Answer(start, first["engine"], first["device"], first["note"], result)


def _run(job: str, limit: float) -> tuple[dict[str, Any], dict[str, Any], float]:
    """Both answers of a worker, and the seconds until the first."""
    # -P: a json.py in the folder the user happens to be in is none of our modules.
    command = [sys.executable, "-P", "-m", "unet_runtime.bench.worker"]
    started = time.perf_counter()
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, encoding="utf-8"
        ) as child,
    ):
        timer = threading.Timer(limit, child.kill)
        timer.daemon = True  # wherever Ctrl-C hits, the command must not wait for it
        try:
            timer.start()
            assert child.stdin is not None
            assert child.stdout is not None
            with suppress(BrokenPipeError):  # it ended at once: its exit status says more
                child.stdin.write(job)
                child.stdin.close()
            first = child.stdout.readline()
            total = time.perf_counter() - started
            result = child.stdout.readline()
            code = child.wait()
        finally:  # also on Ctrl-C
            expired = not timer.is_alive()
            timer.cancel()
            child.kill()
        for line in (first, result):
            if not line:
                raise BackendError(f"took more than {limit:.0f} s" if expired else _end(code, errors))
            if "error" in (answer := json.loads(line)):
                raise BackendError(answer["error"])
    return json.loads(first), json.loads(result), total


def _end(code: int, errors: IO[bytes]) -> str:
    """How a process ended that did not answer: its signal or exit status, and its last words."""
    how = f"exit status {code}"
    if code < 0:
        with suppress(ValueError):  # a signal without a name
            how = f"signal {-code} ({signal.Signals(-code).name})"
    errors.seek(0)
    lines = errors.read().decode(errors="replace").strip().splitlines()
    return f"the process ended without an answer: {how}" + (f": {lines[-1][:300]}" if lines else "")

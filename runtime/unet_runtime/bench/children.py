"""Run one combination in a process of its own, and end that process whatever happens."""

from __future__ import annotations

import base64
import json
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unet_runtime.bench.plan import Combination
from unet_runtime.core.datasets import Sample
from unet_runtime.core.errors import BackendError

LIMIT = 600.0
LIMIT_PER_PHOTO = 10.0
"""Seconds that a process may take, and more for each photo: an engine that hangs is ended."""


def packed(samples: Sequence[Sample]) -> str:
    """Samples for the worker, which unpickles them; empty for none."""
    return base64.b64encode(pickle.dumps(list(samples))).decode("ascii") if samples else ""


def run_worker(
    combination: Combination,
    photos: Sequence[Path],
    kind: str = "mask",
    samples: Sequence[Sample] = (),
    limit: float | None = None,
) -> dict[str, Any]:
    """Measure the cold start; then time each photo once, or compare predictions with labels.

    Args:
        combination: what to run.
        photos: at least one; the first is the cold start's.
        kind: picture that is made of each photo, one of ``worker.KINDS``.
        samples: photos with their labels; if there are any, they are compared, and no photo is timed.
        limit: seconds until the process is ended; None: ``LIMIT``, and ``LIMIT_PER_PHOTO`` for each photo.

    Returns:
        What ``worker`` writes.

    Raises:
        BackendError: the process failed; the message says how.
    """
    limit = limit or LIMIT + LIMIT_PER_PHOTO * (len(photos) + len(samples))
    job = {
        "model": combination.model.path,
        "backend": combination.backend,
        "device": combination.device,
        "threads": combination.threads,
        "kind": kind,
        "photos": photos,
        "labelled": packed(samples),
        "started": time.perf_counter(),  # Python's clock of the whole system: the worker counts from here
    }
    # -P: a json.py in the working directory must not replace the standard library's.
    command = [sys.executable, "-P", "-m", "unet_runtime.bench.worker"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(job, default=str),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"took more than {limit:.0f} s") from error
    try:
        result: dict[str, Any] = json.loads(done.stdout)
    except ValueError as error:
        how = _describe_end(done.returncode, done.stderr)
        raise BackendError(f"the process ended without a result: {how}") from error
    if "error" in result:
        raise BackendError(result["error"])
    return result


def _describe_end(code: int, errors: str) -> str:
    """Say how a process ended: its signal or exit status, and the last line that it wrote to standard error."""
    description = f"exit status {code}"
    if code < 0:
        description = f"signal {-code} ({signal.strsignal(-code)})"
        if -code == signal.SIGILL:
            description += ": is its wheel made for this processor?"
    last = errors.strip().splitlines()[-1:]
    return ": ".join([description, *last])[:300]

"""The process that measures one combination: ``python -m unet_runtime.bench.worker``, started by ``children``.

It reads a job as JSON from standard input and writes one JSON object to standard output:

    cold_start                      total, load and first in milliseconds, see ``measure.ColdStart``
    engine, device, note            what runs, as ``Backend`` says
    samples, peak_memory            of a job with photos alone: seconds (photos x STAGES), bytes
    matrix, problems                of a job with labelled photos: see ``confusion_matrix``
    error                           instead of all that: why it failed

Each combination has a process of its own, because only a new process shows its peak memory and its cold start.
Before the first photo is done, nothing is imported that ``unet-run`` would not import.
"""

from __future__ import annotations

import base64
import json
import os
import pickle
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from unet_runtime.core.errors import ImageError, UnetRuntimeError
from unet_runtime.core.photo import open_photo
from unet_runtime.io.sinks import encode
from unet_runtime.segmenter import Segmenter

if TYPE_CHECKING:
    from unet_runtime.core.datasets import Sample

STAGES = ("decode", "preprocess", "inference", "postprocess", "encode")

WARM_UP = 3
"""Photos after the first that are not timed: engines allocate memory and choose kernels on them."""

KINDS = {"mask": "mask", "overlay": "mask", "cutout": "opacity"}
"""Picture that may be made of each photo, named as by unet-run's ``--save`` -> what it is drawn from."""


def time_photo(segmenter: Segmenter, path: str, kind: str) -> list[float]:
    """Take one photo from its file to a PNG in memory, through the steps of ``Segmenter``.

    ``postprocess`` is the mask or opacity at the photo's own size, ``encode`` the drawing and the PNG.

    Returns:
        Seconds of each of ``STAGES``.
    """
    moments = [time.perf_counter()]
    photo = open_photo(path)
    moments.append(time.perf_counter())
    prepared = segmenter.prepare(photo)
    moments.append(time.perf_counter())
    probabilities = segmenter.infer(prepared.images)
    moments.append(time.perf_counter())
    result = segmenter.finish(prepared, probabilities[0])
    getattr(result, KINDS[kind])  # computed when first asked for
    moments.append(time.perf_counter())
    encode(result, kind)
    moments.append(time.perf_counter())
    seconds: list[float] = np.diff(moments).tolist()
    return seconds


def confusion_matrix(segmenter: Segmenter, samples: list[Sample]) -> tuple[list[list[int]], list[str]]:
    """Compare predictions with labels on the model's own grid, as unet-train and unet-export do.

    Args:
        segmenter: of any model.
        samples: photos with labels in the model's class ids.

    Returns:
        Pixel counts (row: true class, column: predicted class), and a line for each photo that cannot be read.
    """
    from unet_runtime.core.geometry import grid_labels, model_input
    from unet_runtime.core.metrics import confusion
    from unet_runtime.core.photo import open_photo

    spec = segmenter.spec
    classes = len(spec.classes)
    total = np.zeros((classes, classes), np.int64)
    problems = []
    for sample in samples:
        try:
            truth = grid_labels(sample.labels.read(), spec)
            images = model_input(open_photo(sample.photo), spec.input)
        except ImageError as error:
            problems.append(str(error))
            continue
        predicted = segmenter.infer(images)[0].argmax(axis=-1).astype(np.uint8)
        total += confusion([truth], [predicted], classes)
    return total.tolist(), problems


def peak_memory() -> int | None:
    """The most memory that this process has had, in bytes; None where the system does not say."""
    try:
        # Not getrusage: it begins with the parent's peak (https://github.com/oven-sh/bun/issues/43304).
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def _work(job: dict[str, Any]) -> dict[str, Any]:
    photos, kind = job["photos"], job["kind"]
    if job["device"].startswith("tensorrt"):
        os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")  # this process is the benchmark's own
    begun = time.perf_counter()
    segmenter = Segmenter(job["model"], backend=job["backend"], device=job["device"], threads=job["threads"])
    loaded = time.perf_counter()
    encode(segmenter(photos[0]), kind)
    done = time.perf_counter()
    result: dict[str, Any] = {
        "cold_start": {
            "total": (done - job["started"]) * 1000,
            "load": (loaded - begun) * 1000,
            "first": (done - loaded) * 1000,
        },
        "engine": segmenter.backend.engine,
        "device": segmenter.backend.device,
        "note": segmenter.backend.note,
    }
    if job["labelled"]:
        # Of the process that started this one, which alone can write to it.
        samples = pickle.loads(base64.b64decode(job["labelled"]))
        result["matrix"], result["problems"] = confusion_matrix(segmenter, samples)
        return result
    for index in range(WARM_UP):
        time_photo(segmenter, photos[index % len(photos)], kind)
    result["samples"] = [time_photo(segmenter, path, kind) for path in photos]
    result["peak_memory"] = peak_memory()
    return result


def _private_output() -> IO[str]:
    """Standard output for the result alone: what an engine prints goes to standard error."""
    sys.stdout.flush()
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return private


def main() -> None:
    with _private_output() as output:
        try:
            result = _work(json.load(sys.stdin))
        except UnetRuntimeError as error:
            result = {"error": str(error)}
        except Exception as error:  # a broken engine raises anything, even while it is imported
            result = {"error": f"{type(error).__name__}: {error}"}
        json.dump(result, output)


if __name__ == "__main__":
    main()

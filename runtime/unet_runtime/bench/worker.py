"""One process that measures one combination: ``python -m unet_runtime.bench.worker``, started by ``children``.

A job comes as JSON on standard input; answers go as lines of JSON to standard output: one when the first photo has
been answered, whose arrival is the end of the cold start, and one with what was measured, or ``{"error": ...}``.
A process for each combination, because only a new one shows its peak memory and its cold start.

Imports nothing before the first answer that ``unet-run`` would not.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from unet_runtime.core.errors import ImageError, SourceError, UnetRuntimeError
from unet_runtime.core.geometry import model_input, model_labels, place
from unet_runtime.core.photo import open_photo
from unet_runtime.core.segmentation import Segmentation
from unet_runtime.io.sinks import encode
from unet_runtime.segmenter import Segmenter

STAGES = ("decode", "preprocess", "inference", "postprocess", "encode")

WARM_UP = 3
"""Photos after the first answer that are not timed: engines allocate and choose kernels on them."""

_TRIMAP_CLASSES = 3  # pet, background, border

KINDS = {"mask": "mask", "overlay": "mask", "cutout": "opacity"}
"""What may be made of each photo, as unet-run's ``--save`` calls it -> what of the result it is drawn from."""


def measure(segmenter: Segmenter, path: str, kind: str) -> list[float]:
    """Seconds of each of ``STAGES``: the photo of ``path`` from its file to a PNG of ``KINDS`` in memory.

    ``postprocess`` is the mask or opacity at the photo's size, ``encode`` the drawing and the PNG.
    """
    moments = [time.perf_counter()]
    photo = open_photo(path)
    moments.append(time.perf_counter())
    batch = model_input(photo, segmenter.spec.input)  # uint8 (1, h, w, 3)
    moments.append(time.perf_counter())
    probabilities = segmenter.backend.run(batch)[0]  # float32 (h, w, classes)
    moments.append(time.perf_counter())
    result = Segmentation(photo, probabilities, segmenter.spec, place(photo.size, segmenter.spec))
    getattr(result, KINDS[kind])  # made when first asked for
    moments.append(time.perf_counter())
    encode(result, kind)
    moments.append(time.perf_counter())
    return [end - start for start, end in itertools.pairwise(moments)]


def confusion_matrix(segmenter: Segmenter, pairs: list[tuple[str, str]]) -> tuple[list[list[int]], list[str]]:
    """Truth against answers on the model's own grid, as unet-train and unet-export measure it.

    Args:
        segmenter: of a model with the trimap's three classes.
        pairs: paths of photos and their trimaps.

    Returns:
        Pixel counts, row = truth, column = answer; and why photos were left out, one line each.

    Raises:
        SourceError: a model with other classes.
    """
    from unet_runtime.core.datasets.oxford_pets import open_trimap
    from unet_runtime.core.metrics import confusion

    spec = segmenter.spec
    if len(spec.classes) != _TRIMAP_CLASSES:
        raise SourceError(f"accuracy: the model has {len(spec.classes)} classes, expected a trimap's {_TRIMAP_CLASSES}")
    total = np.zeros((len(spec.classes),) * 2, np.int64)
    problems = []
    for photo, trimap in pairs:
        try:
            truth = model_labels(open_trimap(trimap), spec.input)[spec.input.valid]
            answer = segmenter.backend.run(model_input(open_photo(photo), spec.input))[0].argmax(axis=-1)
        except ImageError as error:
            problems.append(str(error))
            continue
        total += confusion([truth], [answer.astype(np.uint8)], len(spec.classes))
    return total.tolist(), problems


def peak_memory() -> int | None:
    """Bytes that this process had in memory at most; None where the system does not say."""
    try:
        # Not getrusage: after fork and exec Linux has it begin with what the parent process had.
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


def _work(job: dict[str, Any], answer: Callable[[dict[str, Any]], None]) -> None:
    started = time.perf_counter()
    segmenter = Segmenter(job["model"], backend=job["backend"], device=job["device"], threads=job["threads"])
    loaded = time.perf_counter()
    encode(segmenter(job["photos"][0]), job["kind"])
    backend = segmenter.backend
    answer(
        {"load": loaded - started, "first": time.perf_counter() - loaded}
        | {"engine": backend.engine, "device": backend.device, "note": backend.note}
    )
    if job["pairs"]:
        matrix, problems = confusion_matrix(segmenter, job["pairs"])
        answer({"matrix": matrix, "problems": problems})
        return
    for index in range(WARM_UP):
        measure(segmenter, job["photos"][index % len(job["photos"])], job["kind"])
    samples = [measure(segmenter, path, job["kind"]) for path in job["photos"]]
    answer({"samples": samples, "peak_memory": peak_memory()})


def _private_output() -> IO[str]:
    """Standard output for answers alone: what an engine prints goes to standard error."""
    sys.stdout.flush()
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return private


def main() -> None:
    output = _private_output()

    def answer(content: dict[str, Any]) -> None:
        output.write(json.dumps(content) + "\n")
        output.flush()

    try:
        _work(json.load(sys.stdin), answer)
    except UnetRuntimeError as error:
        answer({"error": str(error)})
    except Exception as error:  # a broken engine raises anything, already when it is imported
        answer({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()

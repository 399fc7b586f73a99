"""A folder of photos through unet-run, against the engine alone at the same thread count.

    PETS_DIR=... python benchmarks/folder.py [--photos 1000] [--rounds 5] [--threads 1] [--save overlay,mask]

The engine runs the same number of prepared inputs, one after the other with all its threads: no file is read, nothing
is decoded, nothing written. unet-run is a whole process: start, decoding, masks at the photos' own size, encoding,
writing. The two take turns; medians of the rounds and of their ratios, by the clock and by processor time, which other
work on the machine changes less. The engine is timed a second way, too: as many
runs at a time as there are threads, one thread each, as unet-run does it; no folder can be faster than that.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from turns import median_ratio, take_turns

from unet_runtime import Segmenter
from unet_runtime.core.datasets import evenly
from unet_runtime.core.geometry import model_input
from unet_runtime.core.photo import open_photo
from unet_runtime.io.jobs import models_to_load, plan

INPUTS = 64  # different ones: more need no more of the engine


def chosen(folder: Path, count: int) -> list[Path]:
    """Photos evenly spread over the breeds."""
    return evenly(sorted(folder.glob("*.jpg")), count)


def engine_alone(segmenter: Segmenter, inputs: list[npt.NDArray[np.uint8]], count: int) -> None:
    for index in range(count):
        segmenter.backend.run(inputs[index % len(inputs)])


def engine_shared(segmenters: list[Segmenter], inputs: list[npt.NDArray[np.uint8]], count: int) -> None:
    each = count // len(segmenters)
    threads = [threading.Thread(target=engine_alone, args=(one, inputs, each)) for one in segmenters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def processor_seconds() -> float:
    """Processor time of this process and of those that it has waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def unet_run(folder: Path, options: argparse.Namespace) -> None:
    out = folder.parent / "out"
    shutil.rmtree(out, ignore_errors=True)  # a result that is replaced costs the file system more than a new one
    command = [Path(sys.executable).with_name("unet-run"), folder, "--output-dir", out, "--save", options.save]
    command += ["--backend", options.backend, *(["--threads", str(options.threads)] if options.threads else [])]
    subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
    kinds = len(options.save.split(","))
    assert len(list(out.iterdir())) == kinds * options.photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: one for each core")
    parser.add_argument("--backend", default="onnx")
    parser.add_argument("--save", default="overlay,mask")
    options = parser.parse_args()
    photos = chosen(Path(os.environ["PETS_DIR"]) / "images", options.photos)
    shares = plan(options.photos, options.threads)
    total = shares.runs * (shares.threads or 1)
    segmenter = Segmenter(backend=options.backend, threads=total)
    inputs = [model_input(open_photo(path), segmenter.spec.input) for path in photos[:INPUTS]]
    first = Segmenter(backend=options.backend, threads=shares.threads)
    count = models_to_load(first.backend, shares.runs)
    loaded = [first, *(Segmenter(backend=options.backend, threads=shares.threads) for _ in range(count - 1))]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "photos"
        folder.mkdir()
        for path in photos:
            shutil.copy(path, folder)
        calls: dict[str, Callable[[], object]] = {
            f"engine alone, {total} threads": lambda: engine_alone(segmenter, inputs, options.photos),
            f"engine alone, {shares.runs} runs at a time": lambda: engine_shared(
                loaded * (shares.runs // count), inputs, options.photos
            ),
            f"unet-run --save {options.save}": lambda: unet_run(folder, options),
        }
        processor: dict[str, list[float]] = {name: [] for name in calls}

        def measured(name: str) -> None:
            start = processor_seconds()
            calls[name]()
            processor[name].append(processor_seconds() - start)

        seconds = take_turns({name: partial(measured, name) for name in calls}, options.rounds, warm_up=0)
    shared = list(calls)[1]
    for name, taken in seconds.items():
        used = 1000 * statistics.median(processor[name]) / options.photos
        share = median_ratio(processor[shared], processor[name])
        print(f"{name:36} {used:7.2f} ms of processor a photo  {share:5.0%} of it the engine")
        line = f"{name:36} {options.photos / statistics.median(taken):7.1f} photos/s "
        for other in list(calls)[:2]:
            if other != name:
                line += f"  {median_ratio(seconds[other], taken):5.0%} of {other}"
        print(line)


if __name__ == "__main__":
    main()

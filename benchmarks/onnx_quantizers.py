"""ONNX Runtime's calibrators against each other and against float32: size, milliseconds, IoU lost.

    python benchmarks/onnx_quantizers.py --data oxford-iiit-pet [--photos 500] [--methods minmax,percentile,entropy]

Calibrated on 200 photos of the trainval part, measured on photos spread over the test part (0: all). The head is in
float32 in every file; bits are those in use of a weight's 8. Milliseconds are
medians of single photos in ONNX Runtime, the files taking turns, so that a drift of the machine's speed hits all.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bundled
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from unet_export.foreign.load import load_model
from unet_export.formats.onnx_convert import build_onnx
from unet_export.formats.onnx_float16 import to_float16
from unet_export.formats.onnx_reduced import quantize
from unet_export.quantization import METHODS, Quantization
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets import Sample, evenly, open_dataset, open_labels, read_split
from unet_runtime.core.geometry import model_input, model_labels
from unet_runtime.core.metrics import confusion, iou
from unet_runtime.core.photo import open_photo

TIMED = 60
"""Photos that are timed."""


def files(model: Path, data: Path, methods: list[str], count: int) -> dict[str, onnx.ModelProto]:
    """What is compared, by name; float32 first."""
    artifact = read_artifact(model)
    plain = build_onnx(load_model(model)[0], artifact.spec.name)
    made = {"float32": plain, "float16": to_float16(plain)}
    photos = evenly(read_split(open_dataset(data), artifact.spec.provenance.split, "trainval"), count)
    images = np.concatenate([model_input(open_photo(photo.photo), artifact.spec.input) for photo in photos])
    for method in methods:
        start = time.perf_counter()
        made[f"int8 {method}, 7 bits"] = quantize(plain, images, Quantization(method, len(images), weight_bits=7))
        print(f"{method}: {time.perf_counter() - start:.0f} s for {len(images)} photos", flush=True)
    if "minmax" in methods:
        made["int8 minmax, 8 bits"] = quantize(plain, images, Quantization("minmax", len(images)))
    return made


def measure(
    sessions: dict[str, Any], photos: list[Sample], model: Path
) -> tuple[dict[str, npt.NDArray[np.int64]], dict[str, float], dict[str, list[float]]]:
    """Confusion matrix, share of pixels that agree with float32, and seconds of each file."""
    spec = read_artifact(model).spec
    classes = len(spec.classes)
    matrices = {name: np.zeros((classes, classes), np.int64) for name in sessions}
    agreeing, seconds = dict.fromkeys(sessions, 0.0), {name: [] for name in sessions}
    for photo in photos:
        image = model_input(open_photo(photo.photo), spec.input)
        truth = model_labels(open_labels(photo), spec.input)
        masks = {}
        for name, session in sessions.items():
            start = time.perf_counter()
            probabilities = session.run(["probabilities"], {"image": image})[0]
            seconds[name].append(time.perf_counter() - start)
            masks[name] = probabilities[0].argmax(-1).astype(np.uint8)
            matrices[name] += confusion([truth], [masks[name]], classes)
            agreeing[name] += float((masks[name] == masks["float32"]).mean()) / len(photos)
    return matrices, agreeing, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=bundled.KERAS)
    parser.add_argument("--photos", type=int, default=500, help="of the test part; 0: all")
    parser.add_argument("--calibration", type=int, default=200)
    parser.add_argument("--methods", default=",".join(METHODS))
    options = parser.parse_args()
    spec = read_artifact(options.model).spec
    made = files(options.model, options.data, options.methods.split(","), options.calibration)
    sessions = {
        name: onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        for name, proto in made.items()
    }
    test = read_split(open_dataset(options.data), spec.provenance.split, "test")
    photos = evenly(test, options.photos) if options.photos else test
    matrices, agreeing, seconds = measure(sessions, photos, options.model)
    neutral = list(spec.roles("neutral"))
    base = iou(matrices["float32"])
    print(f"\n{len(photos)} photos, float32: mean IoU {base.mean():.5f}, border IoU {base[neutral].mean():.5f}\n")
    print("| file | MB | ms a photo | mean IoU drop, points | border IoU drop, points | pixels agreeing |")
    print("|---|---|---|---|---|---|")
    for name, proto in made.items():
        lost = (base - iou(matrices[name])) * 100
        milliseconds = statistics.median(seconds[name][-TIMED:]) * 1000
        print(
            f"| {name} | {proto.ByteSize() / 1e6:.2f} | {milliseconds:.1f} | {lost.mean():+.3f} "
            f"| {lost[neutral].mean():+.3f} | {agreeing[name]:.3%} |"
        )


if __name__ == "__main__":
    main()

"""Rows of measurements made by hand, for tests of what is reported about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.helpers.colours import colour_spec
from unet_runtime.bench.machine import Machine
from unet_runtime.bench.measure import TOTAL, Accuracy, ColdStart, Percentiles, Row
from unet_runtime.bench.plan import Combination, Model
from unet_runtime.bench.worker import STAGES
from unet_runtime.core.spec import Provenance

MACHINE = Machine("Linux-6.1-x86_64", "x86_64", "Some CPU", 2, ("avx2", "fma"), 8 << 30, 0.1, "3.11.9")

ENGINE_NAMES = {"onnx": "ONNX Runtime 1.31.1", "tflite": "LiteRT 2.3.0", "openvino": "OpenVINO 2026.4.1"}


def row(
    inference: float,
    *,
    backend: str = "onnx",
    precision: str = "float32",
    threads: int = 1,
    weights: str = "a" * 64,
    mean_iou: float | None = None,
    folder: str = "models",
) -> Row:
    """A row with this many milliseconds of inference, and 1 ms for each other stage."""
    spec = replace(colour_spec(), precision=precision, provenance=Provenance(weights_sha256=weights))
    suffix = "tflite" if backend == "tflite" else "onnx"
    model = Model(Path(folder, f"m.{precision}.{suffix}"), spec, 2_000_000, "0" * 64)
    times = dict.fromkeys(STAGES, 1.0) | {"inference": inference, TOTAL: inference + len(STAGES) - 1}
    score = mean_iou or 0.0
    return Row(
        Combination(model, backend, "auto", threads),
        engine=ENGINE_NAMES[backend],
        device="cpu",
        photos=40,
        stages={stage: Percentiles(time, time * 2, time * 3) for stage, time in times.items()},
        photos_a_second=1000 / times[TOTAL],
        peak_memory=100_000_000,
        cold_start=ColdStart(500, 200, 100),
        accuracy=None if mean_iou is None else Accuracy(7, score, {"red": score, "green": score}, ()),
    )

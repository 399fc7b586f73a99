"""Results of a gate, made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.helpers.colours import colour_spec
from unet_export.formats import FORMATS
from unet_export.gate.gate import GATES, EngineResult, Metrics, ParityResult, judge
from unet_export.photos import Photo, PhotoSets
from unet_export.report.report import Report

SPEC = colour_spec(16)

NO_CUDA = EngineResult("onnx", "cuda", "onnxruntime CUDA", None, not_checked="no CUDA driver here")


def metrics(change: float = 0.0, max_abs: float = 1e-6, agreement: float = 0.99995) -> Metrics:
    """``change``: of mean IoU in points; the last class loses twice that."""
    names = SPEC.class_names
    keras = dict(zip(names, (1.0, 1.0, 0.97), strict=True))
    reference = dict(zip(names, (0.9, 0.85, 0.5), strict=True))
    shares = dict(zip(names, (0.5, 0.5, 2.0), strict=True))
    actual = {name: reference[name] + shares[name] * change / 100 for name in names}
    pixels = dict.fromkeys(names, 10_000)
    return Metrics(max_abs, max_abs / 3, max_abs / 30, agreement, keras, reference, actual, pixels)


ENGINES = {"onnx": "ONNX Runtime 1.0", "openvino": "OpenVINO 1.0", "tflite": "LiteRT 1.0", "tensorflow": "TensorFlow 2"}


def engine(
    name: str, ms: float | None, measured: Metrics, device: str = "cpu", precision: str = "float32"
) -> EngineResult:
    counts = (5, 10, 100, 7, 0, 0, 0, 0, 0, 0)
    label = ENGINES[name] + (" CUDA" if device == "cuda" else "")
    return EngineResult(name, device, label, measured, counts, ms, failures=judge(measured, GATES[precision]))


def artifact(name: str, size: int, *engines: EngineResult, file: str = "") -> ParityResult:
    form = FORMATS[name]
    path = Path("/nowhere") / (file or form.file_name(SPEC))
    return ParityResult(name, form.precision, path, size, "0" * 64, GATES[form.precision], engines, {})


def quantized(name: str, size: int, ms: float, change: float = -0.1) -> ParityResult:
    return artifact(name, size, engine("tflite", ms, metrics(change, 0.1, 0.995), precision="int8"))


FLOAT = artifact("onnx", 4000, engine("onnx", 20.0, metrics()), NO_CUDA, engine("openvino", 16.0, metrics()))
HALF = artifact("onnx-float16", 2000, engine("onnx", 30.0, metrics()), NO_CUDA)
INT8 = quantized("tflite-int8", 1000, 8.0)
WORSE = quantized("tflite-int8", 900, 5.0, change=-0.4)
SAVED = artifact("saved-model", 9000, engine("tensorflow", 4.0, metrics()))


def report(*results: ParityResult, **settings: Any) -> Report:
    photo = Photo("a.jpg", Path("a.jpg"), Path("a.png"))
    photos = PhotoSets(calibration=[photo] * 3, reserve=[], parity=[photo] * 64, split="official")
    whole = Report(model="colours.keras", spec=SPEC, photos=photos, results=results)
    return replace(whole, **settings)

"""The TFLite formats, in six precisions. What they need is imported when a file is written."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from unet_export.formats.base import Builder, Format
from unet_export.quantization import TFLITE_METHODS, Quantization
from unet_export.transforms.rounding import MOMENT_PHOTOS
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.spec import Precision


def _write(builder: Builder, path: Path, quantization: Quantization, *, form: str, precision: Precision) -> None:
    from unet_export.formats import tflite_convert

    images = None
    if precision in tflite_convert.CALIBRATED:
        images = builder.images(quantization.photos)
    elif precision == "float16":
        images = builder.images(MOMENT_PHOTOS)
    model = builder.model(quantization)  # float16 kernels are rounded behind the conversion, biases are not
    work = builder.folder(form)
    path.write_bytes(tflite_convert.export_tflite(model, precision, builder.spec, images, quantization, work))


def _check(path: Path, *, precision: Precision) -> None:
    from unet_export.formats import tflite_check

    artifact = read_artifact(path)
    settings = artifact.spec.provenance.quantization
    wide = bool(settings.get("finer_head") or settings.get("precise"))
    tflite_check.check(artifact.content, precision, wide=wide)


def _format(name: str, precision: Precision, suffix: str, **settings: Any) -> Format:
    write = partial(_write, form=name, precision=precision)
    return Format(name, precision, suffix, ("tflite",), write, partial(_check, precision=precision), **settings)


_FLOAT32 = _format("tflite", "float32", ".float32.tflite")

_MIXED = _format("tflite-mixed", "mixed", ".mixed.tflite", methods=TFLITE_METHODS, baseline=_FLOAT32)

FORMATS = (
    _FLOAT32,
    _format("tflite-float16", "float16", ".float16.tflite"),
    _format("tflite-dynamic", "dynamic-range", ".dynamic.tflite"),
    _format("tflite-int8", "int8", ".int8.tflite", methods=TFLITE_METHODS, baseline=_FLOAT32, mixed=_MIXED),
    _format(
        "tflite-int8-finer",
        "int8",
        ".int8-finer.tflite",
        quantization=Quantization(finer_head=True),
        methods=TFLITE_METHODS,
        baseline=_FLOAT32,
    ),
    _format("tflite-int16x8", "int16x8", ".int16x8.tflite", methods=TFLITE_METHODS, baseline=_FLOAT32),
)

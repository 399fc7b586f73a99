"""The TFLite formats, in five precisions. What they need is imported when a file is written."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from unet_export.formats.base import Builder, Format
from unet_export.quantization import TFLITE_METHODS, Quantization
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.spec import Precision


def _write(builder: Builder, path: Path, quantization: Quantization, *, form: str, precision: Precision) -> None:
    from unet_export.formats import tflite_convert

    images = builder.images(quantization.photos) if precision in tflite_convert.CALIBRATED else None
    model = builder.model(quantization, precision)
    work = builder.folder(form)
    path.write_bytes(tflite_convert.export_tflite(model, precision, builder.spec, images, quantization, work))


def _check(path: Path, *, precision: Precision) -> None:
    from unet_export.formats import tflite_check

    tflite_check.check(read_artifact(path).content, precision)


def _format(name: str, precision: Precision, suffix: str, **settings: Any) -> Format:
    write = partial(_write, form=name, precision=precision)
    return Format(name, precision, suffix, ("tflite",), write, partial(_check, precision=precision), **settings)


_FLOAT32 = _format("tflite", "float32", ".float32.tflite")

FORMATS = (
    _FLOAT32,
    _format("tflite-float16", "float16", ".float16.tflite"),
    _format("tflite-dynamic", "dynamic-range", ".dynamic.tflite"),
    _format("tflite-int8", "int8", ".int8.tflite", methods=TFLITE_METHODS, baseline=_FLOAT32),
    _format("tflite-int16x8", "int16x8", ".int16x8.tflite", methods=TFLITE_METHODS, baseline=_FLOAT32),
)

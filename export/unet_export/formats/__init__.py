"""The table of formats: what an export can consist of. A new format is one file and one line here."""

from __future__ import annotations

from unet_export.formats import onnx, saved_model, tflite, tflite_micro, triton, web
from unet_export.formats.base import Builder, Format

__all__ = ["DEFAULT_FORMATS", "FORMATS", "ONNX_FORMATS", "Builder", "Format", "format_named"]

FORMATS: dict[str, Format] = {
    entry.name: entry
    for entry in (
        saved_model.SAVED_MODEL,
        *onnx.FORMATS,
        *tflite.FORMATS,
        tflite_micro.TFLITE_MICRO,
        web.WEB,
        triton.TRITON,
    )
}

_MIXED = {entry.mixed.name: entry.mixed for entry in FORMATS.values() if entry.mixed is not None}
"""Formats that nobody asks for: they take the place of an integer one that a model cannot be brought to."""


def format_named(name: str) -> Format:
    """The format of an artifact."""
    return FORMATS.get(name) or _MIXED[name]


_ON_REQUEST = ("tflite-int16x8", "tflite-int8-finer", "onnx-float16-weights", "tflite-micro", "web", "triton")
"""What runs in LiteRT's interpreter alone, or, as int16x8 on a CPU, many times slower than int8; what is only shorter
than the float32 file; and what is for browsers and servers."""

DEFAULT_FORMATS = tuple(name for name in FORMATS if name not in _ON_REQUEST)

ONNX_FORMATS = tuple(entry.name for entry in onnx.FORMATS)
"""What is made of an ONNX file."""

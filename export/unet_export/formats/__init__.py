"""The table of formats: what an export can consist of. A new format is one file and one line here."""

from __future__ import annotations

from unet_export.formats import onnx, saved_model, tflite, triton, web
from unet_export.formats.base import Builder, Format

__all__ = ["DEFAULT_FORMATS", "FORMATS", "ON_REQUEST", "Builder", "Format"]

FORMATS: dict[str, Format] = {
    entry.name: entry for entry in (saved_model.SAVED_MODEL, *onnx.FORMATS, *tflite.FORMATS, web.WEB, triton.TRITON)
}

ON_REQUEST = ("tflite-int16x8", "tflite-int8-finer", "web", "triton")
"""What runs in LiteRT's interpreter alone, or, as int16x8 on a CPU, many times slower than int8; and what is for
browsers and servers."""

DEFAULT_FORMATS = tuple(name for name in FORMATS if name not in ON_REQUEST)

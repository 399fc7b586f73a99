"""Model files of other tools, read by their suffix."""

from __future__ import annotations

from pathlib import Path

from unet_export.adopt.facts import Facts
from unet_export.errors import ExportError
from unet_export.source_model import refuse_other_content


def read(path: Path) -> Facts:
    """Read a ``.onnx`` or ``.tflite`` file, and what lies beside it.

    Raises:
        ModelFileError: no such file.
        ExportError: it is no model, or one that the runtime's engines cannot run; the message says what to do.
    """
    refuse_other_content(path)
    if path.suffix == ".onnx":
        from unet_export.adopt import onnx_facts

        return onnx_facts.read(path)
    if path.suffix == ".tflite":
        from unet_export.adopt import tflite_facts

        return tflite_facts.read(path)
    remedy = {
        ".pt": "export it with torch.onnx.export",
        ".pth": "export it with torch.onnx.export",
        ".keras": "export it with unet-export --classes ...",
        ".h5": "export it with unet-export --classes ...",
        ".pb": "make a .tflite or .onnx of it first",
    }.get(path.suffix, "make a .onnx of it first")
    raise ExportError(f"{path}: suffix {path.suffix!r}, expected .onnx or .tflite: {remedy}")

"""What the session's export of the tiny model consists of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.helpers.tiny import SIZE
from unet_export.gate.gate import ParityResult

FORMATS = ("saved-model", "onnx", "onnx-int8", "tflite-int8")
"""Formats of the session's export; test_pipeline.py makes all of them once."""

ONNX, TFLITE = f"tiny-{SIZE}.float32.onnx", f"tiny-{SIZE}.int8.tflite"


@dataclass(frozen=True)
class Export:
    """A finished export and what went into it."""

    folder: Path
    results: list[ParityResult]

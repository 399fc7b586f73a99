"""The bundled model, whichever it is at present: its files, and what they say of themselves."""

from __future__ import annotations

from tests.helpers.paths import REPOSITORY
from unet_runtime.core.artifact import read_artifact
from unet_runtime.engines.base import FLOAT_ONNX, INT8_ONNX, INT8_TFLITE

__all__ = ["FLOAT_ONNX", "INT8_ONNX", "INT8_TFLITE", "KERAS", "SPEC"]

SPEC = read_artifact(INT8_TFLITE).spec

KERAS = REPOSITORY / "training/unet_training/weights" / f"{SPEC.name}.keras"
"""The trained model that the bundled files were exported from."""

"""The trained model that the bundled files were exported from; ``replace_bundled.py`` puts it there."""

from __future__ import annotations

from pathlib import Path

from unet_runtime.core.artifact import read_artifact
from unet_runtime.engines.base import FLOAT_ONNX

WEIGHTS = Path(__file__).parents[1] / "training/unet_training/weights"

KERAS = WEIGHTS / f"{read_artifact(FLOAT_ONNX).spec.name}.keras"

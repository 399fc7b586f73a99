"""A whole float32 ``.onnx`` file of a model, without an export."""

from __future__ import annotations

from typing import Any

from unet_export.formats.onnx_convert import build_onnx, finish
from unet_runtime.core.spec import ModelSpec


def export_onnx(model: Any, spec: ModelSpec) -> bytes:
    return finish(build_onnx(model, spec.name), spec, "float32")

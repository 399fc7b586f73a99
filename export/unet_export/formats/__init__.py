"""What an export can consist of: one row a format, and the names of their files, which say the truth."""

from __future__ import annotations

from dataclasses import dataclass

from unet_runtime.core.spec import ModelSpec, Precision


@dataclass(frozen=True)
class Format:
    """One kind of artifact."""

    name: str
    """As ``--formats`` takes it."""
    precision: Precision
    """Of the artifact's spec."""
    suffix: str
    """Of its file, precision included; a SavedModel's folder has none."""
    engines: tuple[str, ...]
    """Backends of the runtime that run it, in the order in which they are tried; a SavedModel runs in TensorFlow."""

    @property
    def quantized(self) -> bool:
        """Whether its activations are integers, so that it is calibrated on photos and may be repaired."""
        return self.precision in ("int8", "int16x8")

    def file_name(self, spec: ModelSpec, *, dynamic: bool = False) -> str:
        """``pets-edge-160.int8.tflite``; the size is ``160x224`` (height, width) or ``dynamic`` where it is that."""
        if not self.suffix:
            return "saved_model"
        height, width = spec.input.height, spec.input.width
        size = "dynamic" if dynamic else f"{height}" if height == width else f"{height}x{width}"
        return f"{spec.name}-{size}{self.suffix}"


SAVED_MODEL = "saved-model"

_ONNX_ENGINES = ("onnx", "openvino")

FORMATS = {
    entry.name: entry
    for entry in (
        Format(SAVED_MODEL, "float32", "", ("tensorflow",)),
        Format("onnx", "float32", ".float32.onnx", _ONNX_ENGINES),
        Format("onnx-float16", "float16", ".float16.onnx", _ONNX_ENGINES),
        Format("onnx-int8", "int8", ".int8.onnx", _ONNX_ENGINES),
        Format("tflite", "float32", ".float32.tflite", ("tflite",)),
        Format("tflite-float16", "float16", ".float16.tflite", ("tflite",)),
        Format("tflite-dynamic", "dynamic-range", ".dynamic.tflite", ("tflite",)),
        Format("tflite-int8", "int8", ".int8.tflite", ("tflite",)),
        Format("tflite-int16x8", "int16x8", ".int16x8.tflite", ("tflite",)),
    )
}

DEFAULT_FORMATS = tuple(name for name in FORMATS if name != "tflite-int16x8")
"""LiteRT's CPU kernels run int16x8, which is for accelerators that ask for it, many times slower than int8."""

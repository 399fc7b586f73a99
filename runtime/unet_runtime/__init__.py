"""Segment photos on a device with a model that unet-edge trained and exported; no training framework needed."""

from __future__ import annotations

from unet_runtime.errors import BackendError, ImageError, ModelFileError, OutputError, SourceError, UnetRuntimeError
from unet_runtime.segmenter import Segmentation, Segmenter
from unet_runtime.spec import ModelSpec

__all__ = [
    "BackendError",
    "ImageError",
    "ModelFileError",
    "ModelSpec",
    "OutputError",
    "Segmentation",
    "Segmenter",
    "SourceError",
    "UnetRuntimeError",
]

__version__ = "0.1.0"

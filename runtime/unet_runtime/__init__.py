"""Segment photos on a device with a model that unet-edge trained and exported; no training framework needed."""

from __future__ import annotations

from unet_runtime.core.errors import (
    BackendError,
    ImageError,
    MissingDependencyError,
    ModelFileError,
    OutputError,
    SourceError,
    UnetRuntimeError,
)
from unet_runtime.core.segmentation import Segmentation
from unet_runtime.core.spec import ModelSpec
from unet_runtime.segmenter import Segmenter

__all__ = [
    "BackendError",
    "ImageError",
    "MissingDependencyError",
    "ModelFileError",
    "ModelSpec",
    "OutputError",
    "Segmentation",
    "Segmenter",
    "SourceError",
    "UnetRuntimeError",
]

__version__ = "0.1.0"

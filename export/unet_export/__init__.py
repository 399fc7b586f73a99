"""Export a trained model to SavedModel, ONNX and TFLite, and prove each file equal to it.

    from unet_export import ExportOptions, PhotoSource, export_model

Importing this package imports no engine: TensorFlow is loaded with the first name that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unet_export.diagnosis.examine import Diagnosis, examine
    from unet_export.errors import ExportError
    from unet_export.foreign.load import Description
    from unet_export.gate.gate import GATES, Gate, ParityError, ParityResult
    from unet_export.photos import PhotoSource
    from unet_export.pipeline import ExportOptions, export_model

__version__ = "0.1.0"

__all__ = [
    "GATES",
    "Description",
    "Diagnosis",
    "ExportError",
    "ExportOptions",
    "Gate",
    "ParityError",
    "ParityResult",
    "PhotoSource",
    "examine",
    "export_model",
]

_MODULES = {
    "Description": "unet_export.foreign.load",
    "Diagnosis": "unet_export.diagnosis.examine",
    "ExportError": "unet_export.errors",
    "ExportOptions": "unet_export.pipeline",
    "GATES": "unet_export.gate.gate",
    "Gate": "unet_export.gate.gate",
    "ParityError": "unet_export.gate.gate",
    "ParityResult": "unet_export.gate.gate",
    "PhotoSource": "unet_export.photos",
    "examine": "unet_export.diagnosis.examine",
    "export_model": "unet_export.pipeline",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value

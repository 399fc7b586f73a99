"""Export a trained model to SavedModel, ONNX and int8 TFLite, and prove each equal to it.

``unet_export.pipeline.export_model`` is the whole way. Importing this package imports no engine.
"""

from __future__ import annotations

__version__ = "0.1.0"

"""Float and int8 files of a model, and the masks that they predict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter

from unet_export.formats import FORMATS
from unet_export.formats.onnx_convert import build_onnx
from unet_export.formats.onnx_reduced import quantize
from unet_export.formats.tflite_convert import export_tflite
from unet_export.quantization import Quantization
from unet_runtime.core.spec import ModelSpec


def calibration(images: Any) -> Any:
    """The same photos with black and white among their pixels."""
    images = images.copy()
    images[0, 0, 0], images[0, -1, -1] = 0, 255
    return images


def tflite_files(model: Any, spec: ModelSpec, images: Any, work: Path) -> tuple[bytes, bytes]:
    """float32 and int8."""
    plain = export_tflite(model, "float32", spec, None, Quantization(), work)
    return plain, export_tflite(model, "int8", spec, calibration(images), Quantization(), work)


def onnx_files(model: Any, images: Any) -> tuple[bytes, bytes]:
    """float32 and int8."""
    plain = build_onnx(model, "tiny")
    return plain.SerializeToString(), quantize(plain, calibration(images), Quantization()).SerializeToString()


def onnx_int8_masks(model: Any, images: Any, *, tuned: bool = False) -> Any:
    """Class ids (n, h, w) of the int8 ONNX file as it is made by default, or after fine-tuning."""
    settings = replace(FORMATS["onnx-int8"].quantization, finetune_steps=int(tuned))
    made = quantize(build_onnx(model, "tiny"), calibration(images), settings)
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})[0].argmax(axis=-1)


def int8_masks(model: Any, spec: ModelSpec, images: Any, work: Path, *, tuned: bool = False) -> Any:
    """Class ids (n, h, w) of the int8 TFLite file, as it is made by default or after fine-tuning."""
    settings = Quantization(finetune_steps=int(tuned))
    interpreter = Interpreter(model_content=export_tflite(model, "int8", spec, calibration(images), settings, work))
    interpreter.allocate_tensors()
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    masks = []
    for image in images:
        interpreter.set_tensor(source["index"], image[np.newaxis])
        interpreter.invoke()
        masks.append(interpreter.get_tensor(result["index"])[0].argmax(axis=-1))
    return np.stack(masks)

"""Keras model -> TFLite with integers throughout: uint8 in, uint8 out, no float operator between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.calibration import sha256
from unet_export.errors import ExportError
from unet_export.keras_model import import_keras
from unet_export.saved_model import INPUT_NAME, write_graph
from unet_runtime.artifact import append_to_tflite
from unet_runtime.spec import ModelSpec

_INTEGERS = ("UINT8", "INT8", "INT16", "INT32", "INT64", "BOOL")
"""Tensor types of a full-integer file: int8 activations and weights, int32 biases, shapes."""


def export_int8(model: Any, spec: ModelSpec, images: npt.NDArray[np.uint8], work: Path) -> bytes:
    """A whole ``.tflite`` file: uint8 (1, h, w, 3) -> uint8 probabilities (1, h', w', classes).

    Args:
        model: the Keras model.
        spec: of the model.
        images: calibration photos, uint8 (n, h, w, 3), with 0 and 255 among their values.
        work: an empty folder for what the converter reads.

    Returns:
        Its bytes, spec and digest included.

    Raises:
        ExportError: the converter refuses the model, or the file is not full integer.
    """
    import tensorflow as tf

    write_graph(_with_float_input(model), work / "float_input", batch=1, dtype="float32")
    content = _convert(work / "float_input", images)
    check_full_integer(content)
    tools = {**spec.provenance.tools, "tensorflow": tf.__version__}
    return append_to_tflite(content, spec.with_precision("int8", tools=tools, calibration_sha256=sha256(images)))


def _with_float_input(model: Any) -> Any:
    """The same network fed with float32 in 0..255: the converter quantises only what is float."""
    keras = import_keras()
    image = keras.Input(model.inputs[0].shape[1:], dtype="float32", name=INPUT_NAME)
    twin = keras.models.clone_model(model, input_tensors=image)
    twin.set_weights(model.get_weights())
    return twin


def _convert(folder: Path, images: npt.NDArray[np.uint8]) -> bytes:
    import tensorflow as tf

    def representative() -> Iterator[list[npt.NDArray[np.float32]]]:
        for image in images:
            yield [image[np.newaxis].astype(np.float32)]  # (1, h, w, 3) in 0..255

    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    # No float kernel to fall back to: an operator without an int8 form is an error here, not a surprise there.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8
    converter.inference_output_type = tf.uint8
    try:
        content = converter.convert()
    except Exception as error:  # the converter's errors share no base but Exception
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"TensorFlow {tf.__version__} cannot convert the model to int8: {reason}") from error
    return bytes(content)


def check_full_integer(content: bytes) -> None:
    """Read the flatbuffer itself: an engine would run a float or half-float file without a word.

    Raises:
        ExportError: a tensor that is not integer, an operator from outside LiteRT (Flex), or an
            input that is not uint8 with scale 1 and zero point 0, or an output that is not uint8.
    """
    problems = list(_problems(content))
    if problems:
        raise ExportError(f"the .tflite is not full integer: {'; '.join(problems)}")


def _problems(content: bytes) -> Iterator[str]:
    from tensorflow.lite.python import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    types = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    if custom := sorted({code.customCode.decode() for code in model.operatorCodes if code.customCode}):
        yield f"operators that LiteRT does not have: {', '.join(custom)}"
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    other = [tensor for tensor in tensors if types[tensor.type] not in _INTEGERS]
    if other:
        first = f"{other[0].name.decode()} ({types[other[0].type]})"
        yield f"{len(other)} of {len(tensors)} tensors are not integer, the first {first}"
    main = model.subgraphs[0]
    for end, indices in (("input", main.inputs), ("output", main.outputs)):
        for tensor in (main.tensors[index] for index in indices):
            if types[tensor.type] != "UINT8":
                yield f"{end} is {types[tensor.type]}, expected UINT8"
            elif end == "input" and (scaling := _scaling(tensor)) != (1.0, 0):
                yield f"input has (scale, zero point) {scaling}, expected (1.0, 0): calibrate on photos with 0 and 255"


def _scaling(tensor: Any) -> tuple[float, int] | None:
    """(scale, zero point), or None for a tensor that is not quantised as a whole."""
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) != 1:
        return None
    return float(quantization.scale[0]), int(quantization.zeroPoint[0])

"""The trained model, loaded for export: verified, on the CPU, float32, and as its spec says."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from unet_export.errors import ExportError
from unet_runtime.artifact import Artifact
from unet_runtime.spec import ModelSpec

_BACKEND = "tensorflow"
_PRECISION = "float32"
_SUM_TOLERANCE = 1e-3
"""Of a softmax's sum: hundreds of float32's roundings, and far less than any sigmoid's."""


def load(artifact: Artifact) -> Any:
    """Load a ``.keras`` file that ``read_artifact`` has found undamaged.

    Code inside the file is not run: Keras' safe mode refuses it.

    Returns:
        The ``keras.Model``: uint8 (n, h, w, 3) -> float32 probabilities (n, h', w', classes).

    Raises:
        ExportError: Keras runs on another backend than TensorFlow or refuses the file, or the
            model is not what its spec says.
        OSError: no space to unpack the weights.
    """
    keras = import_keras()
    _avoid_tf32()
    try:
        model = keras.models.load_model(artifact.path, compile=False, safe_mode=True)
    except OSError:  # Keras unpacks the weights: a full disk is no fault of the file
        raise
    except Exception as error:  # Keras raises whatever a layer's constructor raises
        reason = " ".join(str(error).split())[:300]
        raise ExportError(
            f"{artifact.path}: Keras {keras.__version__} refuses it ({reason}): train it again"
        ) from error
    _check_model(model, artifact)
    _check_activation(model, artifact)
    return model


def import_keras() -> Any:
    """The ``keras`` module, on TensorFlow: the converters read TensorFlow graphs only.

    Raises:
        ExportError: Keras is set to, or already runs on, another backend.
    """
    backend = os.environ.setdefault("KERAS_BACKEND", _BACKEND)
    if backend == _BACKEND:  # the import itself fails where another backend is set and not installed
        import keras

        backend = keras.backend.backend()
        if backend == _BACKEND:
            return keras
    raise ExportError(
        f"Keras runs on {backend}, expected {_BACKEND}, which alone can be exported: set "
        f"KERAS_BACKEND={_BACKEND} (a .keras file trained on another backend loads there as well)"
    )


def _avoid_tf32() -> None:
    """Compute the reference on the CPU, or at least without the TF32 of GPUs, which fails the gate by itself."""
    import tensorflow as tf

    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:  # this process uses one already: let it compute in full float32 at least
        tf.config.experimental.enable_tensor_float_32_execution(False)


def _check_model(model: Any, artifact: Artifact) -> None:
    spec = artifact.spec
    other = sorted({layer.compute_dtype for layer in model.layers} - {_PRECISION})
    if spec.precision != _PRECISION or other:
        raise ExportError(
            f"{artifact.path}: precision {spec.precision} with layers in {', '.join(other) or _PRECISION}, expected "
            f"{_PRECISION} throughout: copy the weights into a {_PRECISION} build of the model"
        )
    expected = _signature(spec)
    actual = (_of_tensors(model.inputs), _of_tensors(model.outputs))
    if actual != expected:
        raise ExportError(
            f"{artifact.path}: the model maps {actual[0]} to {actual[1]}, its spec says {expected[0]} to "
            f"{expected[1]}: train it again"
        )


def _check_activation(model: Any, artifact: Artifact) -> None:
    """Asked of an answer, not of a layer: the last one need not be the activation.

    The other way round nothing is lost: what sums to 1 is its own share of the sum.
    """
    if artifact.spec.output.activation != "softmax":
        return
    source = artifact.spec.input
    answer = model(np.zeros((1, source.height, source.width, 3), np.uint8), training=False).numpy()
    sums = answer.sum(axis=-1)  # (1, h', w')
    if np.abs(sums - 1).max() > _SUM_TOLERANCE:  # NaN is left to the gate, which names every candidate that has it
        raise ExportError(
            f"{artifact.path}: its classes' probabilities sum to {sums.min():.3f}..{sums.max():.3f} on a black photo, "
            "its spec says softmax, whose sum is 1: train it again"
        )


def _of_tensors(tensors: list[Any]) -> str:
    return ", ".join(f"{tensor.dtype}{tuple(tensor.shape)}" for tensor in tensors)


def _signature(spec: ModelSpec) -> tuple[str, str]:
    """What the spec says of input and output, in the words of ``_of_tensors``."""
    source, result = spec.input, spec.output
    return (
        f"uint8{(None, source.height, source.width, 3)}",
        f"float32{(None, result.height, result.width, len(spec.classes))}",
    )

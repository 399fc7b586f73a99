"""The trained model, loaded for export: verified, on the CPU, float32, and as its spec says."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unet_export.errors import ExportError
from unet_runtime.core.artifact import Artifact
from unet_runtime.core.spec import ModelSpec

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
    model = load_bare(artifact.path)
    _check_model(model, artifact)
    check_activation(model, artifact.spec, artifact.path)
    return model


def load_bare(path: Path) -> Any:
    """Whatever ``keras.Model`` a ``.keras`` file holds, in float32 and without its code.

    Raises:
        ExportError: it holds code, Keras refuses it, or it computes in another precision.
        OSError: no space to unpack the weights.
    """
    keras = import_keras()
    _avoid_tf32()
    if code := sorted(_layers_of_code(path)):
        raise ExportError(
            f"{path}: {', '.join(code)}: such a layer is code in the file, which is never run: build the model of "
            "Keras' own layers"
        )
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except OSError:  # Keras unpacks the weights: a full disk is no fault of the file
        raise
    except Exception as error:  # Keras raises whatever a layer's constructor raises
        reason = " ".join(str(error).split())[:300]
        raise ExportError(f"{path}: Keras {keras.__version__} refuses it ({reason}): train it again") from error
    other = sorted({layer.compute_dtype for layer in model.layers} - {_PRECISION})
    if other:
        raise ExportError(
            f"{path}: layers in {', '.join(other)}, expected {_PRECISION} throughout: copy the weights into a "
            f"{_PRECISION} build of the model"
        )
    return model


def _layers_of_code(path: Path) -> Iterator[str]:
    """Names of the layers that are Python code rather than a description, at any depth."""
    try:
        with zipfile.ZipFile(path) as archive:
            waiting = [json.loads(archive.read("config.json"))]
    except (KeyError, ValueError, zipfile.BadZipFile):
        return  # Keras says what is wrong with such a file
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, dict):
            if entry.get("class_name") in ("Lambda", "__lambda__"):
                named = entry["config"] if isinstance(entry.get("config"), dict) else {}
                yield f"{entry['class_name']} {named.get('name', '')}".strip()
            else:
                waiting.extend(entry.values())
        elif isinstance(entry, list):
            waiting.extend(entry)


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
    if spec.precision != _PRECISION:
        raise ExportError(
            f"{artifact.path}: its spec says precision {spec.precision}, expected {_PRECISION}: train it again"
        )
    expected = _signature(spec)
    actual = (_of_tensors(model.inputs), _of_tensors(model.outputs))
    if actual != expected:
        raise ExportError(
            f"{artifact.path}: the model maps {actual[0]} to {actual[1]}, its spec says {expected[0]} to "
            f"{expected[1]}: train it again"
        )


def check_activation(model: Any, spec: ModelSpec, path: Path) -> None:
    """Refuse a softmax that is none. Asked of an answer, not of a layer: the last one need not be the activation.

    The other way round nothing is lost: what sums to 1 is its own share of the sum.

    Raises:
        ExportError: the classes of a pixel do not sum to 1.
    """
    if spec.output.activation != "softmax":
        return
    source = spec.input
    answer = model(np.zeros((1, source.height, source.width, 3), np.uint8), training=False).numpy()
    sums = answer.sum(axis=-1)  # (1, h', w')
    if np.abs(sums - 1).max() > _SUM_TOLERANCE:  # NaN is left to the gate, which names every candidate that has it
        raise ExportError(
            f"{path}: its classes' probabilities sum to {sums.min():.3f}..{sums.max():.3f} on a black photo, expected "
            "the 1 of a softmax: train it again, or say what else its last layer is"
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

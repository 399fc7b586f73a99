"""The trained Keras model, loaded for export: verified, on the CPU, in float32, and as its spec says.

A ``.keras`` file of unet-train carries its spec; any other segmentation model is brought under one by ``foreign``.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unet_export.errors import ExportError
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets import check_split
from unet_runtime.core.errors import SourceError
from unet_runtime.core.spec import ModelSpec
from unet_runtime.core.text import one_line

INPUT_NAME = "image"
OUTPUT_NAME = "probabilities"
"""Names of input and output in every exported file."""

ADOPTED = "adopted_from"
"""Key, in the recipe of a model's provenance, of the tool that made a file which unet-export adopted."""

_BACKEND = "tensorflow"
_PRECISION = "float32"
_SUM_TOLERANCE = 1e-3
"""Largest deviation of a softmax's sum from 1: hundreds of roundings of float32, and far less than any sigmoid's."""


_OTHER_CONTENT = {
    b"version https://git-lfs": "a pointer of Git LFS in place of the model: fetch it with git lfs pull",
    b"<!doctype html": "a web page in place of the model: download it again, signed in where the page asks for it",
    b"<html": "a web page in place of the model: download it again, signed in where the page asks for it",
}
"""How files begin that downloads leave in place of a model -> what they are."""


def refuse_other_content(path: Path) -> None:
    """Raise ExportError for what a download left in place of a model."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    for beginning, what in _OTHER_CONTENT.items():
        if start.startswith(beginning):
            raise ExportError(f"{path}: {what}")


def load_own(path: Path) -> tuple[Any, ModelSpec]:
    """Load a ``.keras`` file with a spec inside. Code inside it is not run.

    Returns:
        The ``keras.Model``, uint8 (n, h, w, 3) -> float32 probabilities (n, h', w', classes), and its spec.

    Raises:
        ModelFileError: no such file, or a damaged one.
        ExportError: Keras runs on another backend than TensorFlow or refuses the file, or the model is not what its
            spec says.
        OSError: no space to unpack the weights.
    """
    if path.suffix != ".keras" and path.exists():
        raise ExportError(
            f"{path}: suffix {path.suffix!r}, expected a .keras file of unet-train; for any other Keras model (.keras, "
            ".h5, a SavedModel's folder) name its --classes"
        )
    spec = read_artifact(path).spec
    model = load_keras(path)
    _check_against_spec(model, spec, path)
    check_softmax(model, spec, path)
    check_names(spec, path)
    return model, spec


def check_names(spec: ModelSpec, path: Path) -> None:
    """Raise ExportError for a name that cannot be a file's, or a split that does not exist."""
    if Path(spec.name).name != spec.name:
        raise ExportError(f"{path}: the model's name is {spec.name!r}, expected one without folders")
    if spec.provenance.split:
        try:
            check_split(spec.provenance.split)
        except SourceError as error:
            raise ExportError(f"{path}: its spec names {error}: train it again") from error


def load_keras(path: Path) -> Any:
    """The ``keras.Model`` of a ``.keras`` file as it is, in float32 and without the code that the file may hold.

    Raises:
        ExportError: it holds code, Keras refuses it, or it computes in another precision.
        OSError: no space to unpack the weights.
    """
    keras = import_keras()
    avoid_tf32()
    if code := sorted(layers_of_code(_configuration(path))):
        raise ExportError(
            f"{path}: {', '.join(code)}: such a layer is code in the file, which is never run: build the model of "
            "Keras' own layers"
        )
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises whatever a layer's constructor raises
        if isinstance(error, OSError) and error.errno is not None:  # it unpacks the weights, and the disk is full
            raise
        message = f"{path}: Keras {keras.__version__} refuses it ({one_line(error)}): train it again"
        raise ExportError(message) from error
    other = sorted({layer.compute_dtype for layer in model.layers} - {_PRECISION})
    if other:
        raise ExportError(
            f"{path}: layers in {', '.join(other)}, expected {_PRECISION} throughout: copy the weights into a "
            f"{_PRECISION} build of the model"
        )
    return model


def import_keras() -> Any:
    """The ``keras`` module, on TensorFlow: the converters read no other graphs. Raises ExportError elsewhere."""
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


def copy_with_input(model: Any, shape: tuple[int | None, ...], dtype: str) -> Any:
    """The same network and weights behind another input, (h, w, 3) without the batch; ``None``: any height or width."""
    keras = import_keras()
    image = keras.Input(shape, dtype=dtype, name=INPUT_NAME)
    try:
        copy = keras.models.clone_model(model, input_tensors=image)
    except (TypeError, ValueError, NotImplementedError):  # a layer of others' code without a get_config: call it itself
        return keras.Model(image, model._run_through_graph([image]), name=model.name)
    copy.set_weights(model.get_weights())
    return copy


def _configuration(path: Path) -> Any:
    """The description of a file's layers; None where there is none: Keras says what is wrong with such a file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.read("config.json"))
    except (KeyError, ValueError, zipfile.BadZipFile):
        return None


def layers_of_code(configuration: Any) -> Iterator[str]:
    """Names of the layers that are Python code rather than a description, at any depth of a model's description."""
    waiting = [configuration]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, dict):
            if entry.get("class_name") in ("Lambda", "__lambda__"):
                config = entry["config"] if isinstance(entry.get("config"), dict) else {}
                yield f"{entry['class_name']} {config.get('name', '')}".strip()
            else:
                waiting.extend(entry.values())
        elif isinstance(entry, list):
            waiting.extend(entry)


def avoid_tf32() -> None:
    """Compute the reference on the CPU, or at least without the TF32 of GPUs, which fails the gate by itself."""
    import tensorflow as tf

    try:
        tf.config.set_visible_devices([], "GPU")
    except RuntimeError:  # this process uses one already: let it compute in full float32 at least
        tf.config.experimental.enable_tensor_float_32_execution(False)


def _check_against_spec(model: Any, spec: ModelSpec, path: Path) -> None:
    if spec.precision != _PRECISION:
        raise ExportError(f"{path}: its spec says precision {spec.precision}, expected {_PRECISION}: train it again")
    source, result = spec.input, spec.output
    expected = (
        f"uint8{(None, source.height, source.width, 3)}",
        f"float32{(None, result.height, result.width, len(spec.classes))}",
    )
    actual = (_signature(model.inputs), _signature(model.outputs))
    if actual != expected:
        raise ExportError(
            f"{path}: the model maps {actual[0]} to {actual[1]}, its spec says {expected[0]} to {expected[1]}: "
            "train it again"
        )


def _signature(tensors: list[Any]) -> str:
    """``uint8(None, 160, 160, 3)``; several are separated by commas."""
    return ", ".join(f"{tensor.dtype}{tuple(tensor.shape)}" for tensor in tensors)


def check_softmax(model: Any, spec: ModelSpec, path: Path) -> None:
    """Refuse a softmax that is none, by its prediction: the last layer need not be the activation.

    A softmax that says sigmoid does no harm: a probability divided by a sum of 1 stays the same.
    """
    if spec.output.activation != "softmax":
        return
    black = np.zeros((1, spec.input.height, spec.input.width, 3), np.uint8)
    sums = model(black, training=False).numpy().sum(axis=-1)  # (1, h', w')
    if np.abs(sums - 1).max() > _SUM_TOLERANCE:  # NaN is left to the gate, which names every candidate that has it
        raise ExportError(
            f"{path}: its classes' probabilities sum to {sums.min():.3f}..{sums.max():.3f} on a black photo, expected "
            "the 1 of a softmax: train it again, or say what else its last layer is"
        )

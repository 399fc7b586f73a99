"""The trained Keras model, loaded for export: verified, on the CPU, in float32, and as its spec says.

A ``.keras`` file of unet-train carries its spec. For any other segmentation model the user gives a ``Description``.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from unet_export.errors import ExportError
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets import check_split
from unet_runtime.core.datasets import classes as class_lists
from unet_runtime.core.digest import weights_sha256
from unet_runtime.core.errors import SourceError
from unet_runtime.core.spec import ClassSpec, Fit, InputSpec, ModelSpec, OutputSpec, Provenance
from unet_runtime.core.text import one_line

INPUT_NAME = "image"
OUTPUT_NAME = "probabilities"
"""Names of input and output in every exported file."""

ADOPTED = "adopted_from"
"""Key, in the recipe of a model's provenance, of the tool that made a file which unet-export adopted."""

Pixels = Literal["0..255", "0..1", "-1..1"]
PIXELS: dict[Pixels, tuple[float, float]] = {"0..255": (1.0, 0.0), "0..1": (1 / 255, 0.0), "-1..1": (2 / 255, -1.0)}
"""Value range that a model expects of a pixel -> scale and offset that map 0..255 to it."""

Head = Literal["softmax", "sigmoid", "logits"]
HEADS: tuple[Head, ...] = ("softmax", "sigmoid", "logits")
"""Output of a model's last layer; logits get a softmax."""

_BACKEND = "tensorflow"
_PRECISION = "float32"
_SUM_TOLERANCE = 1e-3
"""Largest deviation of a softmax's sum from 1: hundreds of roundings of float32, and far less than any sigmoid's."""


@dataclass(frozen=True)
class Description:
    """What a ``.keras`` file without a spec leaves open."""

    classes: tuple[ClassSpec, ...]
    size: tuple[int, int] | None = None
    """Height and width of the input, pixels; None: the model's own."""
    pixels: Pixels = "0..255"
    head: Head = "softmax"
    fit: Fit = "stretch"
    """How photos are brought to the input's size, as ``InputSpec.fit``."""
    split: str = ""
    """Split of the dataset that the model was trained on, where it was trained on one."""


def parse_classes(text: str) -> tuple[ClassSpec, ...]:
    """``pet:foreground,background,border:neutral`` -> classes by id, each with a colour of its own.

    Raises:
        ExportError: fewer than two names, a name twice, or an unknown role.
    """
    try:
        return class_lists.parse_classes(text).classes
    except SourceError as error:
        raise ExportError(str(error)) from error


def load_model(path: Path, description: Description | None = None) -> tuple[Any, ModelSpec]:
    """Load a ``.keras`` file with a spec inside, or one that ``description`` describes. Code inside it is not run.

    Returns:
        The ``keras.Model``, uint8 (n, h, w, 3) -> float32 probabilities (n, h', w', classes), and its spec.

    Raises:
        ModelFileError: no such file, or a damaged one.
        ExportError: Keras runs on another backend than TensorFlow or refuses the file, or the model is not what its
            spec or ``description`` says.
        OSError: no space to unpack the weights.
    """
    if path.suffix != ".keras" and path.exists():
        raise ExportError(f"{path}: suffix {path.suffix}, expected a .keras file")
    if description is not None and path.exists():
        model, spec = _adapted(load_keras(path), path, description)
    else:
        spec = read_artifact(path).spec
        model = load_keras(path)
        _check_against_spec(model, spec, path)
    _check_softmax(model, spec, path)
    if Path(spec.name).name != spec.name:  # it becomes the name of a file
        raise ExportError(f"{path}: the model's name is {spec.name!r}, expected one without folders")
    if spec.provenance.split:
        try:
            check_split(spec.provenance.split)
        except SourceError as error:
            raise ExportError(f"{path}: its spec names {error}: train it again") from error
    return model, spec


def load_keras(path: Path) -> Any:
    """The ``keras.Model`` of a ``.keras`` file as it is, in float32 and without the code that the file may hold.

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
    copy = keras.models.clone_model(model, input_tensors=image)
    copy.set_weights(model.get_weights())
    return copy


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
                config = entry["config"] if isinstance(entry.get("config"), dict) else {}
                yield f"{entry['class_name']} {config.get('name', '')}".strip()
            else:
                waiting.extend(entry.values())
        elif isinstance(entry, list):
            waiting.extend(entry)


def _avoid_tf32() -> None:
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


def _check_softmax(model: Any, spec: ModelSpec, path: Path) -> None:
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


# --- models without a spec -------------------------------------------------------------------------


def _adapted(model: Any, path: Path, description: Description) -> tuple[Any, ModelSpec]:
    """Model and spec under the contract: uint8 photos in, probabilities of the same size out."""
    if not _is_image_to_map(model):
        raise ExportError(
            f"{path}: maps {_signature(model.inputs)} to {_signature(model.outputs)}, expected one picture "
            "(n, h, w, 3) to one map (n, h, w, classes): a segmentation model with channels last"
        )
    height, width = _size(model, path, description)
    try:
        adapted = _with_preprocessing(model, (height, width), description)
    except Exception as error:  # Keras raises whatever a layer raises
        raise ExportError(
            f"{path}: cannot take photos of {height}x{width} ({one_line(error)}): name a --size that it can halve as "
            "often as it does, such as multiples of 16 or 32"
        ) from error
    _, *result, channels = adapted.outputs[0].shape
    if channels != len(description.classes):
        raise ExportError(
            f"{path}: gives {channels} channels, {len(description.classes)} classes were named "
            f"({', '.join(entry.name for entry in description.classes)}): name each, in the order of the channels"
        )
    if tuple(result) != (height, width):
        # Unpadded convolutions and a coarser grid look alike from here, and one of them is a mask in the wrong place.
        raise ExportError(
            f"{path}: gives {result[0]}x{result[1]} for {height}x{width}, expected a class for each pixel: name a "
            "--size that it can halve as often as it does, put an upsampling behind it, or train it with unet-train, "
            "which records a margin"
        )
    digest = weights_sha256((variable.path, variable.numpy()) for variable in model.weights)
    spec = ModelSpec(
        name=path.stem,
        architecture="unknown",
        license="unknown",
        input=InputSpec(height, width, description.fit),
        output=OutputSpec(height, width, activation="sigmoid" if description.head == "sigmoid" else "softmax"),
        classes=description.classes,
        provenance=Provenance(split=description.split, weights_sha256=digest),
    )
    return adapted, spec


def _is_image_to_map(model: Any) -> bool:
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        return False
    source, result = model.inputs[0].shape, model.outputs[0].shape
    return len(source) == len(result) == 4 and source[-1] == 3


def _size(model: Any, path: Path, description: Description) -> tuple[int, int]:
    own = tuple(model.inputs[0].shape[1:3])
    height, width = description.size or own
    if height is None or width is None:
        raise ExportError(f"{path}: takes photos of any size: name the one to export with --size, as 160 or 160x224")
    if own[0] not in (None, height) or own[1] not in (None, width):
        raise ExportError(f"{path}: takes photos of {own[0]}x{own[1]}, --size says {height}x{width}: leave it out")
    return int(height), int(width)


def _with_preprocessing(model: Any, size: tuple[int, int], description: Description) -> Any:
    """The model behind its own preprocessing, so that no device normalises; itself where it needs none."""
    keras = import_keras()
    source = model.inputs[0]
    scale, offset = PIXELS[description.pixels]
    takes_bytes = source.dtype == "uint8" and description.pixels == "0..255"
    if takes_bytes and source.shape[1:3] == size and description.head != "logits":
        return model
    image = keras.Input((*size, 3), dtype="uint8", name=INPUT_NAME)
    x = image if takes_bytes else keras.layers.Rescaling(scale, offset, name="rescale")(image)
    x = model(x)
    if description.head == "logits":
        x = keras.layers.Activation("softmax", name=OUTPUT_NAME)(x)
    return keras.Model(image, x, name=model.name)

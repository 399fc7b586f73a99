"""A Keras segmentation model that unet-train did not make: the user says what its file does not."""

from __future__ import annotations

import colorsys
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_export.errors import ExportError
from unet_export.formats.saved_model import INPUT_NAME, OUTPUT_NAME
from unet_export.keras_model import check_activation, import_keras, load_bare
from unet_runtime.core.spec import ROLES, Activation, ClassSpec, Fit, InputSpec, ModelSpec, OutputSpec, Provenance, Role

PIXELS = {"0..255": (1.0, 0.0), "0..1": (1 / 255, 0.0), "-1..1": (2 / 255, -1.0)}
"""What the model expects of a pixel -> scale and offset that bring 0..255 there."""

HEADS = ("softmax", "sigmoid", "logits")
"""What its last layer gives; logits get a softmax."""


@dataclass(frozen=True)
class Description:
    """What a bare ``.keras`` file does not say of itself."""

    classes: tuple[ClassSpec, ...]
    size: tuple[int, int] | None = None
    """Height and width of its input, pixels; None: as the model itself says."""
    pixels: str = "0..255"
    """Of ``PIXELS``."""
    head: str = "softmax"
    """Of ``HEADS``."""
    fit: Fit = "stretch"
    """As ``InputSpec.fit``."""
    split: str = ""
    """Of the dataset it was trained on, where it was trained on one."""


def parse_classes(text: str) -> tuple[ClassSpec, ...]:
    """``pet:foreground,background,border:neutral`` -> classes by id, in colours of their own.

    Without a role, ``background`` is one and every other name is foreground.

    Raises:
        ExportError: fewer than two names, one twice, or an unknown role.
    """
    parts = [part.strip().partition(":") for part in text.split(",")]
    names = [name for name, _, _ in parts]
    roles = [role or ("background" if name == "background" else "foreground") for name, _, role in parts]
    known: dict[str, Role] = {role: role for role in ROLES}
    if len(names) < 2 or len({*names}) < len(names) or not all(names) or {*roles} - {*known}:
        raise ExportError(
            f"classes {text!r}: expected two or more different names by class id, each with an optional role of "
            f"{', '.join(ROLES)}: pet:foreground,background,border:neutral"
        )
    return tuple(
        ClassSpec(name, _color(index, len(names)), known[role])
        for index, (name, role) in enumerate(zip(names, roles, strict=True))
    )


def _color(index: int, count: int) -> tuple[int, int, int]:
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(index / count, 0.75, 0.9))
    return red, green, blue


def load_foreign(path: Path, description: Description) -> tuple[Any, ModelSpec]:
    """(model, spec) under the contract: uint8 (n, h, w, 3) -> float32 probabilities (n, h', w', classes).

    Code inside the file is not run.

    Raises:
        ExportError: no Keras model, one that holds code, or one that is not as described.
        OSError: no space to unpack the weights.
    """
    model = load_bare(path)
    _check_ends(model, path)
    height, width = _size(model, path, description)
    try:
        wrapped = _under_contract(model, (height, width), description)
    except Exception as error:  # Keras raises whatever a layer raises
        reason = " ".join(str(error).split())[:300]
        raise ExportError(
            f"{path}: cannot take photos of {height}x{width} ({reason}): name a --size that it can halve as often as "
            "it does, such as multiples of 16 or 32"
        ) from error
    _, *result, channels = wrapped.outputs[0].shape
    if channels != len(description.classes):
        raise ExportError(
            f"{path}: answers with {channels} channels, {len(description.classes)} classes were named "
            f"({', '.join(entry.name for entry in description.classes)}): name each, in the order of the channels"
        )
    if tuple(result) != (height, width):
        # Unpadded convolutions and a coarser grid look alike from here, and one of them is a mask in the wrong place.
        raise ExportError(
            f"{path}: answers {result[0]}x{result[1]} for {height}x{width}, expected a class for each pixel: name a "
            "--size that it can halve as often as it does, put an upsampling behind it, or train it with unet-train, "
            "which records a margin"
        )
    activation: Activation = "sigmoid" if description.head == "sigmoid" else "softmax"
    spec = ModelSpec(
        name=path.stem,
        architecture="unknown",
        license="unknown",
        input=InputSpec(height, width, description.fit),
        output=OutputSpec(height, width, activation=activation),
        classes=description.classes,
        provenance=Provenance(split=description.split, weights_sha256=_weights_sha256(model)),
    )
    check_activation(wrapped, spec, path)
    return wrapped, spec


def _check_ends(model: Any, path: Path) -> None:
    """One picture in, one map out."""
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    if len(shapes) != 2 or any(len(shape) != 4 for shape in shapes) or shapes[0][-1] != 3:
        raise ExportError(
            f"{path}: maps {', '.join(map(str, shapes[: len(model.inputs)]))} to "
            f"{', '.join(map(str, shapes[len(model.inputs) :]))}, expected one picture (n, h, w, 3) to one map "
            "(n, h, w, classes): a segmentation model with channels last"
        )


def _size(model: Any, path: Path, description: Description) -> tuple[int, int]:
    own = tuple(model.inputs[0].shape[1:3])
    size = description.size or own
    if None in size:
        raise ExportError(f"{path}: takes photos of any size: name the one to export with --size, as 160 or 160x224")
    if any(side not in (None, wanted) for side, wanted in zip(own, size, strict=True)):
        raise ExportError(f"{path}: takes photos of {own[0]}x{own[1]}, --size says {size[0]}x{size[1]}: leave it out")
    return int(size[0]), int(size[1])


def _under_contract(model: Any, size: tuple[int, int], description: Description) -> Any:
    """The model behind its own preprocessing, so that no device normalises; itself where it is so already."""
    keras = import_keras()
    scale, offset = PIXELS[description.pixels]
    same = (model.inputs[0].dtype, (scale, offset), model.inputs[0].shape[1:3], description.head)
    if same[:3] == ("uint8", (1.0, 0.0), size) and description.head != "logits":
        return model
    image = keras.Input((*size, 3), dtype="uint8", name=INPUT_NAME)
    x = image
    if model.inputs[0].dtype != "uint8" or (scale, offset) != (1.0, 0.0):
        x = keras.layers.Rescaling(scale, offset, name="rescale")(x)
    x = model(x)
    if description.head == "logits":
        x = keras.layers.Activation("softmax", name=OUTPUT_NAME)(x)
    return keras.Model(image, x, name=model.name)


def _weights_sha256(model: Any) -> str:
    digest = hashlib.sha256()
    for array in model.get_weights():
        digest.update(array.tobytes())
    return digest.hexdigest()

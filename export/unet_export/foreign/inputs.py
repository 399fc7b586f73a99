"""What a foreign model expects of a pixel, put into its graph: the file then takes the photo's own bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from unet_export.source_model import import_keras

Pixels = Literal["0..255", "0..1", "-1..1"]
PIXELS: dict[Pixels, tuple[float, float]] = {"0..255": (1.0, 0.0), "0..1": (1 / 255, 0.0), "-1..1": (2 / 255, -1.0)}
"""Value range that a model expects of a pixel -> scale and offset that map 0..255 to it."""

Channels = Literal["rgb", "bgr", "grey", "rgba"]
CHANNELS: dict[Channels, npt.NDArray[np.float64]] = {
    "rgb": np.eye(3),
    "bgr": np.eye(3)[:, ::-1],
    "grey": np.array([[0.299], [0.587], [0.114]]),
    "rgba": np.eye(3, 4),
}
"""Channels that a model takes -> matrix that makes them of RGB; the fourth of ``rgba`` is opacity, 255 in a photo."""

_OPAQUE = 255.0

_IMAGENET_MEAN = np.array([0.485, 0.456, 0.406]) * 255
_IMAGENET_STD = np.array([0.229, 0.224, 0.225]) * 255
_CAFFE_MEAN = np.array([123.68, 116.779, 103.939])

_IDENTITY, _TF, _IMAGENET, _CAFFE = "none", "tf", "imagenet", "caffe"

_FAMILIES: dict[str, tuple[str, ...]] = {
    _IDENTITY: ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "seresnet18", "seresnet34"),
    _IMAGENET: (
        *("seresnet50", "seresnet101", "seresnet152", "seresnext50", "seresnext101", "senet154"),
        *("densenet121", "densenet169", "densenet201"),
        *(f"efficientnetb{size}" for size in range(8)),
    ),
    _CAFFE: ("vgg16", "vgg19"),
    _TF: ("inceptionv3", "inceptionresnetv2", "mobilenet", "mobilenetv2", "xception", "resnet50v2", "nasnetmobile"),
}
"""Preprocessing of the backbones of the package segmentation_models, by what it is."""

PREPROCESSING: Mapping[str, str] = {
    **dict.fromkeys(_FAMILIES[_IDENTITY], _IDENTITY),
    **dict.fromkeys((*_FAMILIES[_IMAGENET], _IMAGENET, "torch"), _IMAGENET),
    **dict.fromkeys((*_FAMILIES[_CAFFE], _CAFFE), _CAFFE),
    **dict.fromkeys((*_FAMILIES[_TF], _TF), _TF),
    **dict.fromkeys(("resnext50", "resnext101"), _IDENTITY),
}
"""Name that ``--preprocess`` takes -> kind of preprocessing."""


def preprocess(image: Any, pixels: Pixels, channels: Channels, preprocessing: str) -> Any:
    """What the model takes, float32 (n, h, w, channels), of a photo: uint8 (n, h, w, 3), RGB.

    Colours that are mixed, reordered or scaled one by one are a 1x1 convolution, which every converter and engine has,
    in int8 too; one scale for all is Keras' Rescaling.
    """
    keras = import_keras()
    matrix, scale, offset = CHANNELS[channels], *_scaling(pixels, preprocessing)
    if PREPROCESSING.get(preprocessing) == _CAFFE:
        matrix = matrix[:, ::-1] if channels == "rgb" else matrix
    if channels == "rgb" and np.ndim(scale) == 0 and matrix is CHANNELS["rgb"]:
        return keras.layers.Rescaling(scale, float(offset), name="rescale")(image)
    scales, offsets = (np.broadcast_to(values, 3) for values in (scale, offset))  # of R, G, B
    kernel = scales[:, np.newaxis] * matrix  # (3, channels)
    bias = offsets @ matrix
    if channels == "rgba":
        factor, constant = PIXELS[pixels]
        bias = bias + np.array([0, 0, 0, _OPAQUE * factor + constant])
    layer = keras.layers.Conv2D(kernel.shape[1], 1, name="preprocess")
    result = layer(keras.layers.Rescaling(1.0, name="pixels")(image))
    layer.set_weights([kernel[np.newaxis, np.newaxis].astype(np.float32), bias.astype(np.float32)])
    return result


def _scaling(pixels: Pixels, preprocessing: str) -> tuple[Any, Any]:
    """(scale, offset) of a pixel in 0..255, of R, G and B or of all alike."""
    kind = PREPROCESSING.get(preprocessing, "")
    if kind == _IMAGENET:
        return 1 / _IMAGENET_STD, -_IMAGENET_MEAN / _IMAGENET_STD
    if kind == _CAFFE:
        return 1.0, -_CAFFE_MEAN
    if kind == _TF:
        return PIXELS["-1..1"]
    return PIXELS[pixels]

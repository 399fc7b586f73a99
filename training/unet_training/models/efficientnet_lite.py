"""EfficientNet-Lite: the encoder of ``lite``, and the whole classifier whose weights are published.

M. Tan, Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019, in the "Lite"
form of tensorflow/tpu (models/official/efficientnet/lite), made for integers: ReLU6 in place of swish, and no
squeeze-and-excitation. "same" padding is TensorFlow's, no convolution has a bias, BatchNormalization's epsilon is 1e-3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
from keras import layers

from unet_training.models import ENCODER_PREFIX
from unet_training.models.blocks import Tensor

SCALE, OFFSET = 1 / 128, -127 / 128
"""The published weights were trained on photos in 0..255 times ``SCALE`` plus ``OFFSET``."""

HEAD_FILTERS = 1280
IMAGENET_CLASSES = 1000

_STEM_FILTERS = 32
_EPSILON = 1e-3


@dataclass(frozen=True)
class Stage:
    """Blocks of one width, of which the first may halve height and width."""

    repeats: int
    kernel: int
    stride: int
    """Stride of the first block; the others have 1."""
    expand: int
    """Factor from the filters of a block's input to its inner filters."""
    filters: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
"""Stages of EfficientNet-Lite0; the stem before them halves the photo too."""

DEPTH = 5
"""How often the whole encoder halves the photo."""


@dataclass(frozen=True)
class Scaling:
    """Factors of a larger member of the family. Stem, head, and the repeats of the first and last stage stay."""

    width: float
    """Factor of the filters of each stage, rounded to the nearest multiple of 8."""
    depth: float
    """Factor of the repeats of each stage, rounded up."""


SCALINGS = {"lite": Scaling(1.0, 1.0), "lite1": Scaling(1.0, 1.1), "lite2": Scaling(1.1, 1.2)}
"""EfficientNet-Lite0, -Lite1 and -Lite2, each by the name of the architecture whose encoder it is."""


def scaled_stages(scaling: Scaling) -> list[Stage]:
    """Stages of one member of the family."""
    stages: list[Stage] = []
    for number, stage in enumerate(STAGES):
        first_or_last = number in (0, len(STAGES) - 1)
        repeats = stage.repeats if first_or_last else math.ceil(stage.repeats * scaling.depth)
        filters = _multiple_of_8(stage.filters * scaling.width)
        stages.append(Stage(repeats, stage.kernel, stage.stride, stage.expand, filters))
    return stages


def encoder(x: Tensor, scaling: Scaling, depth: int) -> list[Tensor]:
    """Features before each halving, and the last ones.

    Args:
        x: photos (n, h, w, 3), their values as ``SCALE`` and ``OFFSET`` make them.
        scaling: which member of the family.
        depth: how often to halve, 1 to ``DEPTH``; the stages below are left out.

    Returns:
        ``depth`` tensors (n, h / 2, w / 2, c) to (n, h / 2**depth, w / 2**depth, c).

    Raises:
        ValueError: the encoder has no such depth.
    """
    if not 1 <= depth <= DEPTH:
        raise ValueError(f"depth {depth}, expected 1 to {DEPTH} (EfficientNet-Lite halves the photo {DEPTH} times)")
    x = layers.Conv2D(_STEM_FILTERS, 3, 2, padding="same", use_bias=False, name=f"{ENCODER_PREFIX}stem")(x)
    x = _norm_relu6(x, f"{ENCODER_PREFIX}stem")
    features: list[Tensor] = []
    number = 0
    for stage in scaled_stages(scaling):
        if stage.stride == 2:
            features.append(x)
            if len(features) == depth:
                return features
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            x = _block(x, stage, stride, f"{ENCODER_PREFIX}block{number}")
            number += 1
    features.append(x)
    return features


def classifier(scaling: Scaling) -> keras.Model:
    """The whole network: uint8 photos (n, h, w, 3), RGB in 0..255, to logits of ImageNet's 1000 classes (n, 1000)."""
    image = keras.Input((None, None, 3), dtype="uint8", name="image")
    x = layers.Rescaling(SCALE, OFFSET, name="rescale")(image)
    x = encoder(x, scaling, DEPTH)[-1]  # (n, h / 32, w / 32, c)
    x = layers.Conv2D(HEAD_FILTERS, 1, use_bias=False, name="head")(x)
    x = _norm_relu6(x, "head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)  # (n, 1280)
    return keras.Model(image, layers.Dense(IMAGENET_CLASSES, name="classes")(x), name="classifier")


def _block(x: Tensor, stage: Stage, stride: int, name: str) -> Tensor:
    """MobileNetV2's block: 1x1 wider -> depthwise -> 1x1 narrower, plus its input where both have one shape."""
    given = x.shape[-1]
    inner = x
    if stage.expand > 1:
        inner = layers.Conv2D(given * stage.expand, 1, use_bias=False, name=f"{name}_expand")(inner)
        inner = _norm_relu6(inner, f"{name}_expand")
    depthwise = layers.DepthwiseConv2D(stage.kernel, stride, padding="same", use_bias=False, name=f"{name}_depthwise")
    inner = depthwise(inner)
    inner = _norm_relu6(inner, f"{name}_depthwise")
    inner = layers.Conv2D(stage.filters, 1, use_bias=False, name=f"{name}_project")(inner)
    inner = _norm(inner, f"{name}_project")
    if stride == 1 and given == stage.filters:
        inner = layers.Add(name=f"{name}_add")([inner, x])
    return inner


def _norm(x: Tensor, name: str) -> Tensor:
    return layers.BatchNormalization(epsilon=_EPSILON, name=f"{name}_norm")(x)


def _norm_relu6(x: Tensor, name: str) -> Tensor:
    return layers.ReLU(max_value=6.0, name=f"{name}_relu6")(_norm(x, name))


def _multiple_of_8(filters: float) -> int:
    """The nearest multiple of 8, but at least nine tenths of ``filters``."""
    rounded = max(8, int(filters + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters else rounded

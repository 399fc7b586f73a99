"""Parts that the networks of ``foreign_architectures.py`` and ``foreign_published.py`` share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

CLASSES = 3
"""Object, background, border."""


def convolution(x: Any, filters: int, size: int = 3, **settings: Any) -> Any:
    """Convolution, BatchNormalization and ReLU, the block that most networks are made of."""
    activation = settings.pop("activation", "relu")
    x = layers.Conv2D(filters, size, padding="same", use_bias=False, **settings)(x)
    x = layers.BatchNormalization()(x)
    return layers.Activation(activation)(x)


def encode(x: Any, filters: Sequence[int] = (8, 16, 24)) -> list[Any]:
    """Features at full size, at 1/2, 1/4, ..."""
    found = []
    for index, count in enumerate(filters):
        x = convolution(x, count, strides=2 if index else 1)
        x = convolution(x, count)
        found.append(x)
    return found


def decode(features: Sequence[Any], filters: int = 8, interpolation: str = "nearest") -> Any:
    x = features[-1]
    for skip in reversed(features[:-1]):
        x = layers.UpSampling2D(2, interpolation=interpolation)(x)
        x = convolution(layers.Concatenate()([x, skip]), filters)
    return x


def head(x: Any, classes: int = CLASSES, activation: str | None = "softmax") -> Any:
    return layers.Conv2D(classes, 1, activation=activation, name="head")(x)


def image_of(side: int | None, channels: int = 3, **settings: Any) -> Any:
    return keras.Input((side, side, channels), **settings)


def scale(x: Any, factor: int, interpolation: str = "bilinear") -> Any:
    return layers.UpSampling2D(factor, interpolation=interpolation)(x)


def attention(x: Any, heads: int = 2) -> Any:
    """A transformer block on (n, pixels, channels), with exact GELU."""
    y = layers.LayerNormalization(epsilon=1e-6)(x)
    x = layers.add([x, layers.MultiHeadAttention(heads, x.shape[-1] // heads)(y, y)])
    y = layers.Dense(2 * x.shape[-1], activation=None)(layers.LayerNormalization(epsilon=1e-6)(x))
    return layers.add([x, layers.Dense(x.shape[-1])(layers.Activation("gelu")(y))])

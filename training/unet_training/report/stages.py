"""A Keras model as a table: one row per stage, the layers that share a name up to its first underscore."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import keras


class Stage(NamedTuple):
    """Layers that work together, such as ``encoder1_conv_a`` and ``encoder1_norm_a``."""

    name: str
    layers: str
    """What it is made of: ``2 Conv2D 3x3, 2 BatchNormalization``."""
    output: str
    """Height, width and channels behind its last layer with weights: a pooling belongs to the next stage."""
    parameters: int


def stages(model: keras.Model) -> list[Stage]:
    """The stages of a model, in the order of its layers."""
    grouped: dict[str, list[keras.layers.Layer]] = {}
    for layer in model.layers:
        grouped.setdefault(layer.name.partition("_")[0], []).append(layer)
    return [_stage(name, layers) for name, layers in grouped.items()]


def _stage(name: str, layers: list[keras.layers.Layer]) -> Stage:
    last, parameters = layers[-1], 0
    for layer in layers:
        if layer.count_params():
            last = layer
            parameters += layer.count_params()
    words = []
    for kind, count in Counter(map(_kind, layers)).items():
        words.append(kind if count == 1 else f"{count} {kind}")
    return Stage(name, ", ".join(words), _product(last.output.shape[1:]), parameters)


def _kind(layer: keras.layers.Layer) -> str:
    """``Conv2D 3x3``, ``MaxPooling2D 2×2``, ``Concatenate``."""
    window: tuple[int, ...] = getattr(layer, "kernel_size", getattr(layer, "pool_size", ()))
    return f"{type(layer).__name__} {_product(window)}".rstrip()


def _product(sides: tuple[int, ...]) -> str:
    return "\N{MULTIPLICATION SIGN}".join(map(str, sides))

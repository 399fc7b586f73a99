"""A network in place of the U-Net, for tests of what happens around a training."""

from __future__ import annotations

import keras


def one_convolution(
    height: int | None,
    width: int | None,
    classes: int,
    *,
    filters: int,
    activation: str,
    norm_momentum: float,
    depth: int = 1,
) -> keras.Model:
    """The U-Net's boundary with next to nothing between: what takes time in a tiny training is the graph."""
    image = keras.Input((height, width, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255, name="rescale")(image)
    x = keras.layers.Conv2D(filters, 3, padding="same", name="conv")(x)
    x = keras.layers.BatchNormalization(momentum=norm_momentum, name="norm")(x)
    return keras.Model(image, keras.layers.Conv2D(classes, 1, activation=activation, name="head", dtype="float32")(x))

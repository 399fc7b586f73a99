"""This project's U-Net for small CPUs: most of the work at half the photo's resolution.

A U-Net spends half its time in the four convolutions at full resolution. Here a strided convolution halves the photo
first, and the logits are enlarged at the end: an outline moves by less than a pixel. The encoder has two convolutions
a stage, as the article's; the decoder, which only places what the encoder found, has one. docs/results.md has what
each choice costs.
"""

from __future__ import annotations

from functools import partial

import keras
from keras import layers

from unet_training.models.blocks import concatenate, conv, double_conv, finish, photo_input, up_transposed


def build(
    height: int | None, width: int | None, classes: int, *, filters: int = 20, depth: int = 4,
    activation: str = "softmax", norm_momentum: float = 0.99,
) -> keras.Model:  # fmt: skip
    """Build the network: see ``models.Build``."""
    image, x = photo_input(height, width, 2 ** (depth + 1))
    block = partial(double_conv, momentum=norm_momentum)
    x = conv(x, filters, "stem", norm_momentum, strides=2)
    skips = []
    for stage in range(depth):
        name = f"encoder{stage + 1}"
        x = block(x, filters * 2**stage, name) if stage else conv(x, filters, name, norm_momentum)
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    x = block(x, filters * 2 ** (depth - 1), "bridge")
    for stage in reversed(range(depth)):
        name = f"decoder{stage + 1}"
        x = concatenate(up_transposed(x, filters * 2**stage, name), skips[stage], name)
        x = conv(x, filters * 2**stage, name, norm_momentum)
    return finish(image, x, classes, activation, "edge-fast", enlarge=2)

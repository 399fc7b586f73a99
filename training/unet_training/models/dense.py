"""U-Net with dense blocks (FC-DenseNet).

S. Jegou, M. Drozdzal, D. Vazquez, A. Romero, Y. Bengio, "The One Hundred Layers Tiramisu: Fully Convolutional
DenseNets for Semantic Segmentation", CVPR Workshops 2017.

Each convolution of a block sees the results of all before it. ``filters`` are those of the first convolution, the
paper's 48; each further one makes a third as many, the paper's growth rate of 16. With a depth of 5 these are the 103
layers of the paper's largest network; a shallower one has the first stages of it.
"""

from __future__ import annotations

import keras
from keras import layers

from unet_training.models.blocks import concatenate, finish, norm_relu, photo_input

LAYERS = (4, 5, 7, 10, 12, 15)
"""Convolutions in the dense block of each stage, of both ways; the deepest stage is the bridge."""
DROPOUT = 0.2


def build(
    height: int | None,
    width: int | None,
    classes: int,
    *,
    filters: int = 48,
    depth: int = 5,
    activation: str = "softmax",
    norm_momentum: float = 0.99,
) -> keras.Model:
    """Build the network: see ``models.Build``.

    Raises:
        ValueError: also a depth for which the paper has no block.
    """
    if depth >= len(LAYERS):
        raise ValueError(f"depth {depth}, expected {len(LAYERS) - 1} or less")
    growth = max(1, filters // 3)
    image, x = photo_input(height, width, 2**depth)
    x = layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_uniform", name="stem_conv")(x)
    skips = []
    for stage in range(depth):
        name = f"encoder{stage + 1}"
        x = concatenate(*_dense(x, LAYERS[stage], growth, name, norm_momentum), f"{name}_all")
        skips.append(x)
        x = _layer(x, x.shape[-1], f"{name}_down", norm_momentum, kernel=1)
        x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    seen, x = _dense(x, LAYERS[depth], growth, "bridge", norm_momentum)
    for stage in reversed(range(depth)):
        name = f"decoder{stage + 1}"
        # Only what the last block made goes up: with all that it saw, channels would grow without bound.
        x = layers.Conv2DTranspose(
            x.shape[-1], 3, strides=2, padding="same", kernel_initializer="he_uniform", name=f"{name}_up"
        )(x)
        seen, x = _dense(concatenate(x, skips[stage], name), LAYERS[stage], growth, name, norm_momentum)
    return finish(image, concatenate(seen, x, "all"), classes, activation, "dense")


def _dense(
    x: keras.KerasTensor, count: int, growth: int, name: str, momentum: float
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """The block's input (n, h, w, c) and the features that it adds (n, h, w, count * growth)."""
    before = x
    made = []
    for index in range(count):
        new = _layer(x, growth, f"{name}_{index + 1}", momentum)
        made.append(new)
        if index < count - 1:
            x = concatenate(x, new, f"{name}_{index + 1}")
    together = layers.Concatenate(name=f"{name}_made")(made) if count > 1 else made[0]
    return before, together


def _layer(x: keras.KerasTensor, filters: int, name: str, momentum: float, kernel: int = 3) -> keras.KerasTensor:
    x = norm_relu(x, name, "", momentum)
    x = layers.Conv2D(filters, kernel, padding="same", kernel_initializer="he_uniform", name=f"{name}_conv")(x)
    return layers.Dropout(DROPOUT, name=f"{name}_dropout")(x)

"""U-Net with dense blocks (FC-DenseNet).

S. Jegou, M. Drozdzal, D. Vazquez, A. Romero, Y. Bengio, "The One Hundred Layers Tiramisu: Fully Convolutional
DenseNets for Semantic Segmentation", CVPR Workshops 2017.

Each convolution of a block sees the results of all before it. ``filters`` are those of the first convolution, the
paper's 48; each further one makes a third as many, the paper's growth rate of 16. With a depth of 5 these are the 103
layers of the paper's largest network; a shallower one has the first stages of it.
"""

from __future__ import annotations

from keras import layers

from unet_training.models.blocks import Tensor, architecture, concatenate, norm_relu

LAYERS = (4, 5, 7, 10, 12, 15)
"""Convolutions in the dense block of each stage, of both ways; the deepest stage is the bridge."""
DROPOUT = 0.2


@architecture("dense", filters=48, depth=5)
def build(x: Tensor, filters: int, depth: int) -> Tensor:
    """Features for the head: see ``blocks.architecture``.

    Raises:
        ValueError: also a depth for which the paper has no block.
    """
    if depth >= len(LAYERS):
        raise ValueError(f"depth {depth}, expected {len(LAYERS) - 1} or less")
    growth = max(1, filters // 3)
    x = layers.Conv2D(filters, 3, padding="same", kernel_initializer="he_uniform", name="stem_conv")(x)
    skips = []
    for stage in range(depth):
        name = f"encoder{stage + 1}"
        x = concatenate(x, _dense(x, LAYERS[stage], growth, name), f"{name}_all")
        skips.append(x)
        x = _layer(x, x.shape[-1], f"{name}_down", kernel=1)
        x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    made = _dense(x, LAYERS[depth], growth, "bridge")
    for stage in reversed(range(depth)):
        name = f"decoder{stage + 1}"
        # Only what the last block made goes up: with all that it saw, channels would grow without bound.
        x = layers.Conv2DTranspose(
            made.shape[-1], 3, strides=2, padding="same", kernel_initializer="he_uniform", name=f"{name}_up"
        )(made)
        x = concatenate(x, skips[stage], name)
        made = _dense(x, LAYERS[stage], growth, name)
    return concatenate(x, made, "all")


def _dense(x: Tensor, count: int, growth: int, name: str) -> Tensor:
    """The features (n, h, w, count * growth) that a block adds to its input (n, h, w, c)."""
    made = []
    for index in range(count):
        new = _layer(x, growth, f"{name}_{index + 1}")
        made.append(new)
        if index < count - 1:
            x = concatenate(x, new, f"{name}_{index + 1}")
    return layers.Concatenate(name=f"{name}_made")(made) if count > 1 else made[0]


def _layer(x: Tensor, filters: int, name: str, kernel: int = 3) -> Tensor:
    x = norm_relu(x, name)
    x = layers.Conv2D(filters, kernel, padding="same", kernel_initializer="he_uniform", name=f"{name}_conv")(x)
    return layers.Dropout(DROPOUT, name=f"{name}_dropout")(x)

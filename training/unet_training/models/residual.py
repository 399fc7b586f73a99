"""Residual U-Net (ResUNet).

Z. Zhang, Q. Liu, Y. Wang, "Road Extraction by Deep Residual U-Net", IEEE GRSL 2018.

Residual units with full pre-activation (normalise, ReLU, convolve, twice) on both ways; strided convolutions halve,
where a U-Net pools. Unlike the paper: the shortcut of a unit that changes width or size is a 1x1 convolution followed
by BatchNormalization, as in its published code; the way up repeats pixels.
"""

from __future__ import annotations

from keras import layers

from unet_training.models.blocks import Tensor, architecture, concatenate, norm_relu


@architecture("residual", filters=64, depth=3)
def build(x: Tensor, filters: int, depth: int) -> Tensor:
    """Features for the head: see ``blocks.architecture``."""
    skips = []
    for stage in range(depth + 1):
        name = f"encoder{stage + 1}" if stage < depth else "bridge"
        x = _unit(x, filters * 2**stage, name, strides=2 if stage else 1, first=not stage)
        skips.append(x)
    for stage in reversed(range(depth)):
        name = f"decoder{stage + 1}"
        x = layers.UpSampling2D(2, name=f"{name}_enlarge")(x)
        x = _unit(concatenate(x, skips[stage], name), filters * 2**stage, name)
    return x


def _unit(x: Tensor, filters: int, name: str, *, strides: int = 1, first: bool = False) -> Tensor:
    """A residual unit; the ``first`` one of the network does not normalise its input, which is a photo."""
    shortcut = layers.Conv2D(filters, 1, strides, padding="same", name=f"{name}_shortcut_conv")(x)
    shortcut = layers.BatchNormalization(name=f"{name}_shortcut_norm")(shortcut)
    if not first:
        x = norm_relu(x, name, "_a")
    x = layers.Conv2D(filters, 3, strides, padding="same", name=f"{name}_conv_a")(x)
    x = norm_relu(x, name, "_b")
    x = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv_b")(x)
    return layers.Add(name=f"{name}_add")([x, shortcut])

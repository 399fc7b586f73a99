"""R2U-Net: recurrent convolutions inside residual blocks.

M. Z. Alom, M. Hasan, C. Yakopcic, T. M. Taha, V. K. Asari, "Recurrent Residual Convolutional Neural Network based on
U-Net (R2U-Net) for Medical Image Segmentation", 2018.

A recurrent convolution is one set of weights applied ``STEPS + 1`` times, each time to its own last result plus its
input. As in the widely used code (LeeJunHyun/Image_Segmentation), and unlike the paper's figure: the way up repeats
pixels and convolves; the block's input is brought to its width by a 1x1 convolution, which is also its shortcut.
Unlike that code, each application has a BatchNormalization of its own (as T. Cooijmans et al., "Recurrent Batch
Normalization", 2017): what the first gives and what the last gives are distributed in different ways, and one moving
average of both fits neither when the network is used.
"""

from __future__ import annotations

from functools import partial

import keras
from keras import layers

from unet_training.models.blocks import finish, norm_relu, photo_input, u_shape, up_conv

STEPS = 2
"""Recurrent applications after the first; the paper's t."""


def build(
    height: int | None,
    width: int | None,
    classes: int,
    *,
    filters: int = 64,
    depth: int = 4,
    activation: str = "softmax",
    norm_momentum: float = 0.99,
) -> keras.Model:
    """Build the network: see ``models.Build``."""
    image, x = photo_input(height, width, 2**depth)
    x = u_shape(
        x, filters, depth, block=partial(_block, momentum=norm_momentum), up=partial(up_conv, momentum=norm_momentum)
    )
    return finish(image, x, classes, activation, "recurrent-residual")


def _block(x: keras.KerasTensor, filters: int, name: str, momentum: float) -> keras.KerasTensor:
    shortcut = layers.Conv2D(filters, 1, name=f"{name}_shortcut")(x)
    x = _recurrent(shortcut, filters, f"{name}_a", momentum)
    x = _recurrent(x, filters, f"{name}_b", momentum)
    return layers.Add(name=f"{name}_add")([shortcut, x])


def _recurrent(x: keras.KerasTensor, filters: int, name: str, momentum: float) -> keras.KerasTensor:
    shared = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv")
    state = norm_relu(shared(x), name, "", momentum)
    for step in range(1, STEPS + 1):
        both = layers.Add(name=f"{name}_add{step}")([x, state])
        state = norm_relu(shared(both), name, str(step), momentum)
    return state

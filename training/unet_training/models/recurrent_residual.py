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

from keras import layers

from unet_training.models.blocks import Tensor, architecture, norm_relu, u_shape, up_conv

STEPS = 2
"""Recurrent applications after the first; the paper's t."""


@architecture("recurrent-residual", filters=64, depth=4)
def build(x: Tensor, filters: int, depth: int) -> Tensor:
    """Features for the head: see ``blocks.architecture``."""
    return u_shape(x, filters, depth, block=_block, up=up_conv)


def _block(x: Tensor, filters: int, name: str) -> Tensor:
    shortcut = layers.Conv2D(filters, 1, name=f"{name}_shortcut")(x)
    x = _recurrent(shortcut, filters, f"{name}_a")
    x = _recurrent(x, filters, f"{name}_b")
    return layers.Add(name=f"{name}_add")([shortcut, x])


def _recurrent(x: Tensor, filters: int, name: str) -> Tensor:
    shared = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv")
    state = norm_relu(shared(x), name)
    for step in range(1, STEPS + 1):
        both = layers.Add(name=f"{name}_add{step}")([x, state])
        state = norm_relu(shared(both), name, str(step))
    return state

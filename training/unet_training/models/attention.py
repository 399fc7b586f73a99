"""U-Net with attention gates on its skip connections.

O. Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", MIDL 2018.

A gate weights each pixel of a skip connection, by its features and the decoder's, before the two are joined. As in the
widely used 2D code (LeeJunHyun/Image_Segmentation), and unlike the paper: 2D; the gate sees the decoder's features once
they are enlarged, so nothing in the gate is resampled; BatchNormalization inside the gate; no deep supervision.
"""

from __future__ import annotations

from functools import partial

import keras
from keras import layers

from unet_training.models.blocks import concatenate, double_conv, finish, photo_input, u_shape, up_conv


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
        x,
        filters,
        depth,
        block=partial(double_conv, momentum=norm_momentum),
        up=partial(up_conv, momentum=norm_momentum),
        join=partial(_gated, momentum=norm_momentum),
    )
    return finish(image, x, classes, activation, "attention")


def _gated(x: keras.KerasTensor, skip: keras.KerasTensor, name: str, momentum: float) -> keras.KerasTensor:
    """``skip`` (n, h, w, c), each pixel times its weight in 0..1, beside ``x`` (n, h, w, c)."""
    inner = skip.shape[-1] // 2
    below = _projected(x, inner, f"{name}_gate_below", momentum)
    beside = _projected(skip, inner, f"{name}_gate_beside", momentum)
    both = layers.Activation("relu", name=f"{name}_gate_relu")(layers.Add(name=f"{name}_gate_add")([below, beside]))
    weight = _projected(both, 1, f"{name}_gate_weight", momentum)
    weight = layers.Activation("sigmoid", name=f"{name}_gate_sigmoid")(weight)  # (n, h, w, 1)
    return concatenate(x, layers.Multiply(name=f"{name}_gate")([skip, weight]), name)


def _projected(x: keras.KerasTensor, filters: int, name: str, momentum: float) -> keras.KerasTensor:
    x = layers.Conv2D(filters, 1, name=f"{name}_conv")(x)
    return layers.BatchNormalization(momentum=momentum, name=f"{name}_norm")(x)

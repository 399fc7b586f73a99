"""U-Net with attention gates on its skip connections.

O. Oktay et al., "Attention U-Net: Learning Where to Look for the Pancreas", MIDL 2018.

A gate weights each pixel of a skip connection, by its features and the decoder's, before the two are joined. As in the
widely used 2D code (LeeJunHyun/Image_Segmentation), and unlike the paper: 2D; the gate sees the decoder's features once
they are enlarged, so nothing in the gate is resampled; BatchNormalization inside the gate; no deep supervision.
"""

from __future__ import annotations

from keras import layers

from unet_training.models.blocks import Tensor, architecture, concatenate, double_conv, u_shape, up_conv


@architecture("attention", filters=64, depth=4)
def build(x: Tensor, filters: int, depth: int) -> Tensor:
    """Features for the head: see ``blocks.architecture``."""
    return u_shape(x, filters, depth, block=double_conv, up=up_conv, join=_gated)


def _gated(x: Tensor, skip: Tensor, name: str) -> Tensor:
    """``skip`` (n, h, w, c), each pixel times its weight in 0..1, beside ``x`` (n, h, w, c)."""
    inner = skip.shape[-1] // 2
    below = _projected(x, inner, f"{name}_gate_below")
    beside = _projected(skip, inner, f"{name}_gate_beside")
    both = layers.Activation("relu", name=f"{name}_gate_relu")(layers.Add(name=f"{name}_gate_add")([below, beside]))
    weight = _projected(both, 1, f"{name}_gate_weight")
    weight = layers.Activation("sigmoid", name=f"{name}_gate_sigmoid")(weight)  # (n, h, w, 1)
    return concatenate(x, layers.Multiply(name=f"{name}_gate")([skip, weight]), name)


def _projected(x: Tensor, filters: int, name: str) -> Tensor:
    x = layers.Conv2D(filters, 1, name=f"{name}_conv")(x)
    return layers.BatchNormalization(name=f"{name}_norm")(x)

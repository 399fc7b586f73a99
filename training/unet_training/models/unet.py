"""The article's U-Net.

O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", MICCAI 2015, with the article's changes: padded convolutions (so the mask is as large
as the photo), BatchNormalization after each, and filters 64..512 with a bridge of 1024.
"""

from __future__ import annotations

from unet_training.models.blocks import Tensor, architecture, double_conv, u_shape, up_transposed


@architecture("unet", filters=64, depth=4)
def build(x: Tensor, filters: int, depth: int) -> Tensor:
    """Features for the head: see ``blocks.architecture``."""
    return u_shape(x, filters, depth, block=double_conv, up=up_transposed)

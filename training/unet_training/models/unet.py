"""The article's U-Net.

O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", MICCAI 2015, with the article's changes: padded convolutions (so the mask is as large
as the photo), BatchNormalization after each, and filters 64..512 with a bridge of 1024.
"""

from __future__ import annotations

from functools import partial

import keras

from unet_training.models.blocks import double_conv, finish, photo_input, u_shape, up_transposed


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
    x = u_shape(x, filters, depth, block=partial(double_conv, momentum=norm_momentum), up=up_transposed)
    return finish(image, x, classes, activation, "unet")

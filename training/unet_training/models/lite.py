"""U-Net with EfficientNet-Lite as its encoder: made for integer arithmetic, with published weights from ImageNet.

The decoder only places what the encoder found, so it is small. Each stage is a 1x1 convolution to fewer channels,
upsampling to twice the size, the skip connection, and one 3x3 convolution. The head works at half the photo's
resolution, and its logits are enlarged.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers

from unet_training.models import efficientnet_lite
from unet_training.models.blocks import Tensor, architecture, concatenate, norm_relu


def _member(name: str) -> Callable[..., keras.Model]:
    @architecture(
        name,
        filters=24,
        depth=efficientnet_lite.DEPTH,
        enlarge=2,
        scale=efficientnet_lite.SCALE,
        offset=efficientnet_lite.OFFSET,
    )
    def build(x: Tensor, filters: int, depth: int) -> Tensor:
        """Features for the head: see ``blocks.architecture``; ``filters`` are those of the decoder's last stage, at
        half resolution, and each stage below has twice as many.

        Raises:
            ValueError: also a depth other than 1 to 5: how often the encoder halves the photo.
        """
        skips = efficientnet_lite.encoder(x, efficientnet_lite.SCALINGS[name], depth)
        x = skips.pop()  # (n, h / 2**depth, w / 2**depth, c)
        for stage in reversed(range(len(skips))):
            x = _up(x, skips[stage], filters * 2**stage, f"decoder{stage + 1}")
        return x

    return build


def _up(x: Tensor, skip: Tensor, filters: int, name: str) -> Tensor:
    """A stage of the decoder: (n, h, w, c) and its skip connection (n, 2h, 2w, c') -> (n, 2h, 2w, filters)."""
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_reduce")(x)
    x = norm_relu(x, name, "_reduce")
    x = layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_up")(x)
    x = concatenate(x, skip, name)
    x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return norm_relu(x, name)


build = _member("lite")
build_lite1 = _member("lite1")
build_lite2 = _member("lite2")

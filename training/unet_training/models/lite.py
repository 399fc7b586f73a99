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


def _twice(filters: int, stage: int) -> int:
    return filters << stage


def _half_more(filters: int, stage: int) -> int:
    return filters + filters * stage // 2


def _member(
    name: str, filters: int = 24, growth: Callable[[int, int], int] = _twice, encoder: str = ""
) -> Callable[..., keras.Model]:
    """A function that builds an architecture.

    Args:
        name: of the architecture.
        filters: default of the decoder's last stage.
        growth: (filters of the last stage, number of stages below it) -> filters of a stage.
        encoder: name in ``efficientnet_lite.SCALINGS``; empty: ``name``.
    """

    @architecture(
        name,
        filters=filters,
        depth=efficientnet_lite.DEPTH,
        enlarge=2,
        scale=efficientnet_lite.SCALE,
        offset=efficientnet_lite.OFFSET,
    )
    def build(x: Tensor, filters: int, depth: int) -> Tensor:
        """Features for the head: see ``blocks.architecture``; ``filters`` are those of the decoder's last stage, at
        half resolution, and stages below have more.

        Raises:
            ValueError: also a depth other than 1 to 5: how often the encoder halves the photo.
        """
        skips = efficientnet_lite.encoder(x, efficientnet_lite.SCALINGS[encoder or name], depth)
        x = skips.pop()  # (n, h / 2**depth, w / 2**depth, c)
        for stage in reversed(range(len(skips))):
            x = _up(x, skips[stage], growth(filters, stage), f"decoder{stage + 1}")
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
build_slim = _member("lite-slim", 16, _half_more, "lite")  # a decoder of a quarter of the operations
build_lite1 = _member("lite1")
build_lite2 = _member("lite2")

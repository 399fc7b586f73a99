"""U-Net with EfficientNet-Lite as its encoder: made for integer arithmetic, with published weights from ImageNet.

The decoder only places what the encoder found, so it is small. Each stage is a 1x1 convolution to fewer channels,
upsampling to twice the size, the skip connection, and one 3x3 convolution. The head works at half the photo's
resolution, and its logits are enlarged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import keras
from keras import layers

from unet_training.models import Build, efficientnet_lite
from unet_training.models.blocks import concatenate, finish, norm_relu, photo_input
from unet_training.models.efficientnet_lite import SCALINGS, Scaling


@dataclass(frozen=True)
class Decoder:
    """How a stage of the decoder is built."""

    enlarge: Literal["bilinear", "nearest", "transposed"] = "bilinear"
    """Upsampling: bilinear, by repeated pixels, or a 2x2 transposed convolution, which needs no 1x1 before it."""
    join: Literal["concatenate", "add"] = "concatenate"
    """How the skip connection is joined; to be added, a 1x1 convolution gives it as many channels."""
    convolution: Literal["plain", "separable"] = "plain"
    """The 3x3 convolution; ``separable``: depthwise, then 1x1."""


def network(
    height: int | None,
    width: int | None,
    classes: int,
    *,
    scaling: Scaling,
    decoder: Decoder,
    filters: int,
    depth: int,
    activation: str,
    norm_momentum: float,
    name: str,
) -> keras.Model:
    """A network of the family.

    Args:
        height, width, classes, activation, norm_momentum: as ``models.Build``.
        scaling: of the encoder.
        decoder: how its stages are built.
        filters: of the decoder's last stage, at half the photo's resolution; each stage below has twice as many.
        depth: how often the encoder halves the photo.
        name: of the architecture.

    Raises:
        ValueError: a size or a depth that the network does not take.
    """
    scale, offset = efficientnet_lite.SCALE, efficientnet_lite.OFFSET
    image, x = photo_input(height, width, 2**depth, scale=scale, offset=offset)
    skips = efficientnet_lite.encoder(x, scaling, depth, norm_momentum)
    x = skips.pop()  # (n, h / 2**depth, w / 2**depth, c)
    for stage in reversed(range(len(skips))):
        x = _up(x, skips[stage], filters * 2**stage, decoder, f"decoder{stage + 1}", norm_momentum)
    return finish(image, x, classes, activation, name, enlarge=2)


def _up(
    x: keras.KerasTensor, skip: keras.KerasTensor, filters: int, decoder: Decoder, name: str, momentum: float
) -> keras.KerasTensor:
    """A stage of the decoder: (n, h, w, c) and its skip connection (n, 2h, 2w, c') -> (n, 2h, 2w, filters)."""
    if decoder.enlarge == "transposed":
        x = layers.Conv2DTranspose(filters, 2, 2, padding="same", use_bias=False, name=f"{name}_up")(x)
        x = norm_relu(x, name, "_up", momentum)
    else:
        x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_reduce")(x)
        x = norm_relu(x, name, "_reduce", momentum)
        x = layers.UpSampling2D(2, interpolation=decoder.enlarge, name=f"{name}_up")(x)
    if decoder.join == "add":
        skip = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_beside")(skip)
        skip = norm_relu(skip, name, "_beside", momentum)
        x = layers.Add(name=f"{name}_skip")([x, skip])
    else:
        x = concatenate(x, skip, name)
    if decoder.convolution == "separable":
        x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depthwise")(x)
        x = norm_relu(x, name, "_depthwise", momentum)
        x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_conv")(x)
    else:
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    return norm_relu(x, name, "", momentum)


def _member(name: str) -> Build:
    """The ``build`` function of one architecture."""

    def build(
        height: int | None,
        width: int | None,
        classes: int,
        *,
        filters: int = 24,
        depth: int = efficientnet_lite.DEPTH,
        activation: str = "softmax",
        norm_momentum: float = 0.99,
    ) -> keras.Model:
        """Build the network: see ``models.Build``. ``filters`` are those of the decoder's last stage; ``depth`` is at
        most 5."""
        return network(
            height,
            width,
            classes,
            scaling=SCALINGS[name],
            decoder=Decoder(),
            filters=filters,
            depth=depth,
            activation=activation,
            norm_momentum=norm_momentum,
            name=name,
        )

    return build


build = _member("lite")
build_lite1 = _member("lite1")
build_lite2 = _member("lite2")

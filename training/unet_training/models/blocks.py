"""What the architectures share: input and head, blocks of convolutions, the shape of a U.

Everything is standard Keras layers, so a ``.keras`` file of any of them loads without this package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import keras
from keras import layers

Tensor: TypeAlias = keras.KerasTensor

Body = Callable[[Tensor, int, int], Tensor]
"""(photo (n, height, width, 3), float32; filters; depth) -> features (n, h', w', c) for the head."""

Block = Callable[[Tensor, int, str], Tensor]
"""(features (n, h, w, c), filters, name) -> features (n, h', w', filters)."""

Join = Callable[[Tensor, Tensor, str], Tensor]
"""(the decoder's features, the skip connection of the same height and width, name) -> both together."""


def architecture(
    name: str,
    *,
    filters: int,
    depth: int,
    step: Callable[[int], int] = lambda depth: 2**depth,
    enlarge: int = 1,
    scale: float = 1 / 255,
    offset: float = 0.0,
) -> Callable[[Body], Callable[..., keras.Model]]:
    """Decorator that puts input and head around the body of a network.

    Args:
        name: of the architecture.
        filters, depth: defaults, the paper's.
        step: depth -> the factor by which the network makes its input smaller, which divides height and width.
        enlarge: logits are made this many times as high and wide, bilinearly.
        scale, offset: what the photo's values, 0..255, are multiplied by, and what is added to them.
    """
    standard_filters, standard_depth = filters, depth

    def decorate(body: Body) -> Callable[..., keras.Model]:
        def build(
            height: int | None,
            width: int | None,
            classes: int,
            *,
            filters: int = standard_filters,
            depth: int = standard_depth,
            activation: str = "softmax",
            norm_momentum: float = 0.99,
        ) -> keras.Model:
            """Build the network.

            Args:
                height, width: of the input, pixels; None: any that the network takes, as training needs.
                classes: channels of the output.
                filters: of the first stage.
                depth: stages above the bridge.
                activation: of the head, ``softmax`` or ``sigmoid``.
                norm_momentum: of BatchNormalization's moving averages.

            Returns:
                Model from uint8 ``image`` (n, height, width, 3), RGB in 0..255, to float32 ``probabilities``
                (n, height, width, classes); ``unet2015`` predicts fewer pixels.

            Raises:
                ValueError: a size or depth that the network does not have.
            """
            factor = step(depth)
            if (height or 0) % factor or (width or 0) % factor:
                raise ValueError(
                    f"input size {height}x{width}, expected multiples of {factor} (what the network halves by)"
                )
            image = keras.Input((height, width, 3), dtype="uint8", name="image")
            x = layers.Rescaling(scale, offset, name="rescale")(image)  # so no device code normalises
            x = body(x, filters, depth)
            model = keras.Model(image, _probabilities(x, classes, enlarge, activation), name=name)
            for layer in model.layers:
                if isinstance(layer, layers.BatchNormalization):
                    layer.momentum = norm_momentum
            return model

        return build

    return decorate


def _probabilities(x: Tensor, classes: int, enlarge: int, activation: str) -> Tensor:
    """Logits -> bilinear ``enlarge`` -> activation.

    In float32 whatever the policy: a softmax in half precision costs accuracy, and the contract says float32.
    """
    x = layers.Conv2D(classes, 1, name="logits", dtype="float32")(x)
    if enlarge > 1:
        x = layers.UpSampling2D(enlarge, interpolation="bilinear", name="logits_up", dtype="float32")(x)
    return layers.Activation(activation, name="probabilities", dtype="float32")(x)


def norm_relu(x: Tensor, name: str, suffix: str = "") -> Tensor:
    """BatchNormalization -> ReLU."""
    x = layers.BatchNormalization(name=f"{name}_norm{suffix}")(x)
    return layers.Activation("relu", name=f"{name}_relu{suffix}")(x)


def conv(x: Tensor, filters: int, name: str, suffix: str = "", *, kernel: int = 3, strides: int = 1) -> Tensor:
    """Conv "same" -> BatchNormalization -> ReLU."""
    x = layers.Conv2D(filters, kernel, strides, padding="same", name=f"{name}_conv{suffix}")(x)
    return norm_relu(x, name, suffix)


def double_conv(x: Tensor, filters: int, name: str) -> Tensor:
    """3x3 Conv "same" -> BatchNormalization -> ReLU, twice."""
    return conv(conv(x, filters, name, "_a"), filters, name, "_b")


def up_conv(x: Tensor, filters: int, name: str) -> Tensor:
    """Upsampling to twice the size by repeating pixels, then 3x3 Conv -> BatchNormalization -> ReLU."""
    return conv(layers.UpSampling2D(2, name=f"{name}_enlarge")(x), filters, f"{name}_up")


def up_transposed(x: Tensor, filters: int, name: str) -> Tensor:
    """Upsampling to twice the size by a 2x2 transposed convolution."""
    return layers.Conv2DTranspose(filters, 2, strides=2, padding="same", name=f"{name}_up")(x)


def concatenate(x: Tensor, skip: Tensor, name: str) -> Tensor:
    """``x`` and ``skip`` along the channels."""
    return layers.Concatenate(name=f"{name}_skip")([x, skip])


def u_shape(x: Tensor, filters: int, depth: int, *, block: Block, up: Block, join: Join = concatenate) -> Tensor:
    """Features (n, h, w, filters) of an encoder that halves by max pooling, and a decoder with its skip connections.

    Args:
        x: (n, h, w, c).
        filters: of the first stage; each stage below doubles them.
        depth: stages above the bridge.
        block: convolutions of every stage.
        up: upsampling to twice the height and width.
        join: combines the decoder's features with the encoder's.
    """
    skips = []
    for stage in range(depth):
        x = block(x, filters * 2**stage, f"encoder{stage + 1}")
        skips.append(x)  # (n, h / 2**stage, w / 2**stage, filters * 2**stage)
        x = layers.MaxPooling2D(2, name=f"encoder{stage + 1}_pool")(x)
    x = block(x, filters * 2**depth, "bridge")
    for stage in reversed(range(depth)):
        name = f"decoder{stage + 1}"
        x = up(x, filters * 2**stage, name)
        x = join(x, skips[stage], name)
        x = block(x, filters * 2**stage, name)
    return x

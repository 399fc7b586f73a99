"""What the architectures share: input and head, blocks of convolutions, the shape of a U.

Everything is standard Keras layers, so a ``.keras`` file of any of them loads without this package.
"""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import layers

Block = Callable[[keras.KerasTensor, int, str], keras.KerasTensor]
"""(features (n, h, w, c), filters, name) -> features (n, h', w', filters)."""

Join = Callable[[keras.KerasTensor, keras.KerasTensor, str], keras.KerasTensor]
"""(the decoder's features, the skip connection of the same height and width, name) -> both together."""


def photo_input(
    height: int | None, width: int | None, step: int, *, scale: float = 1 / 255, offset: float = 0.0
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """uint8 ``image`` (n, height, width, 3), RGB in 0..255, and the same as float32, times ``scale`` plus ``offset``.

    Args:
        height, width: pixels, multiples of ``step``; None: any such size, as training needs.
        step: the factor by which the network makes its input smaller.
        scale, offset: by default they bring a value to 0..1.

    Raises:
        ValueError: a size that is no multiple.
    """
    if (height or 0) % step or (width or 0) % step:
        raise ValueError(f"input size {height}x{width}, expected multiples of {step} (what the network halves by)")
    image = keras.Input((height, width, 3), dtype="uint8", name="image")
    return image, layers.Rescaling(scale, offset, name="rescale")(image)  # so no device code normalises


def finish(
    image: keras.KerasTensor, x: keras.KerasTensor, classes: int, activation: str, name: str, *, enlarge: int = 1
) -> keras.Model:
    """The 1x1 head and the model: float32 ``probabilities`` (n, h', w', classes).

    Args:
        image: as ``photo_input`` made it.
        x: features (n, h', w', c).
        classes: channels of the output.
        activation: ``softmax`` or ``sigmoid``.
        name: of the architecture.
        enlarge: logits are made this many times as high and wide, bilinearly.
    """
    # float32 whatever the policy: a softmax in half precision costs accuracy, and the contract says float32.
    x = layers.Conv2D(classes, 1, name="logits", dtype="float32")(x)
    if enlarge > 1:
        x = layers.UpSampling2D(enlarge, interpolation="bilinear", name="logits_up", dtype="float32")(x)
    x = layers.Activation(activation, name="probabilities", dtype="float32")(x)
    return keras.Model(image, x, name=name)


def norm_relu(x: keras.KerasTensor, name: str, suffix: str, momentum: float) -> keras.KerasTensor:
    """BatchNormalization -> ReLU."""
    x = layers.BatchNormalization(momentum=momentum, name=f"{name}_norm{suffix}")(x)
    return layers.Activation("relu", name=f"{name}_relu{suffix}")(x)


def conv(
    x: keras.KerasTensor,
    filters: int,
    name: str,
    momentum: float,
    *,
    suffix: str = "",
    kernel: int = 3,
    strides: int = 1,
) -> keras.KerasTensor:
    """Conv "same" -> BatchNormalization -> ReLU."""
    x = layers.Conv2D(filters, kernel, strides, padding="same", name=f"{name}_conv{suffix}")(x)
    return norm_relu(x, name, suffix, momentum)


def double_conv(x: keras.KerasTensor, filters: int, name: str, momentum: float) -> keras.KerasTensor:
    """3x3 Conv "same" -> BatchNormalization -> ReLU, twice."""
    for suffix in ("_a", "_b"):
        x = conv(x, filters, name, momentum, suffix=suffix)
    return x


def up_conv(x: keras.KerasTensor, filters: int, name: str, momentum: float) -> keras.KerasTensor:
    """Upsampling to twice the size by repeating pixels, then 3x3 Conv -> BatchNormalization -> ReLU."""
    x = layers.UpSampling2D(2, name=f"{name}_enlarge")(x)
    return conv(x, filters, f"{name}_up", momentum)


def up_transposed(x: keras.KerasTensor, filters: int, name: str) -> keras.KerasTensor:
    """Upsampling to twice the size by a 2x2 transposed convolution."""
    return layers.Conv2DTranspose(filters, 2, strides=2, padding="same", name=f"{name}_up")(x)


def concatenate(x: keras.KerasTensor, skip: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """``x`` and ``skip`` along the channels."""
    return layers.Concatenate(name=f"{name}_skip")([x, skip])


def u_shape(
    x: keras.KerasTensor, filters: int, depth: int, *, block: Block, up: Block, join: Join = concatenate
) -> keras.KerasTensor:
    """An encoder that halves by max pooling, and a decoder with skip connections from it.

    Args:
        x: (n, h, w, c).
        filters: of the first stage; each stage below doubles them.
        depth: stages above the bridge.
        block: convolutions of every stage.
        up: upsampling to twice the height and width.
        join: combines the decoder's features with the encoder's.

    Returns:
        (n, h, w, filters)
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

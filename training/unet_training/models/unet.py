"""The article's U-Net.

O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image
Segmentation", MICCAI 2015, with the article's changes: padded convolutions (so the mask is as large
as the photo), BatchNormalization after each, and filters 64..512 with a bridge of 1024.
"""

from __future__ import annotations

import keras
from keras import layers


def conv_block(x: keras.KerasTensor, filters: int, name: str, norm_momentum: float) -> keras.KerasTensor:
    """Twice: 3x3 Conv "same" -> BatchNormalization -> ReLU."""
    for step in ("a", "b"):
        x = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv_{step}")(x)
        x = layers.BatchNormalization(momentum=norm_momentum, name=f"{name}_norm_{step}")(x)
        x = layers.Activation("relu", name=f"{name}_relu_{step}")(x)
    return x


def build(
    height: int | None, width: int | None, classes: int, *, filters: int = 64, depth: int = 4,
    activation: str = "softmax", norm_momentum: float = 0.99,
) -> keras.Model:  # fmt: skip
    """Build the network.

    Args:
        height, width: input size in pixels, multiples of ``2**depth``; None: any such size, as training needs.
        classes: channels of the output.
        filters: filters of the first stage; each stage below doubles them.
        depth: encoder stages above the bridge.
        activation: of the 1x1 head, ``softmax`` or ``sigmoid``.
        norm_momentum: of BatchNormalization's moving averages.

    Returns:
        Model from uint8 ``image`` (n, height, width, 3), RGB in 0..255, to float32
        ``probabilities`` (n, height, width, classes).

    Raises:
        ValueError: a size that the pooling does not divide.
    """
    step = 2**depth
    if any(side is not None and side % step for side in (height, width)):
        raise ValueError(f"input size {height}x{width}, expected multiples of {step} (2**depth)")
    image = keras.Input((height, width, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 255, name="rescale")(image)  # on the device nobody normalises
    skips = []
    for stage in range(depth):
        x = conv_block(x, filters * 2**stage, f"encoder{stage + 1}", norm_momentum)
        skips.append(x)  # (n, height / 2**stage, width / 2**stage, filters * 2**stage)
        x = layers.MaxPooling2D(2, name=f"encoder{stage + 1}_pool")(x)
    x = conv_block(x, filters * step, "bridge", norm_momentum)
    for stage in reversed(range(depth)):
        name = f"decoder{stage + 1}"
        x = layers.Conv2DTranspose(filters * 2**stage, 2, strides=2, padding="same", name=f"{name}_up")(x)
        x = layers.Concatenate(name=f"{name}_skip")([x, skips[stage]])
        x = conv_block(x, filters * 2**stage, name, norm_momentum)
    # float32 whatever the policy: a softmax in half precision costs accuracy, and the contract says float32.
    x = layers.Conv2D(classes, 1, name="logits", dtype="float32")(x)
    x = layers.Activation(activation, name="probabilities", dtype="float32")(x)
    return keras.Model(image, x, name="unet")

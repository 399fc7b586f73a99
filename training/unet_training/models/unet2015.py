"""The U-Net of 2015.

O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015.

Unpadded convolutions, so each prediction has seen real pixels only, and fewer pixels are predicted than the photo has:
388 of 572. Skip connections are cropped to match. No BatchNormalization; dropout at the end of the contracting path;
weights start from a normal distribution of variance 2 / fan-in, as the paper has it. Unlike the paper: RGB in place
of grey.
"""

from __future__ import annotations

from keras import layers

from unet_training.models.blocks import Tensor, architecture, concatenate, up_transposed

DROPOUT = 0.5
_CONVOLUTIONS = 2
"""Convolutions per stage; each takes a pixel off every side."""
_REMAINDER = 4
"""388 = 16 * 24 + 4: sizes of the output are multiples of the step plus this."""


def margin(depth: int = 4) -> int:
    """Pixels of the input on each side that are not predicted: 92 for the paper's depth."""
    down, up = 2 ** (depth + 1) - 1, 2**depth - 1  # each stage's pixels are twice as large as those above
    return int(_CONVOLUTIONS * (down + up))


@architecture("unet2015", filters=64, depth=4, step=lambda depth: 1)
def build(x: Tensor, filters: int, depth: int) -> Tensor:
    """Features for the head: see ``blocks.architecture``.

    Raises:
        ValueError: a size whose halves are not all whole, or of which nothing would be left.
    """
    _, height, width, _ = x.shape
    step = 2**depth
    lost = 2 * margin(depth)
    for side in (height, width):
        if side is not None and (side <= lost or (side - lost) % step != _REMAINDER % step):
            raise ValueError(
                f"input size {height}x{width}, expected {lost} + {_REMAINDER} + a multiple of {step}: "
                f"{lost + step + _REMAINDER}, {lost + 2 * step + _REMAINDER}, ..."
            )
    skips = []
    for stage in range(depth):
        x = _block(x, filters * 2**stage, f"encoder{stage + 1}")
        skips.append(x)
        if stage == depth - 1:
            x = layers.Dropout(DROPOUT, name="encoder_dropout")(x)
        x = layers.MaxPooling2D(2, name=f"encoder{stage + 1}_pool")(x)
    x = layers.Dropout(DROPOUT, name="bridge_dropout")(_block(x, filters * step, "bridge"))
    for stage in reversed(range(depth)):
        name = f"decoder{stage + 1}"
        x = layers.Activation("relu", name=f"{name}_up_relu")(up_transposed(x, filters * 2**stage, name))
        # What the way through the stages below takes off each side, at twice their pixels.
        skip = layers.Cropping2D(2 * margin(depth - stage - 1), name=f"{name}_crop")(skips[stage])
        x = _block(concatenate(x, skip, name), filters * 2**stage, name)
    return x


def _block(x: Tensor, filters: int, name: str) -> Tensor:
    for suffix in ("a", "b"):
        x = layers.Conv2D(filters, 3, kernel_initializer="he_normal", name=f"{name}_conv_{suffix}")(x)
        x = layers.Activation("relu", name=f"{name}_relu_{suffix}")(x)
    return x

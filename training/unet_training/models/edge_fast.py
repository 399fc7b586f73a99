"""This project's U-Net for small CPUs: most of the work at half the photo's resolution.

A U-Net spends much of its time at full resolution, and two thirds of the rest on the way up, where what comes from
below and the skip connection lie side by side. Here a strided convolution halves the photo first, and one stage more
lies below; on the way up, which only places what the encoder found, the two are added and convolved once. That pays for
wider stages. Outlines are drawn at full resolution by a few filters that see the photo itself.
"""

from __future__ import annotations

from keras import layers

from unet_training.models.blocks import Tensor, architecture, concatenate, conv, double_conv, up_transposed


@architecture("edge-fast", filters=24, depth=4, step=lambda depth: 2 ** (depth + 1))
def build(photo: Tensor, filters: int, depth: int) -> Tensor:
    """Features for the head: see ``blocks.architecture``; ``filters`` and ``depth`` count from half resolution."""
    few = max(4, filters // 3)  # fewer could not tell the classes apart
    widths = [filters * 2**stage for stage in range(depth)]
    x = conv(photo, filters, "stem", strides=2)
    skips = []
    for stage, filters_here in enumerate(widths, start=1):
        name = f"encoder{stage}"
        x = double_conv(x, filters_here, name) if stage > 1 else conv(x, filters_here, name)
        skips.append(x)
        x = layers.MaxPooling2D(2, name=f"{name}_pool")(x)
    x = double_conv(x, widths[-1], "bridge")
    for stage in range(depth, 0, -1):
        name, filters_here = f"decoder{stage}", widths[stage - 1]
        x = layers.Add(name=f"{name}_skip")([up_transposed(x, filters_here, name), skips[stage - 1]])
        x = conv(x, filters_here, name)
    x = concatenate(up_transposed(x, few, "outline"), photo, "outline")
    return conv(x, few, "outline")

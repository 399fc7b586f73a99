"""LadderNet: two U-Nets in a row, the second with connections from every stage of the first.

J. Zhuang, "LadderNet: Multi-path networks based on U-Net for medical image segmentation", 2018.

Skip connections are sums, on the way down as well as up; blocks are residual, and both convolutions of a block have the
same weights. As in the author's code (juntang-zhuang/LadderNet, LadderNetv65, 16 filters and 3 stages): no
BatchNormalization, strided convolutions halve, dropout of whole channels between the two convolutions.
"""

from __future__ import annotations

from keras import layers

from unet_training.models.blocks import Tensor, architecture

DROPOUT = 0.25


@architecture("ladder", filters=16, depth=3)
def build(x: Tensor, filters: int, depth: int) -> Tensor:
    """Features for the head: see ``blocks.architecture``."""
    x = layers.Conv2D(filters, 3, padding="same", activation="relu", name="stem_conv")(x)
    rungs = _u_shape(x, filters, depth, "first", previous=[None] * depth)
    x = _block(rungs[0], filters, "second_stem")
    return _u_shape(x, filters, depth, "second", previous=rungs[:depth])[0]


def _u_shape(x: Tensor, filters: int, depth: int, name: str, previous: list[Tensor | None]) -> list[Tensor]:
    """Decoder features of each stage, the largest first; ``previous`` are those of the U before, (n, h, w, c) each."""
    skips = []
    for stage in range(depth):
        here = f"{name}_encoder{stage + 1}"
        if previous[stage] is not None:
            x = layers.Add(name=f"{here}_hear")([x, previous[stage]])
        x = _block(x, filters * 2**stage, here)
        skips.append(x)
        x = layers.Conv2D(
            filters * 2 ** (stage + 1), 3, strides=2, padding="same", activation="relu", name=f"{here}_down"
        )(x)
    x = _block(x, filters * 2**depth, f"{name}_bridge")
    rungs: list[Tensor] = []
    for stage in reversed(range(depth)):
        here = f"{name}_decoder{stage + 1}"
        x = layers.Conv2DTranspose(filters * 2**stage, 3, strides=2, padding="same", name=f"{here}_up")(x)
        x = _block(layers.Add(name=f"{here}_skip")([x, skips[stage]]), filters * 2**stage, here)
        rungs.insert(0, x)
    return rungs


def _block(x: Tensor, filters: int, name: str) -> Tensor:
    shared = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv")
    inner = layers.Activation("relu", name=f"{name}_relu_a")(shared(x))
    inner = layers.SpatialDropout2D(DROPOUT, name=f"{name}_dropout")(inner)
    x = layers.Add(name=f"{name}_add")([shared(inner), x])
    return layers.Activation("relu", name=f"{name}_relu_b")(x)

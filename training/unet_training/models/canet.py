"""CANet: flows of context, each wider than the one before, in a chain.

Q. Tang, F. Liu, T. Zhang, J. Jiang, Y. Zhang, "Attention-guided Chained Context Aggregation for Semantic
Segmentation", 2020.

As the article's companion builds it in Keras, and unlike the paper: a small residual encoder of bottlenecks, trained
from scratch, in place of a ResNet; context flows without channel shuffle. Its constant map is made by broadcasting,
so that the network takes photos of any size. ``filters`` are those of the stem and the flows, the article's 64; its 4,
8, 16 and 32 channels are shares of them.
"""

from __future__ import annotations

from keras import layers

from unet_training.models.blocks import Tensor, architecture, concatenate, conv

FLOWS = 3
_STEP = 16
"""Strides of stem, two stages and the flows' own pooling."""
_HALVED = (2, 2, 1, 1)
_BLOCKS = (2, 3, 4, 5)
"""Bottlenecks of each stage."""
_LEAST = 2
"""Least stages: the flows need a sixteenth of the stem's area, which the first two make."""


@architecture("canet", filters=64, depth=4, step=lambda depth: _STEP, enlarge=4)
def build(x: Tensor, filters: int, depth: int) -> Tensor:
    """Features for the head: see ``blocks.architecture``.

    Raises:
        ValueError: also a depth other than 2, 3 or 4, the encoder's stages.
    """
    if not _LEAST <= depth <= len(_BLOCKS):
        raise ValueError(f"depth {depth}, expected {_LEAST} to {len(_BLOCKS)} stages of the encoder")
    x = layers.MaxPooling2D(2, name="stem_pool")(conv(x, filters, "stem"))
    stages = []
    for stage, (blocks, strides) in enumerate(zip(_BLOCKS[:depth], _HALVED[:depth], strict=True)):
        inner = max(1, filters * 2**stage // 16)
        for index in range(blocks):
            name = f"encoder{stage + 1}_{index + 1}"
            x = _bottleneck(x, inner, name, strides=strides if index == 0 else 1, project=index == 0)
        stages.append(x)
    context = _context(stages[-1], filters)  # (n, h / 4, w / 4, filters / 2)
    details = _global_convolution(stages[0], max(1, filters // 2))  # of the same size
    return concatenate(context, details, "both")


def _bottleneck(x: Tensor, inner: int, name: str, *, strides: int = 1, project: bool = False) -> Tensor:
    """1x1, 3x3 and 1x1 convolutions to twice ``inner`` channels, beside a shortcut; ``project``: that is convolved."""
    shortcut = conv(x, 2 * inner, f"{name}_shortcut", strides=strides) if project else x
    x = conv(x, inner, name, "_a", kernel=1, strides=strides)
    x = conv(x, inner, name, "_b")
    x = layers.Conv2D(2 * inner, 1, name=f"{name}_conv_c")(x)
    x = layers.BatchNormalization(name=f"{name}_norm_c")(x)
    return layers.Activation("relu", name=f"{name}_relu")(layers.Add(name=f"{name}_add")([x, shortcut]))


def _context(x: Tensor, filters: int) -> Tensor:
    """The global flow, the context flows after it, and the selection among all of them, enlarged twice."""
    flow = _global_flow(x, filters)
    flows = [flow]
    for index in range(FLOWS):
        flow = _context_flow(x, flow, filters, f"flow{index + 1}")
        flows.append(flow)
    x = layers.Conv2D(max(1, filters // 2), 3, padding="same", name="select_conv")(layers.Add(name="flows")(flows))
    weight = layers.GlobalAveragePooling2D(keepdims=True, name="select_average")(x)
    weight = layers.Conv2D(x.shape[-1], 1, name="select_weight")(weight)
    weight = layers.BatchNormalization(name="select_norm")(weight)
    weight = layers.Activation("sigmoid", name="select_sigmoid")(weight)
    x = layers.Multiply(name="select")([x, weight])
    return layers.UpSampling2D(2, interpolation="bilinear", name="select_up")(x)


def _global_flow(x: Tensor, filters: int) -> Tensor:
    """The photo's average in every pixel."""
    average = layers.GlobalAveragePooling2D(keepdims=True, name="global_average")(x)
    average = layers.BatchNormalization(name="global_norm")(average)
    average = layers.Activation("relu", name="global_relu")(average)
    # Zeros of the right height and width, whatever these are: a layer that repeats would have to know them.
    zeros = layers.Subtract(name="global_zeros")([x, x])
    everywhere = layers.Add(name="global_spread")([zeros, average])  # (n, h, w, c)
    return layers.Conv2D(filters, 1, name="global_flow")(everywhere)


def _context_flow(x: Tensor, flow: Tensor, filters: int, name: str) -> Tensor:
    x = layers.AveragePooling2D(2, name=f"{name}_pool")(concatenate(x, flow, name))
    for suffix in ("a", "b"):
        x = layers.Conv2D(filters, 3, padding="same", name=f"{name}_conv_{suffix}")(x)
    weight = layers.Conv2D(filters, 1, activation="relu", name=f"{name}_refine_a")(x)
    weight = layers.Conv2D(filters, 1, activation="sigmoid", name=f"{name}_refine_b")(weight)
    refined = layers.Multiply(name=f"{name}_refine")([x, weight])
    x = layers.Add(name=f"{name}_add")([x, refined])
    return layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_up")(x)


def _global_convolution(x: Tensor, filters: int) -> Tensor:
    """7x7 convolutions as a row and a column, in both orders, and a residual 3x3."""
    paths = []
    for name, kernels in (("wide", ((1, 7), (7, 1))), ("tall", ((7, 1), (1, 7)))):
        path = x
        for suffix, kernel in zip(("a", "b"), kernels, strict=True):
            path = layers.Conv2D(filters, kernel, padding="same", name=f"details_{name}_{suffix}")(path)
        paths.append(path)
    x = layers.Add(name="details_sum")(paths)
    refined = layers.Conv2D(filters, 3, padding="same", name="details_conv")(x)
    return layers.Add(name="details")([refined, x])

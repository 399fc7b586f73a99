"""Segmentation networks of other people's kind, small, as ``foreign_models.py`` exports them.

Each builder takes the input's side in pixels and returns a Keras model, float32 in 0..1 unless its entry says else.
They have the operators of the networks whose names they bear, with few filters and blocks, so that one export takes
seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
from keras import layers, ops

from benchmarks import foreign_layers
from benchmarks import foreign_published as published
from benchmarks.foreign_parts import CLASSES, attention, convolution, decode, encode, head, image_of, scale
from unet_export.foreign.files import Code

Builder = Callable[[int], Any]


@dataclass(frozen=True)
class Architecture:
    """A network, and what its user would say of it on the command line."""

    build: Builder
    description: dict[str, Any] = field(default_factory=dict)
    """Fields of ``Description`` but the classes."""
    single: bool = False
    """Whether it has one channel, which tells the object from its background."""
    any_size: bool = False
    """Whether it takes photos of any size."""
    output: str = ""
    """Which of several outputs is trained."""
    compiled: bool = False
    """Whether it is trained by XLA."""


# --- U-Nets ----------------------------------------------------------------------------------------


def xception_unet(side: int) -> Any:
    """Separable convolutions and projected residuals, as in Keras' segmentation tutorial."""
    image = image_of(side)
    x = convolution(image, 8, strides=2)
    previous = x
    for filters in (12, 16):
        x = layers.Activation("relu")(x)
        x = layers.BatchNormalization()(layers.SeparableConv2D(filters, 3, padding="same")(x))
        x = layers.Activation("relu")(x)
        x = layers.BatchNormalization()(layers.SeparableConv2D(filters, 3, padding="same")(x))
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        x = layers.add([x, layers.Conv2D(filters, 1, strides=2, padding="same")(previous)])
        previous = x
    for filters in (16, 12, 8):
        x = layers.Activation("relu")(x)
        x = layers.BatchNormalization()(layers.Conv2DTranspose(filters, 3, padding="same")(x))
        x = layers.UpSampling2D(2)(x)
        residual = layers.Conv2D(filters, 1, padding="same")(layers.UpSampling2D(2)(previous))
        x = layers.add([x, residual])
        previous = x
    return keras.Model(image, layers.Conv2D(CLASSES, 3, activation="softmax", padding="same")(x))


def pix2pix_unet(side: int) -> Any:
    """Sequential upsampling blocks on a nested encoder with several outputs, as in TensorFlow's tutorial."""
    source = image_of(side)
    encoder = keras.Model(source, encode(source, (8, 12, 16, 24)), name="encoder")
    image = image_of(side)
    features = encoder(image)
    x = features[-1]
    for index, skip in enumerate(reversed(features[:-1])):
        block = keras.Sequential(
            [
                layers.Conv2DTranspose(8, 3, strides=2, padding="same", use_bias=False),
                layers.BatchNormalization(),
                layers.ReLU(),
            ],
            name=f"up_{index}",
        )
        x = layers.Concatenate()([block(x), skip])
    return keras.Model(image, layers.Conv2D(CLASSES, 3, padding="same")(x))


def binary_unet(side: int) -> Any:
    """One channel behind a sigmoid."""
    image = image_of(side)
    return keras.Model(image, head(decode(encode(image)), 1, "sigmoid"))


def binary_logits(side: int) -> Any:
    """One channel of logits, enlarged, of any input size."""
    image = image_of(None)
    x = decode(encode(convolution(image, 8, strides=2)))
    return keras.Model(image, scale(layers.Conv2D(1, 1)(x), 2))


def valid_unet(side: int) -> Any:
    """Unpadded convolutions: the output is smaller than the input."""
    image = image_of(side + 8)
    first = layers.Conv2D(8, 3, activation="relu")(image)
    x = layers.Conv2D(12, 3, activation="relu", padding="same")(layers.MaxPooling2D()(first))
    x = layers.UpSampling2D(2)(x)
    x = layers.Concatenate()([x, first])
    x = layers.Conv2D(8, 3, activation="relu")(layers.Conv2D(8, 3, activation="relu")(x))
    return keras.Model(image, head(layers.Conv2D(8, 3, activation="relu")(x)))


def attention_unet(side: int) -> Any:
    """Additive attention gates on the skip connections."""
    image = image_of(side)
    features = encode(image)
    x = features[-1]
    for skip in reversed(features[:-1]):
        gate = layers.Conv2D(8, 1)(layers.UpSampling2D(2)(x))
        weight = layers.Conv2D(1, 1, activation="sigmoid")(
            layers.Activation("relu")(layers.add([gate, layers.Conv2D(8, 1)(skip)]))
        )
        x = layers.Concatenate()([layers.UpSampling2D(2)(x), layers.multiply([skip, weight])])
        x = convolution(x, 8)
    return keras.Model(image, head(x))


def unet_plus_plus(side: int) -> Any:
    """Nested skip connections with deep supervision: three outputs."""
    image = image_of(side)
    first = encode(image)
    second = [convolution(layers.Concatenate()([first[i], scale(first[i + 1], 2)]), 8) for i in range(2)]
    third = convolution(layers.Concatenate()([first[0], second[0], scale(second[1], 2)]), 8)
    heads = []
    for index, x in enumerate((first[0], second[0], third)):
        heads.append(layers.Conv2D(CLASSES, 1, activation="softmax", name=f"depth_{index}")(x))
    return keras.Model(image, heads)


def unet_three_plus(side: int) -> Any:
    """Full-scale skip connections: every level sees every other, pooled or enlarged by 2 and 4."""
    image = image_of(side)
    full, half, quarter = encode(image)
    middle = [layers.MaxPooling2D(2)(full), half, scale(quarter, 2)]
    middle = convolution(layers.Concatenate()([convolution(x, 6) for x in middle]), 12)
    last = [full, scale(middle, 2), scale(quarter, 4)]
    return keras.Model(image, head(convolution(layers.Concatenate()([convolution(x, 6) for x in last]), 12)))


def u2_net(side: int) -> Any:
    """A U-Net inside of each stage, dilated convolutions, and fused side outputs of one channel."""
    image = image_of(side)

    def block(x: Any, filters: int) -> Any:
        source = convolution(x, filters)
        outer = convolution(source, 6)
        inner = convolution(layers.MaxPooling2D(2, padding="same")(outer), 6, dilation_rate=2)
        x = convolution(layers.Concatenate()([scale(inner, 2), outer]), filters)
        return layers.add([x, source])

    first = block(image, 8)
    second = block(layers.MaxPooling2D(2)(first), 12)
    x = block(layers.Concatenate()([scale(second, 2), first]), 8)
    sides = [layers.Conv2D(1, 3, padding="same")(x), scale(layers.Conv2D(1, 3, padding="same")(second), 2)]
    fused = layers.Conv2D(1, 1)(layers.Concatenate()(sides))
    return keras.Model(image, layers.Activation("sigmoid", name="fused")(fused))


def resunet_elu(side: int) -> Any:
    """Residual blocks, ELU, dropout and a flattened output for sample weights."""
    image = image_of(side)
    x = layers.Conv2D(8, 3, padding="same", activation="elu")(image)
    skip = x
    x = layers.Dropout(0.2)(layers.MaxPooling2D()(x))
    x = layers.add([layers.Conv2D(8, 3, padding="same", activation="elu")(x), x])
    x = layers.Conv2DTranspose(8, 2, strides=2, padding="same")(x)
    x = layers.Conv2D(8, 3, padding="same", activation="elu")(layers.Concatenate()([x, skip]))
    x = layers.Reshape((side * side, CLASSES))(layers.Conv2D(CLASSES, 1)(x))
    return keras.Model(image, layers.Activation("softmax")(x))


def grey_unet(side: int) -> Any:
    """One channel in, as for X-rays and microscopes, and one out."""
    image = image_of(side, 1)
    return keras.Model(image, head(decode(encode(image)), 1, "sigmoid"))


def rgba_unet(side: int) -> Any:
    """Four channels in."""
    image = image_of(side, 4)
    return keras.Model(image, head(decode(encode(image))))


def channels_first_unet(side: int) -> Any:
    """(n, 3, h, w) in, (n, classes, h, w) out."""
    image = keras.Input((3, side, side))
    settings = {"padding": "same", "data_format": "channels_first"}
    first = layers.Conv2D(8, 3, activation="relu", **settings)(image)
    x = layers.MaxPooling2D(2, data_format="channels_first")(first)
    x = layers.BatchNormalization(axis=1)(layers.Conv2D(12, 3, **settings)(x))
    x = layers.UpSampling2D(2, data_format="channels_first")(layers.ReLU()(x))
    x = layers.Conv2D(8, 3, activation="relu", **settings)(layers.Concatenate(axis=1)([x, first]))
    return keras.Model(image, layers.Conv2D(CLASSES, 1, data_format="channels_first")(x))


def argmax_unet(side: int) -> Any:
    """Class ids instead of probabilities."""
    image = image_of(side)
    x = head(decode(encode(image)))
    return keras.Model(image, ops.argmax(x, axis=-1))


def mixed_precision_unet(side: int) -> Any:
    """Computed in float16 with weights in float32."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        image = image_of(side)
        x = decode(encode(image))
        x = layers.Conv2D(CLASSES, 1)(x)
        return keras.Model(image, layers.Activation("softmax", dtype="float32")(x))
    finally:
        keras.config.set_dtype_policy("float32")


def sequential_fcn(side: int) -> Any:
    """A Sequential with its own rescaling, pooling and a transposed convolution with bias before normalisation."""
    return keras.Sequential(
        [
            image_of(side),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(12, 3, padding="same", activation="relu"),
            layers.Conv2DTranspose(8, 2, strides=2),
            layers.BatchNormalization(axis=3),
            layers.ReLU(),
            layers.Conv2D(CLASSES, 1, activation="softmax"),
        ]
    )


# --- DeepLab and its like --------------------------------------------------------------------------


def _inverted_residual(x: Any, filters: int, strides: int = 1) -> Any:
    source = x
    x = convolution(x, 3 * x.shape[-1], 1, activation="relu6")
    x = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(x)
    x = layers.ReLU(6)(layers.BatchNormalization()(x))
    x = layers.BatchNormalization()(layers.Conv2D(filters, 1, use_bias=False)(x))
    return layers.add([source, x]) if strides == 1 and source.shape[-1] == filters else x


def deeplab_mobilenet(side: int) -> Any:
    """Inverted residuals, atrous pyramid with image pooling, enlarged by 4 with bilinear upsampling."""
    image = image_of(side)
    low = _inverted_residual(convolution(image, 8, strides=2, activation="relu6"), 8)
    x = _inverted_residual(_inverted_residual(low, 12, 2), 12)
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
    pooled = scale(convolution(pooled, 8, 1), side // 4)
    branches = [pooled, convolution(x, 8, 1)]
    branches += [convolution(x, 8, 3, dilation_rate=rate) for rate in (2, 4)]
    x = scale(convolution(layers.Concatenate()(branches), 12, 1), 2)
    x = convolution(layers.Concatenate()([x, convolution(low, 6, 1)]), 12)
    return keras.Model(image, scale(layers.Conv2D(CLASSES, 1)(x), 2))


def pspnet(side: int) -> Any:
    """Pyramid of average pooling, enlarged by layers that resize."""
    image = image_of(side)
    x = convolution(convolution(image, 8, strides=2), 16, strides=2)
    small = side // 4
    branches = [x]
    for bins in (1, 2, 4):
        pooled = convolution(layers.AveragePooling2D(small // bins)(x), 6, 1)
        branches.append(layers.Resizing(small, small, interpolation="bilinear")(pooled))
    x = convolution(layers.Concatenate()(branches), 12)
    return keras.Model(image, layers.Resizing(side, side)(layers.Conv2D(CLASSES, 3, padding="same")(x)))


def fcn_quarter(side: int) -> Any:
    """Probabilities at a quarter of the photo's size."""
    image = image_of(side)
    return keras.Model(image, head(convolution(encode(image)[-1], 16)))


def linknet(side: int) -> Any:
    """Additive skip connections and transposed convolutions, on a nested encoder."""
    source = image_of(side)
    encoder = keras.Model(source, encode(source), name="encoder")
    image = image_of(side)
    features = encoder(image)
    x = features[-1]
    for skip in reversed(features[:-1]):
        x = convolution(x, 8, 1)
        x = layers.Conv2DTranspose(8, 4, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
        x = layers.add([convolution(x, skip.shape[-1], 1), skip])
    return keras.Model(image, head(x))


def fpn(side: int) -> Any:
    """Feature pyramid: lateral sums, and all levels enlarged and concatenated."""
    image = image_of(side)
    features = encode(image)
    x = layers.Conv2D(12, 1)(features[-1])
    levels = [x]
    for skip in reversed(features[:-1]):
        x = layers.add([scale(x, 2, "nearest"), layers.Conv2D(12, 1)(skip)])
        levels.append(x)
    levels = [scale(convolution(level, 8), 2 ** (2 - index)) for index, level in enumerate(levels)]
    x = layers.SpatialDropout2D(0.2)(layers.Concatenate()(levels))
    return keras.Model(image, head(x, activation="sigmoid"))


# --- real-time networks ----------------------------------------------------------------------------


def bisenet(side: int) -> Any:
    """A spatial and a context path with attention of global pooling; output at 1/4."""
    image = image_of(side)
    spatial = convolution(convolution(image, 8, strides=2), 12, strides=2)
    context = convolution(convolution(spatial, 12, strides=2), 16, strides=2)
    weight = layers.GlobalAveragePooling2D(keepdims=True)(context)
    weight = layers.Activation("sigmoid")(layers.BatchNormalization()(layers.Conv2D(16, 1, use_bias=False)(weight)))
    context = scale(layers.multiply([context, weight]), 4)
    fused = convolution(layers.Concatenate()([spatial, context]), 16, 1)
    weight = layers.Reshape((1, 1, 16))(layers.GlobalAveragePooling2D()(fused))
    weight = layers.Conv2D(16, 1, activation="sigmoid")(layers.Conv2D(16, 1, activation="relu")(weight))
    fused = layers.add([fused, layers.multiply([fused, weight])])
    return keras.Model(image, layers.Conv2D(CLASSES, 1)(convolution(fused, 12)))


def enet(side: int) -> Any:
    """PReLU, asymmetric and dilated convolutions, pooling beside convolution."""
    image = image_of(side)

    def activated(x: Any) -> Any:
        return layers.PReLU(shared_axes=(1, 2))(layers.BatchNormalization(momentum=0.9)(x))

    x = layers.Conv2D(13, 3, strides=2, padding="same")(image)
    x = activated(layers.Concatenate()([x, layers.MaxPooling2D(2)(image)]))
    for rate in (1, 2):
        y = activated(layers.Conv2D(6, 1, use_bias=False)(x))
        y = activated(layers.Conv2D(6, 3, padding="same", dilation_rate=rate)(y))
        y = layers.Conv2D(6, (5, 1), padding="same", use_bias=False)(y)
        y = activated(layers.Conv2D(6, (1, 5), padding="same")(y))
        y = layers.BatchNormalization()(layers.Conv2D(16, 1, use_bias=False)(y))
        x = layers.PReLU(shared_axes=(1, 2))(layers.add([x, layers.SpatialDropout2D(0.1)(y)]))
    return keras.Model(image, layers.Conv2DTranspose(CLASSES, 2, strides=2, padding="same", activation="softmax")(x))


def fast_scnn(side: int) -> Any:
    """Learning to downsample, bottlenecks with depthwise convolutions, feature fusion."""
    image = image_of(side)
    x = convolution(image, 8, strides=2)
    x = layers.ReLU()(layers.BatchNormalization()(layers.SeparableConv2D(12, 3, strides=2, padding="same")(x)))
    high = x
    x = _inverted_residual(_inverted_residual(x, 16, 2), 16)
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.add([x, layers.Conv2D(16, 1)(pooled)])
    x = layers.DepthwiseConv2D(3, padding="same", dilation_rate=2)(scale(x, 2))
    x = layers.ReLU()(layers.add([layers.Conv2D(12, 1)(x), layers.Conv2D(12, 1)(high)]))
    x = layers.Dropout(0.1)(layers.SeparableConv2D(12, 3, padding="same", activation="relu")(x))
    return keras.Model(image, layers.Softmax()(scale(layers.Conv2D(CLASSES, 1)(x), 4)))


def hardswish_lraspp(side: int) -> Any:
    """MobileNetV3's hard swish and squeeze-excite with hard sigmoid, and the head of LR-ASPP."""
    image = image_of(side)
    x = convolution(image, 8, strides=2, activation="hard_silu")
    low = x
    y = layers.DepthwiseConv2D(5, strides=2, padding="same", use_bias=False)(x)
    y = layers.Activation("hard_silu")(layers.BatchNormalization()(y))
    weight = layers.Conv2D(4, 1, activation="relu")(layers.GlobalAveragePooling2D(keepdims=True)(y))
    y = layers.multiply([y, layers.Conv2D(8, 1, activation="hard_sigmoid")(weight)])
    x = convolution(y, 16, 1, activation="hard_silu")
    weight = layers.Conv2D(16, 1, activation="sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = scale(layers.multiply([convolution(x, 16, 1), weight]), 2)
    x = layers.add([layers.Conv2D(CLASSES, 1)(x), layers.Conv2D(CLASSES, 1)(low)])
    return keras.Model(image, scale(x, 2))


# --- transformers and modern encoders --------------------------------------------------------------


def segformer(side: int) -> Any:
    """Overlapping patches, attention with a reduced sequence, mixed feed-forward, output at 1/4."""
    image = image_of(side)
    levels = []
    x = image
    for filters, strides in ((8, 4), (16, 2)):
        x = layers.Conv2D(filters, 7, strides=strides, padding="same")(x)
        height, width = x.shape[1:3]
        tokens = layers.LayerNormalization()(layers.Reshape((height * width, filters))(x))
        reduced = layers.Conv2D(filters, 2, strides=2)(layers.Reshape((height, width, filters))(tokens))
        reduced = layers.LayerNormalization()(layers.Reshape((-1, filters))(reduced))
        tokens = layers.add([tokens, layers.MultiHeadAttention(2, filters // 2)(tokens, reduced)])
        x = layers.Reshape((height, width, filters))(tokens)
        y = layers.DepthwiseConv2D(3, padding="same")(layers.Conv2D(2 * filters, 1)(x))
        x = layers.add([x, layers.Conv2D(filters, 1)(layers.Activation("gelu")(y))])
        levels.append(layers.Conv2D(12, 1)(x))
    levels[1] = layers.Resizing(side // 4, side // 4)(levels[1])
    x = convolution(layers.Concatenate()(levels), 12, 1)
    return keras.Model(image, layers.Conv2D(CLASSES, 1)(x))


def transunet(side: int) -> Any:
    """A convolutional encoder, a transformer on its last features with positions that are learnt, a U-Net's decoder."""
    image = image_of(side)
    features = encode(image, (8, 12, 16, 16))
    small = side // 8
    x = layers.Reshape((small * small, 16))(features[-1])
    positions = layers.Embedding(small * small, 16)(ops.arange(small * small))
    x = attention(x + ops.expand_dims(positions, 0))
    features[-1] = layers.Reshape((small, small, 16))(x)
    return keras.Model(image, head(decode(features)))


def convnext_unet(side: int) -> Any:
    """Patches of 4, depthwise 7x7, LayerNormalization, exact GELU, layer scale as a custom layer would have it."""
    image = image_of(side)
    x = layers.LayerNormalization(epsilon=1e-6)(layers.Conv2D(12, 4, strides=4)(image))
    y = layers.LayerNormalization(epsilon=1e-6)(layers.DepthwiseConv2D(7, padding="same")(x))
    y = layers.Dense(12)(layers.Activation("gelu")(layers.Dense(36)(y)))
    x = layers.add([x, layers.Rescaling(0.5)(y)])
    return keras.Model(image, head(convolution(scale(x, 4), 8)))


def efficientnet_unet(side: int) -> Any:
    """Normalization inside, swish, squeeze-excite on reshaped vectors."""
    image = image_of(side)
    norm = layers.Normalization(mean=(0.48, 0.45, 0.4), variance=(0.05, 0.05, 0.05))
    x = norm(layers.Rescaling(1 / 255)(image))
    x = convolution(x, 8, activation="swish")
    skip = x
    y = layers.ZeroPadding2D(((0, 1), (0, 1)))(x)
    y = layers.DepthwiseConv2D(3, strides=2, padding="valid", use_bias=False)(y)
    y = layers.Activation("swish")(layers.BatchNormalization()(y))
    weight = layers.Reshape((1, 1, 8))(layers.GlobalAveragePooling2D()(y))
    weight = layers.Conv2D(2, 1, activation="swish")(weight)
    y = layers.multiply([y, layers.Conv2D(8, 1, activation="sigmoid")(weight)])
    x = convolution(scale(convolution(y, 12, 1, activation="swish"), 2, "nearest"), 8, activation="swish")
    return keras.Model(image, head(layers.add([x, skip])))


def resnet_v2_unet(side: int) -> Any:
    """Zero padding in front of max pooling, before any activation, as in ResNet50V2."""
    image = image_of(side)
    x = layers.Conv2D(12, 7, strides=2, padding="valid")(layers.ZeroPadding2D(3)(image))
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(x))
    y = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.add([x, layers.Conv2D(12, 3, padding="same")(y)])
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(image, head(convolution(scale(x, 4, "bicubic"), 8)))


def group_norm_unet(side: int) -> Any:
    """GroupNormalization, mish, reduce_max beside reduce_mean (CBAM)."""
    image = image_of(side)
    x = layers.Activation("mish")(layers.GroupNormalization(4)(layers.Conv2D(8, 3, padding="same")(image)))
    skip = x
    x = layers.Conv2D(16, 3, strides=2, padding="same")(x)
    x = layers.Activation("mish")(layers.GroupNormalization(4)(x))
    both = ops.concatenate([ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)], axis=-1)
    x = layers.multiply([x, layers.Conv2D(1, 7, padding="same", activation="sigmoid")(both)])
    x = layers.Concatenate()([scale(x, 2, "nearest"), skip])
    return keras.Model(image, head(layers.Conv2D(8, 3, padding="same", activation="mish")(x)))


def grouped_unet(side: int) -> Any:
    """Grouped convolutions, as in ResNeXt, and a stride above the kernel in a transposed one."""
    image = image_of(side)
    x = convolution(image, 8)
    x = convolution(convolution(x, 16, strides=2), 16, groups=4)
    x = layers.Conv2DTranspose(8, 1, strides=2, padding="same")(x)
    return keras.Model(image, head(convolution(x, 8)))


def instance_norm_unet(side: int) -> Any:
    """InstanceNorm (a GroupNormalization of as many groups as channels) and LeakyReLU, as in pix2pix and nnU-Net."""
    image = image_of(side)
    x = layers.LeakyReLU(0.1)(layers.GroupNormalization(-1)(layers.Conv2D(8, 3, padding="same")(image)))
    y = layers.LeakyReLU(0.1)(layers.GroupNormalization(-1)(layers.Conv2D(12, 3, strides=2, padding="same")(x)))
    x = layers.Concatenate()([layers.Conv2DTranspose(8, 2, strides=2)(y), x])
    return keras.Model(image, head(layers.LeakyReLU(0.1)(layers.Conv2D(8, 3, padding="same")(x))))


def mobilenet_v2_application(side: int) -> Any:
    """keras.applications' MobileNetV2 at an eighth of its width, nested, with a decoder."""
    encoder = keras.applications.MobileNetV2((side, side, 3), 0.35, include_top=False, weights=None)
    names = ("block_1_expand_relu", "block_3_expand_relu", "block_6_expand_relu")
    encoder = keras.Model(encoder.input, [encoder.get_layer(name).output for name in names], name="mobilenet")
    image = image_of(side)
    x = decode(encoder(image))
    return keras.Model(image, head(scale(x, 2, "nearest")))


# --- of Keras' own encoders, and the packages built on them ----------------------------------------


def classic_unet(side: int) -> Any:
    """The U-Net of countless notebooks: dropout at the bottom, 2x2 convolutions where it is enlarged."""
    image = image_of(side)
    settings = {"activation": "relu", "padding": "same", "kernel_initializer": "he_normal"}
    features = []
    x = image
    for filters in (8, 12, 16):
        x = layers.Conv2D(filters, 3, **settings)(layers.Conv2D(filters, 3, **settings)(x))
        features.append(x)
        x = layers.MaxPooling2D((2, 2))(x)
    x = layers.Dropout(0.5)(layers.Conv2D(24, 3, **settings)(x))
    for skip in reversed(features):
        x = layers.Conv2D(skip.shape[-1], 2, **settings)(layers.UpSampling2D(size=(2, 2))(x))
        x = layers.concatenate([skip, x], axis=3)
        x = layers.Conv2D(skip.shape[-1], 3, **settings)(x)
    x = layers.Conv2D(2, 3, **settings)(x)
    return keras.Model(image, layers.Conv2D(1, 1, activation="sigmoid")(x))


def resnet_unet(side: int) -> Any:
    """segmentation_models' Unet on its ResNet: BatchNormalization first of all, padding by layers of its own."""
    image = image_of(side, name="data")
    x = layers.BatchNormalization(scale=False, name="bn_data")(image)
    x = layers.Conv2D(8, 7, strides=2, use_bias=False)(layers.ZeroPadding2D(3)(x))
    first = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.MaxPooling2D(3, strides=2)(layers.ZeroPadding2D(1)(first))
    for strides in (1, 2):
        y = layers.ReLU()(layers.BatchNormalization()(x))
        shortcut = layers.Conv2D(12 * strides, 1, strides=strides, use_bias=False)(y)
        y = layers.Conv2D(12 * strides, 3, strides=strides, use_bias=False)(layers.ZeroPadding2D(1)(y))
        y = layers.ReLU()(layers.BatchNormalization()(y))
        x = layers.add([layers.Conv2D(12 * strides, 3, use_bias=False)(layers.ZeroPadding2D(1)(y)), shortcut])
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = convolution(layers.Concatenate()([scale(x, 4, "nearest"), first]), 12)
    x = convolution(scale(x, 2, "nearest"), 8)
    return keras.Model(
        image, layers.Activation("softmax")(layers.Conv2D(CLASSES, 3, padding="same", name="final_conv")(x))
    )


def vgg_unet(side: int) -> Any:
    """keras.applications' VGG16 up to its third block, not nested, with a decoder."""
    encoder = keras.applications.VGG16(include_top=False, weights=None, input_shape=(side, side, 3))
    names = ("block1_conv1", "block2_conv1")
    x = decode([encoder.get_layer(name).output for name in names])
    return keras.Model(encoder.input, head(x))


def mobilenet_v3_application(side: int) -> Any:
    """keras.applications' MobileNetV3 with its rescaling inside, hard swish and squeeze-excite, nested."""
    encoder = keras.applications.MobileNetV3Small((side, side, 3), 0.75, include_top=False, weights=None)
    features = {layer.output.shape[1]: layer.output for layer in encoder.layers if len(layer.output.shape) == 4}
    encoder = keras.Model(encoder.input, [features[side // factor] for factor in (2, 4, 8)], name="mobilenet_v3")
    image = image_of(side)
    return keras.Model(image, head(scale(decode(encoder(image)), 2, "nearest")))


def efficientnet_application(side: int) -> Any:
    """keras.applications' EfficientNetB0 up to 1/8, with its Normalization inside."""
    encoder = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(side, side, 3))
    names = ("block2a_expand_activation", "block3a_expand_activation", "block4a_expand_activation")
    x = decode([encoder.get_layer(name).output for name in names])
    return keras.Model(encoder.input, head(scale(x, 2, "nearest")))


def convnext_application(side: int) -> Any:
    """keras.applications' ConvNeXtTiny up to its first block: LayerScale, LayerNormalization, its own normalisation."""
    encoder = keras.applications.ConvNeXtTiny(include_top=False, weights=None, input_shape=(side, side, 3))
    block = next(layer for layer in encoder.layers if layer.name.endswith("stage_0_block_0_identity"))
    return keras.Model(encoder.input, head(convolution(scale(block.output, 4), 8)))


def densenet_unet(side: int) -> Any:
    """Dense blocks, transitions with average pooling."""
    image = image_of(side)
    x = layers.Conv2D(8, 3, padding="same", use_bias=False)(image)
    features = []
    for _ in range(3):
        for _ in range(2):
            y = layers.Conv2D(8, 1, use_bias=False)(layers.ReLU()(layers.BatchNormalization(epsilon=1.001e-5)(x)))
            y = layers.Conv2D(4, 3, padding="same", use_bias=False)(layers.ReLU()(layers.BatchNormalization()(y)))
            x = layers.Concatenate()([x, y])
        features.append(x)
        x = layers.Conv2D(8, 1, use_bias=False)(layers.ReLU()(layers.BatchNormalization()(x)))
        x = layers.AveragePooling2D(2, strides=2)(x)
    return keras.Model(image, head(decode([*features, x])))


def recurrent_unet(side: int) -> Any:
    """R2U-Net: a convolution that is called again on the sum of its own result and its input."""
    image = image_of(side)
    features = []
    x = image
    for filters in (8, 12, 16):
        x = source = layers.Conv2D(filters, 1)(x)
        shared, norm = layers.Conv2D(filters, 3, padding="same"), layers.BatchNormalization()
        for _ in range(2):
            x = layers.ReLU()(norm(shared(layers.add([x, source]))))
        x = layers.add([x, source])
        features.append(x)
        x = layers.MaxPooling2D(2)(x)
    return keras.Model(image, head(decode(features)))


def hrnet(side: int) -> Any:
    """Two resolutions side by side that exchange features."""
    image = image_of(side)
    high = convolution(convolution(image, 8, strides=2), 8)
    low = convolution(high, 16, strides=2)
    for _ in range(2):
        high, low = convolution(high, 8), convolution(low, 16)
        up = layers.UpSampling2D(2)(layers.BatchNormalization()(layers.Conv2D(8, 1, use_bias=False)(low)))
        down = layers.BatchNormalization()(layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False)(high))
        high, low = layers.ReLU()(layers.add([high, up])), layers.ReLU()(layers.add([low, down]))
    x = layers.Concatenate()([high, scale(low, 2)])
    return keras.Model(image, scale(layers.Conv2D(CLASSES, 1)(convolution(x, 16, 1)), 2))


def segmenter(side: int) -> Any:
    """A vision transformer on patches of 8, and a linear head whose result is enlarged."""
    image = image_of(side)
    small = side // 8
    x = layers.Reshape((small * small, 24))(layers.Conv2D(24, 8, strides=8)(image))
    positions = layers.Embedding(small * small, 24)(ops.arange(small * small))
    x = attention(attention(x + ops.expand_dims(positions, 0)))
    x = layers.Dense(CLASSES)(layers.LayerNormalization(epsilon=1e-6)(x))
    return keras.Model(image, layers.Softmax()(scale(layers.Reshape((small, small, CLASSES))(x), 8)))


def swin_unet(side: int) -> Any:
    """Attention in windows of 4, the second time in windows that are shifted."""
    image = image_of(side)
    x = layers.Conv2D(16, 4, strides=4)(image)
    height, width = x.shape[1:3]
    for shift in (0, 2):
        y = ops.roll(x, (-shift, -shift), axis=(1, 2)) if shift else x
        y = ops.reshape(y, (-1, height // 4, 4, width // 4, 4, 16))
        y = ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (-1, 16, 16))
        y = attention(y)
        y = ops.transpose(ops.reshape(y, (-1, height // 4, width // 4, 4, 4, 16)), (0, 1, 3, 2, 4, 5))
        y = ops.reshape(y, (-1, height, width, 16))
        x = layers.add([x, ops.roll(y, (shift, shift), axis=(1, 2)) if shift else y])
    return keras.Model(image, head(convolution(scale(x, 4), 8)))


def pixel_shuffle_unet(side: int) -> Any:
    """Enlarged by rearranging channels (depth to space), as in ESPCN."""
    image = image_of(side)
    x = encode(image)[-1]
    for filters in (12, 8):
        height, width = x.shape[1:3]
        x = layers.Reshape((height, width, 2, 2, filters))(layers.Conv2D(4 * filters, 3, padding="same")(x))
        x = layers.Reshape((2 * height, 2 * width, filters))(layers.Permute((1, 3, 2, 4, 5))(x))
        x = layers.ReLU()(x)
    return keras.Model(image, head(x))


_BYTES, _SIGNED = {"pixels": "0..255"}, {"pixels": "-1..1"}
_UNIT = {"pixels": "0..1"}
_IMAGENET = {"preprocessing": "imagenet"}
_LAYERS = {"code": Code(custom_objects=Path(foreign_layers.__file__))}

ARCHITECTURES: dict[str, Architecture] = {
    "xception-unet": Architecture(xception_unet, _UNIT),
    "pix2pix-unet": Architecture(pix2pix_unet, _UNIT),
    "binary-unet": Architecture(binary_unet, _UNIT, single=True),
    "binary-logits": Architecture(binary_logits, _UNIT, single=True, any_size=True),
    "valid-unet": Architecture(valid_unet, _UNIT),
    "attention-unet": Architecture(attention_unet, _UNIT),
    "unet++": Architecture(unet_plus_plus, {**_UNIT, "output_name": "depth_2"}, output="depth_2"),
    "unet3+": Architecture(unet_three_plus, _UNIT),
    "u2-net": Architecture(u2_net, _IMAGENET, single=True),
    "resunet-elu": Architecture(resunet_elu, _UNIT),
    "grey-unet": Architecture(grey_unet, _UNIT, single=True),
    "rgba-unet": Architecture(rgba_unet, {**_UNIT, "channels": "rgba"}),
    "channels-first": Architecture(channels_first_unet, _UNIT),
    "argmax-inside": Architecture(argmax_unet, _UNIT),
    "mixed-float16": Architecture(mixed_precision_unet, _UNIT),
    "sequential-fcn": Architecture(sequential_fcn, _BYTES),
    "deeplab-mobilenet": Architecture(deeplab_mobilenet, _SIGNED),
    "pspnet": Architecture(pspnet, {"preprocessing": "caffe"}),
    "fcn-quarter": Architecture(fcn_quarter, _UNIT),
    "linknet": Architecture(linknet, {"preprocessing": "resnet34"}),
    "fpn": Architecture(fpn, {"preprocessing": "seresnext50"}),
    "bisenet": Architecture(bisenet, _UNIT),
    "enet": Architecture(enet, _UNIT),
    "fast-scnn": Architecture(fast_scnn, _UNIT),
    "lraspp": Architecture(hardswish_lraspp, _SIGNED),
    "segformer": Architecture(segformer, _IMAGENET),
    "transunet": Architecture(transunet, _UNIT),
    "convnext-unet": Architecture(convnext_unet, _IMAGENET),
    "efficientnet-unet": Architecture(efficientnet_unet, _BYTES),
    "resnet-v2-unet": Architecture(resnet_v2_unet, _SIGNED),
    "groupnorm-unet": Architecture(group_norm_unet, _UNIT),
    "grouped-unet": Architecture(grouped_unet, _UNIT, compiled=True),
    "instancenorm-unet": Architecture(instance_norm_unet, _UNIT),
    "mobilenetv2": Architecture(mobilenet_v2_application, _SIGNED),
    "classic-unet": Architecture(classic_unet, _UNIT, single=True),
    "resnet34-sm": Architecture(resnet_unet, {"preprocessing": "resnet34"}),
    "vgg16": Architecture(vgg_unet, {"preprocessing": "vgg16"}),
    "mobilenetv3": Architecture(mobilenet_v3_application, _BYTES),
    "efficientnetb0": Architecture(efficientnet_application, _BYTES),
    "convnext-tiny": Architecture(convnext_application, _BYTES),
    "densenet-unet": Architecture(densenet_unet, _IMAGENET),
    "r2-unet": Architecture(recurrent_unet, _UNIT),
    "hrnet": Architecture(hrnet, _IMAGENET),
    "segmenter": Architecture(segmenter, _SIGNED),
    "swin-unet": Architecture(swin_unet, _IMAGENET),
    "pixel-shuffle": Architecture(pixel_shuffle_unet, _UNIT),
    "fcn-8s": Architecture(published.fcn_8s, {"preprocessing": "caffe"}),
    "segnet-keras": Architecture(published.segnet_keras, _UNIT),
    "segnet-indices": Architecture(published.segnet_indices, {**_UNIT, **_LAYERS}),
    "basnet": Architecture(published.basnet, {**_IMAGENET, "output_name": "refined"}, single=True, output="refined"),
    "v-net": Architecture(published.v_net, _UNIT),
    "resunet-a": Architecture(published.resunet_a, _UNIT),
    "multires-unet": Architecture(published.multires_unet, _UNIT, single=True),
    "double-unet": Architecture(published.double_unet, _UNIT, single=True),
    "icnet": Architecture(published.icnet, _SIGNED),
    "erfnet": Architecture(published.erfnet, _UNIT),
    "espnet": Architecture(published.espnet, _UNIT),
    "lednet": Architecture(published.lednet, _UNIT),
    "ghostnet": Architecture(published.ghostnet_unet, _IMAGENET),
    "ddrnet": Architecture(published.ddrnet, _IMAGENET),
    "danet": Architecture(published.danet, _IMAGENET),
    "ocrnet": Architecture(published.ocrnet, {**_IMAGENET, "output_name": "final"}, output="final"),
    "unext": Architecture(published.unext, _UNIT),
    "mobilevit": Architecture(published.mobilevit_unet, _UNIT),
    "efficientnetv2": Architecture(published.efficientnet_v2, _BYTES),
    "resnet50": Architecture(published.resnet_50, {"preprocessing": "caffe"}),
    "mobilenet": Architecture(published.mobilenet_v1, _SIGNED),
    "densenet121": Architecture(published.densenet_121, {"preprocessing": "densenet121"}),
    "bcdu-net": Architecture(published.bcdu_net, _UNIT),
    "augmenting": Architecture(published.augmenting_unet, _BYTES),
    "bayesian": Architecture(published.bayesian_unet, _UNIT),
    "spectral-norm": Architecture(published.spectral_unet, _SIGNED),
    "standardized": Architecture(published.standardized_unet, {**_UNIT, **_LAYERS}),
}
"""By name."""

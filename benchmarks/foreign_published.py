"""More networks for ``foreign_models.py``: those of papers and tutorials, by the parts that set them apart."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from benchmarks.foreign_layers import PoolingWithIndices, StandardizedConv2D, Unpooling
from benchmarks.foreign_parts import CLASSES, attention, convolution, decode, encode, head, image_of, scale


def fcn_8s(side: int) -> Any:
    """Scores of three depths summed, a convolution as large as a dense layer, enlarged by 8."""
    image = image_of(side)
    features = []
    x = image
    for filters in (8, 12, 16, 24):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
        features.append(x)
    x = layers.Dropout(0.5)(layers.Conv2D(32, 7, padding="same", activation="relu")(x))
    x = layers.Conv2D(CLASSES, 1)(x)
    for skip in reversed(features[1:3]):
        x = layers.Conv2DTranspose(CLASSES, 4, strides=2, padding="same", use_bias=False)(x)
        x = layers.add([x, layers.Conv2D(CLASSES, 1)(skip)])
    return keras.Model(image, layers.Softmax()(scale(x, 4)))


def segnet_keras(side: int) -> Any:
    """SegNet as the package keras-segmentation has it: padding by layers, flattened scores."""
    image = image_of(side)
    x = image
    for filters in (8, 12, 16):
        x = layers.Conv2D(filters, 3, padding="valid")(layers.ZeroPadding2D((1, 1))(x))
        x = layers.MaxPooling2D((2, 2))(layers.Activation("relu")(layers.BatchNormalization()(x)))
    for filters in (16, 12, 8):
        x = layers.ZeroPadding2D((1, 1))(layers.UpSampling2D((2, 2))(x))
        x = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="valid")(x))
    x = layers.Conv2D(CLASSES, 3, padding="same")(x)
    return keras.Model(image, layers.Activation("softmax")(layers.Reshape((side * side, -1))(x)))


def segnet_indices(side: int) -> Any:
    """SegNet as published: values go back to the pixels they were pooled from, by layers of its own."""
    image = image_of(side)
    x, places = PoolingWithIndices()(convolution(image, 8))
    x = convolution(Unpooling()(convolution(x, 8), places), 8)
    return keras.Model(image, head(x))


def basnet(side: int) -> Any:
    """A prediction, and a second network that corrects it: one channel, eight outputs (here three)."""
    image = image_of(side)
    features = encode(image)
    x = decode(features)
    coarse = layers.Conv2D(1, 3, padding="same")(x)
    deep = scale(layers.Conv2D(1, 3, padding="same")(features[-1]), 4)
    y = convolution(coarse, 8)
    z = convolution(layers.MaxPooling2D(2)(y), 8)
    y = convolution(layers.Concatenate()([scale(z, 2), y]), 8)
    refined = layers.add([coarse, layers.Conv2D(1, 3, padding="same")(y)])
    named = {"refined": refined, "coarse": coarse, "deep": deep}
    return keras.Model(image, [layers.Activation("sigmoid", name=name)(x) for name, x in named.items()])


def v_net(side: int) -> Any:
    """Strided convolutions in place of pooling, residual stages, PReLU for each channel."""
    image = image_of(side)

    def activated(x: Any) -> Any:
        return layers.PReLU(shared_axes=[1, 2])(x)

    first = activated(
        layers.add([layers.Conv2D(8, 5, padding="same")(image), layers.Concatenate()([image] * 2 + [image[..., :2]])])
    )
    down = activated(layers.Conv2D(12, 2, strides=2)(first))
    y = layers.Conv2D(12, 5, padding="same")(down)
    down = activated(layers.add([y, down]))
    up = activated(layers.Conv2DTranspose(8, 2, strides=2)(down))
    joined = layers.Concatenate()([up, first])
    return keras.Model(image, head(activated(layers.add([layers.Conv2D(16, 5, padding="same")(joined), joined]))))


def resunet_a(side: int) -> Any:
    """Atrous branches that are summed, and pooling by pyramid with a split of channels."""
    image = image_of(side)

    def stage(x: Any, filters: int) -> Any:
        branches = [layers.Conv2D(filters, 1)(x)]
        for rate in (1, 3, 5):
            y = layers.Activation("relu")(layers.BatchNormalization()(x))
            branches.append(layers.Conv2D(filters, 3, padding="same", dilation_rate=rate)(y))
        return layers.add(branches)

    first = stage(layers.Conv2D(8, 1)(image), 8)
    x = stage(layers.Conv2D(12, 1, strides=2)(first), 12)
    pooled = [x]
    for factor, part in zip((2, 4), ops.split(x, 2, axis=-1), strict=True):
        pooled.append(scale(convolution(layers.MaxPooling2D(factor)(part), 6, 1), factor, "nearest"))
    x = convolution(layers.Concatenate()(pooled), 12, 1)
    return keras.Model(image, head(stage(layers.Concatenate()([scale(x, 2, "nearest"), first]), 8)))


def multires_unet(side: int) -> Any:
    """Three convolutions in a row whose results are concatenated, and paths of residuals for skips."""
    image = image_of(side)

    def block(x: Any, filters: int) -> Any:
        shortcut = convolution(x, 3 * filters, 1, activation="linear")
        found = []
        for _ in range(3):
            x = convolution(x, filters)
            found.append(x)
        x = layers.BatchNormalization()(layers.concatenate(found, axis=3))
        return layers.BatchNormalization()(layers.Activation("relu")(layers.add([shortcut, x])))

    first = block(image, 4)
    second = block(layers.MaxPooling2D()(first), 6)
    path = convolution(first, 8, 1, activation="linear")
    path = layers.Activation("relu")(layers.add([path, convolution(first, 8)]))
    x = layers.concatenate([layers.Conv2DTranspose(8, 2, strides=2, padding="same")(second), path], axis=3)
    return keras.Model(image, convolution(block(x, 4), 1, 1, activation="sigmoid"))


def double_unet(side: int) -> Any:
    """A second U-Net on the photo times the first's mask; squeeze-excite; both masks side by side merged."""
    image = image_of(side)

    def squeeze(x: Any) -> Any:
        weight = layers.Reshape((1, 1, x.shape[-1]))(layers.GlobalAveragePooling2D()(x))
        weight = layers.Dense(4, activation="relu", use_bias=False)(weight)
        return layers.multiply([x, layers.Dense(x.shape[-1], activation="sigmoid", use_bias=False)(weight)])

    first = layers.Conv2D(1, 1, activation="sigmoid")(squeeze(decode(encode(image))))
    second = squeeze(decode(encode(layers.multiply([image, first]), (8, 12))))
    second = layers.Conv2D(1, 1, activation="sigmoid")(second)
    return keras.Model(image, layers.Conv2D(1, 1, activation="sigmoid")(layers.Concatenate()([first, second])))


def icnet(side: int) -> Any:
    """The photo at three sizes, a network for each, fused from the smallest up; output at 1/4."""
    image = image_of(side)
    half = layers.Resizing(side // 2, side // 2)(image)
    quarter = layers.Resizing(side // 4, side // 4)(image)
    levels = []
    for x, steps in ((quarter, 1), (half, 2), (image, 2)):
        for _ in range(steps):
            x = convolution(x, 12, strides=2)
        levels.append(x)
    x = levels[0]
    for level in levels[1:]:
        factor = level.shape[1] // x.shape[1]
        x = layers.Conv2D(12, 3, padding="same", dilation_rate=2, use_bias=False)(scale(x, factor) if factor > 1 else x)
        x = layers.add([layers.BatchNormalization()(x), layers.BatchNormalization()(layers.Conv2D(12, 1)(level))])
        x = layers.Activation("relu")(x)
    return keras.Model(image, layers.Conv2D(CLASSES, 1)(x))


def erfnet(side: int) -> Any:
    """Convolutions of 3x1 and 1x3 with dilation along one axis, transposed convolutions at the end."""
    image = image_of(side)

    def factorized(x: Any, rate: int) -> Any:
        y = layers.Conv2D(x.shape[-1], (3, 1), padding="same", activation="relu")(x)
        y = layers.ReLU()(
            layers.BatchNormalization(epsilon=1e-3)(layers.Conv2D(x.shape[-1], (1, 3), padding="same")(y))
        )
        y = layers.Conv2D(x.shape[-1], (3, 1), padding="same", dilation_rate=(rate, 1), activation="relu")(y)
        y = layers.Conv2D(x.shape[-1], (1, 3), padding="same", dilation_rate=(1, rate))(y)
        return layers.ReLU()(layers.add([layers.Dropout(0.1)(layers.BatchNormalization()(y)), x]))

    def smaller(x: Any, filters: int) -> Any:
        y = layers.Conv2D(filters - x.shape[-1], 3, strides=2, padding="same")(x)
        return layers.ReLU()(layers.BatchNormalization()(layers.Concatenate()([y, layers.MaxPooling2D(2)(x)])))

    x = factorized(smaller(image, 12), 1)
    x = factorized(factorized(smaller(x, 20), 2), 4)
    x = layers.Conv2DTranspose(12, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(image, layers.Conv2DTranspose(CLASSES, 2, strides=2)(factorized(x, 1)))


def espnet(side: int) -> Any:
    """Dilated branches that are added one to the next before they are concatenated."""
    image = image_of(side)

    def pyramid(x: Any, strides: int = 1) -> Any:
        reduced = layers.Conv2D(5, 1 if strides == 1 else 3, strides=strides, padding="same", use_bias=False)(x)
        sums: list[Any] = []
        for rate in (1, 2, 4):
            y = layers.Conv2D(5, 3, padding="same", dilation_rate=rate, use_bias=False)(reduced)
            sums.append(layers.add([y, sums[-1]]) if sums else y)
        y = layers.Concatenate()(sums)
        if x.shape[-1] == y.shape[-1] and strides == 1:
            y = layers.add([x, y])
        return layers.PReLU(shared_axes=(1, 2))(layers.BatchNormalization()(y))

    first = convolution(image, 8, strides=2)
    x = pyramid(pyramid(layers.Concatenate()([first, layers.AveragePooling2D(3, strides=2, padding="same")(image)]), 2))
    x = layers.Conv2DTranspose(8, 2, strides=2, use_bias=False)(x)
    x = convolution(layers.Concatenate()([x, first]), 8)
    return keras.Model(image, layers.Conv2DTranspose(CLASSES, 2, strides=2)(x))


def lednet(side: int) -> Any:
    """Channels split in two, computed apart, and shuffled (ShuffleNet)."""
    image = image_of(side)

    def shuffled(x: Any) -> Any:
        left, right = ops.split(x, 2, axis=-1)
        left, right = convolution(left, 6, (3, 1)), convolution(right, 6, (1, 3))
        y = layers.ReLU()(layers.add([layers.Concatenate()([left, right]), x]))
        height, width, channels = y.shape[1:]
        y = layers.Permute((1, 2, 4, 3))(layers.Reshape((height, width, 2, channels // 2))(y))
        return layers.Reshape((height, width, channels))(y)

    x = shuffled(shuffled(convolution(convolution(image, 8, strides=2), 12, strides=2)))
    weight = scale(convolution(layers.AveragePooling2D(side // 4)(x), 12, 1), side // 4)
    return keras.Model(image, scale(layers.Conv2D(CLASSES, 1)(layers.add([shuffled(x), weight])), 4))


def ghostnet_unet(side: int) -> Any:
    """Half of the features from a convolution, half by a cheap depthwise one from these."""
    image = image_of(side)

    def ghost(x: Any, filters: int, strides: int = 1) -> Any:
        primary = convolution(x, filters // 2, 1 if strides == 1 else 3, strides=strides)
        cheap = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(primary)
        cheap = layers.ReLU()(layers.BatchNormalization()(cheap))
        return layers.Concatenate()([primary, cheap])

    features = [ghost(image, 8)]
    for filters in (12, 16):
        features.append(ghost(ghost(features[-1], filters, 2), filters))
    return keras.Model(image, head(decode(features)))


def ddrnet(side: int) -> Any:
    """A detailed and a coarse branch, and a pyramid of average pools of odd sizes that are enlarged and added."""
    image = image_of(side)
    detail = convolution(convolution(image, 8, strides=2), 12, strides=2)
    coarse = convolution(convolution(detail, 16, strides=2), 16)
    height = coarse.shape[1]
    found = [convolution(coarse, 8, 1)]
    for size, strides in ((3, 2), (5, 4)):
        y = layers.AveragePooling2D(size, strides=strides, padding="same")(coarse)
        y = layers.Resizing(height, height)(layers.Conv2D(8, 1)(layers.ReLU()(layers.BatchNormalization()(y))))
        found.append(convolution(layers.add([y, found[-1]]), 8))
    coarse = layers.add([convolution(layers.Concatenate()(found), 16, 1), coarse])
    x = layers.add([convolution(detail, 12), scale(layers.Conv2D(12, 1)(coarse), 2)])
    return keras.Model(image, layers.Conv2D(CLASSES, 1)(convolution(x, 16)))


def danet(side: int) -> Any:
    """Attention of every pixel to every pixel, and of every channel to every channel, by products of matrices."""
    image = image_of(side)
    x = encode(image, (8, 12, 16, 16))[-1]
    height, width, filters = x.shape[1:]
    flat = layers.Reshape((height * width, filters))(x)
    query, key = layers.Dense(4)(flat), layers.Dense(4)(flat)
    weights = layers.Softmax()(layers.Dot(axes=(2, 2))([query, key]))
    place = layers.Dot(axes=(2, 1))([weights, layers.Dense(filters)(flat)])
    weights = layers.Softmax()(layers.Dot(axes=(1, 1))([flat, flat]))
    channel = layers.Dot(axes=(2, 2))([flat, weights])
    both = layers.Reshape((height, width, filters))(layers.add([place, channel, flat]))
    return keras.Model(image, scale(layers.Conv2D(CLASSES, 1)(convolution(both, 16)), 8))


def ocrnet(side: int) -> Any:
    """What a class looks like, averaged over its pixels, given back to each pixel; two outputs."""
    image = image_of(side)
    x = encode(image)[-1]
    height, width, filters = x.shape[1:]
    coarse = layers.Conv2D(CLASSES, 1, name="coarse")(x)
    flat = layers.Reshape((height * width, filters))(x)
    regions = ops.softmax(layers.Reshape((height * width, CLASSES))(coarse), axis=1)
    objects = ops.matmul(ops.transpose(regions, (0, 2, 1)), flat)
    weights = ops.softmax(ops.matmul(layers.Dense(8)(flat), ops.transpose(layers.Dense(8)(objects), (0, 2, 1))))
    context = layers.Reshape((height, width, 8))(ops.matmul(weights, layers.Dense(8)(objects)))
    x = convolution(layers.Concatenate()([context, x]), 16, 1)
    return keras.Model(image, [coarse, layers.Conv2D(CLASSES, 1, name="final")(x)])


def unext(side: int) -> Any:
    """Dense layers on pixels that are shifted by channel, with a depthwise convolution between."""
    image = image_of(side)
    features = encode(image, (8, 12, 16))
    x = features[-1]
    parts = [ops.roll(part, move, axis=1) for part, move in zip(ops.split(x, 4, axis=-1), (-1, 0, 1, 2), strict=True)]
    y = layers.Dense(16)(layers.LayerNormalization()(layers.Concatenate()(parts)))
    y = layers.Activation("gelu")(layers.DepthwiseConv2D(3, padding="same")(y))
    features[-1] = layers.add([layers.Dense(16)(y), x])
    return keras.Model(image, head(decode(features)))


def mobilevit_unet(side: int) -> Any:
    """A transformer over the same pixel of every patch of 2x2, folded back."""
    image = image_of(side)
    features = encode(image, (8, 12, 16))
    x = convolution(features[-1], 16)
    height, width, filters = x.shape[1:]
    y = ops.reshape(x, (-1, height // 2, 2, width // 2, 2, filters))
    y = ops.reshape(ops.transpose(y, (0, 2, 4, 1, 3, 5)), (-1, height * width // 4, filters))
    y = attention(y)
    y = ops.reshape(y, (-1, 2, 2, height // 2, width // 2, filters))
    y = ops.reshape(ops.transpose(y, (0, 3, 1, 4, 2, 5)), (-1, height, width, filters))
    features[-1] = convolution(layers.Concatenate()([features[-1], convolution(y, 16, 1)]), 16)
    return keras.Model(image, head(decode(features)))


def _of_applications(model: Any, names: tuple[str, ...], factor: int = 2) -> Any:
    """An encoder of ``keras.applications``, from which features are taken, with a decoder."""
    x = decode([model.get_layer(name).output for name in names])
    return keras.Model(model.input, head(scale(x, factor, "nearest")))


def efficientnet_v2(side: int) -> Any:
    """keras.applications' EfficientNetV2B0 up to 1/8: fused blocks, its rescaling inside."""
    model = keras.applications.EfficientNetV2B0(include_top=False, weights=None, input_shape=(side, side, 3))
    return _of_applications(
        model, ("block1a_project_activation", "block2b_expand_activation", "block4a_expand_activation")
    )


def resnet_50(side: int) -> Any:
    """keras.applications' ResNet50 up to 1/4: convolutions with bias before BatchNormalization, caffe's colours."""
    model = keras.applications.ResNet50(include_top=False, weights=None, input_shape=(side, side, 3))
    return _of_applications(model, ("conv1_relu", "conv2_block1_out"))


def mobilenet_v1(side: int) -> Any:
    """keras.applications' MobileNet up to 1/8 at a quarter of its width."""
    model = keras.applications.MobileNet((side, side, 3), 0.25, include_top=False, weights=None)
    return _of_applications(model, ("conv_pw_1_relu", "conv_pw_3_relu", "conv_pw_5_relu"))


def densenet_121(side: int) -> Any:
    """keras.applications' DenseNet121 up to 1/4."""
    model = keras.applications.DenseNet121(include_top=False, weights=None, input_shape=(side, side, 3))
    return _of_applications(model, ("conv1_relu", "conv2_block3_concat"))


def bcdu_net(side: int) -> Any:
    """Skips and enlarged features as two steps of a convolutional LSTM."""
    image = image_of(side)
    skip, x = encode(image, (6, 8))
    x = layers.BatchNormalization()(layers.Conv2DTranspose(6, 2, strides=2)(x))
    steps = [layers.Reshape((1, side, side, 6))(value) for value in (skip, x)]
    x = layers.ConvLSTM2D(4, 3, padding="same")(layers.concatenate(steps, axis=1))
    return keras.Model(image, head(layers.Conv2D(8, 3, padding="same", activation="relu")(x)))


def augmenting_unet(side: int) -> Any:
    """Layers that change photos in training alone, as Keras' tutorials put them into the model."""
    image = image_of(side)
    x = layers.RandomContrast(0.2)(layers.Rescaling(1 / 255)(image))
    x = layers.GaussianNoise(0.05)(x)
    return keras.Model(image, head(layers.GaussianDropout(0.1)(decode(encode(x)))))


def bayesian_unet(side: int) -> Any:
    """Dropout that stays on: another mask each time."""
    image = image_of(side)
    x = decode(encode(image))
    return keras.Model(image, head(layers.Dropout(0.5)(x, training=True)))


def spectral_unet(side: int) -> Any:
    """Spectral normalisation around convolutions, as discriminators and SPADE have it."""
    image = image_of(side)
    x = layers.SpectralNormalization(layers.Conv2D(8, 3, padding="same"))(image)
    y = layers.SpectralNormalization(layers.Conv2D(12, 3, strides=2, padding="same"))(layers.LeakyReLU(0.2)(x))
    x = layers.Concatenate()([layers.UpSampling2D()(layers.LeakyReLU(0.2)(y)), x])
    return keras.Model(image, head(convolution(x, 8)))


def standardized_unet(side: int) -> Any:
    """Kernels that are standardised in each call, by a layer of its own, before GroupNormalization (BiT)."""
    image = image_of(side)
    settings = {"padding": "same", "use_bias": False}
    x = layers.ReLU()(layers.GroupNormalization(4)(StandardizedConv2D(8, 3, **settings)(image)))
    y = layers.ReLU()(layers.GroupNormalization(4)(StandardizedConv2D(12, 3, strides=2, **settings)(x)))
    return keras.Model(image, head(convolution(layers.Concatenate()([layers.UpSampling2D()(y), x]), 8)))

"""Layers of their own that two networks of ``foreign_published.py`` have: the file of ``--custom-objects``."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable("foreign")
class StandardizedConv2D(keras.layers.Conv2D):
    """A convolution whose kernel is brought to mean 0 and deviation 1 each time it is called, as in BiT."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        mean = ops.mean(kernel, axis=(0, 1, 2), keepdims=True)
        variance = ops.var(kernel, axis=(0, 1, 2), keepdims=True)
        return super().convolution_op(inputs, (kernel - mean) / ops.sqrt(variance + 1e-5))


@keras.saving.register_keras_serializable("foreign")
class PoolingWithIndices(keras.layers.Layer):
    """Largest of each 2x2 pixels, and where it was."""

    def call(self, inputs: Any) -> Any:
        return tf.nn.max_pool_with_argmax(inputs, 2, 2, "SAME", include_batch_in_index=True)

    def compute_output_spec(self, inputs: Any) -> Any:
        pooled = (inputs.shape[0], inputs.shape[1] // 2, inputs.shape[2] // 2, inputs.shape[3])
        return keras.KerasTensor(pooled, inputs.dtype), keras.KerasTensor(pooled, "int64")


@keras.saving.register_keras_serializable("foreign")
class Unpooling(keras.layers.Layer):
    """Each value back where it was, zeros elsewhere."""

    def call(self, values: Any, indices: Any) -> Any:
        shape = tf.shape(values)
        height, width, channels = 2 * values.shape[1], 2 * values.shape[2], values.shape[3]
        size = tf.cast(shape[0] * height * width * channels, tf.int64)
        flat = tf.scatter_nd(tf.reshape(indices, (-1, 1)), tf.reshape(values, (-1,)), tf.reshape(size, (1,)))
        return tf.reshape(flat, (-1, height, width, channels))

    def compute_output_spec(self, values: Any, indices: Any) -> Any:
        count, height, width, channels = values.shape
        return keras.KerasTensor((count, 2 * height, 2 * width, channels), values.dtype)

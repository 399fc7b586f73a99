"""Rounded kernels keep what a layer computes, and biases need no rounding: a flat neighbourhood becomes what it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from unet_export.formats.onnx_convert import build_onnx
from unet_export.formats.onnx_parts import patch_moments
from unet_export.transforms.rounding import (
    compensated,
    diffused,
    nearest_float16,
    rounded_integers,
    with_biases_of_float16,
)


def test_values_are_those_of_float16_and_sums_are_kept() -> None:
    kernels = np.random.default_rng(1).normal(0, 0.3, (16, 8, 3, 3)).astype(np.float32)
    rounded = diffused(kernels)
    assert rounded.dtype == np.float32
    assert (rounded == rounded.astype(np.float16)).all()
    assert np.abs(rounded - kernels).max() < 2e-3

    def error(values: np.ndarray) -> float:
        return float(
            np.abs(values.sum(axis=(2, 3), dtype=np.float64) - kernels.sum(axis=(2, 3), dtype=np.float64)).mean()
        )

    assert error(rounded) < 0.2 * error(kernels.astype(np.float16))


def test_inputs_that_go_along_with_each_other_make_up_for_errors() -> None:
    random = np.random.default_rng(3)
    inputs = random.normal(0, 1, (4000, 4)) @ random.normal(0, 1, (4, 64)) + random.normal(0, 0.05, (4000, 64))
    inputs = np.maximum(inputs, 0)
    inputs[:, 7] = 0  # a channel that is dead on these photos
    weights = random.normal(0, 1, (32, 64)).astype(np.float32)
    rounded = compensated(weights, inputs.T @ inputs / len(inputs), nearest_float16)
    assert (rounded == rounded.astype(np.float16)).all()

    def error(values: np.ndarray) -> float:
        return float(np.square(inputs @ (values - weights).T.astype(np.float64)).mean())

    assert error(rounded) < 0.2 * error(weights.astype(np.float16))
    assert np.abs(rounded - weights).max() < 0.05


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((6, 12, 1, 1), {}),
        ((6, 12, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((6, 12, 3, 3), {"pads": [0, 0, 1, 1], "strides": [2, 2]}),
        ((12, 1, 5, 5), {"pads": [2, 2, 2, 2], "group": 12}),
    ],
    ids=["1x1", "3x3", "stride", "depthwise"],
)
def test_integer_kernels_keep_what_a_convolution_computes(shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    random = np.random.default_rng(5)
    photo = np.maximum(random.normal(0.5, 0.3, (1, 12, 1, 1)) + random.normal(0, 0.1, (1, 12, 20, 20)), 0)
    photo = photo.astype(np.float32)
    kernel = random.normal(0, 1, shape).astype(np.float32)
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], **attributes)

    def convolved(weights: Any) -> Any:
        value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, photo.shape)
        result = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
        constant = numpy_helper.from_array(weights.astype(np.float32), "w")
        proto = onnx.helper.make_model(
            onnx.helper.make_graph([node], "g", [value], [result], [constant]),
            opset_imports=[onnx.helper.make_opsetid("", 17)],
            ir_version=8,
        )
        return onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"x": photo})[0]

    measure = patch_moments(node, shape)
    assert measure is not None
    seen = measure(photo)
    steps = np.abs(kernel).reshape(len(kernel), -1).max(axis=1).astype(np.float64) / 7  # 4 bits: errors to be seen
    grid = steps.reshape(*seen.shape[:-2], -1)
    weights = kernel.reshape(*grid.shape, -1)
    squares = np.einsum("...oi,...ij,...oj->...o", weights, seen, weights).reshape(-1)
    np.testing.assert_allclose(squares, np.square(convolved(kernel)[0]).mean(axis=(1, 2)), rtol=1e-4)
    counts = rounded_integers(weights, seen, grid, 7).reshape(shape)
    assert np.abs(counts).max() <= 7
    columns = steps.reshape(-1, 1, 1, 1)

    def error(integers: Any) -> float:
        return float(np.square(convolved(integers * columns) - convolved(kernel)).mean())

    assert error(counts) < 0.6 * error(np.rint(kernel / columns))


def test_what_is_not_rounded_so() -> None:
    for shape, attributes in (
        ((8, 4, 3, 3), {"group": 2}),
        ((8, 512, 3, 3), {}),
        ((8, 4, 3, 3), {"dilations": [2, 2]}),
    ):
        assert patch_moments(onnx.helper.make_node("Conv", ["x", "w"], ["y"], **attributes), shape) is None


def test_what_float16_can_hold_is_left_alone() -> None:
    kernels = np.random.default_rng(2).normal(0, 1, (2, 2, 5, 5)).astype(np.float16).astype(np.float32)
    assert (diffused(kernels) == kernels).all()


def rounding_error(model: Any) -> dict[str, float]:
    """What float16 changes in each bias of the exported graph, relative to the largest of its layer; less the head."""
    proto = build_onnx(model, "m")
    weights = {entry.name: numpy_helper.to_array(entry) for entry in proto.graph.initializer}
    biases = {
        node.name: weights[node.input[2]].astype(np.float64)
        for node in proto.graph.node
        if node.op_type in ("Conv", "ConvTranspose") and node.name != "logits"
    }
    assert len(biases) > 4
    return {
        name: float(np.abs(bias - bias.astype(np.float16)).max() / np.abs(bias).max()) for name, bias in biases.items()
    }


def test_biases_become_values_of_float16_in_a_model_that_predicts_the_same(model: Any, images: Any) -> None:
    copy = with_biases_of_float16(model)
    np.testing.assert_allclose(copy(images, training=False), model(images, training=False), atol=1e-5)
    assert max(rounding_error(model).values()) > 5e-5
    assert max(rounding_error(copy).values()) < 3e-7  # what float32 leaves

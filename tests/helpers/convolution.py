"""A network of one convolution, as an ONNX model: its right output is known for photos of any size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.helpers.colours import colour_spec
from unet_runtime import ModelSpec
from unet_runtime.core.artifact import append_to_onnx
from unet_runtime.core.spec import InputSpec, OutputSpec

SIDE = 16
KERNELS = np.random.default_rng(5).normal(0, 4, (3, 3, 3, 3)).astype(np.float32)
"""(class, colour, row, column) of a 3x3 convolution."""


def convolution_spec(margin: int, side: int = SIDE) -> ModelSpec:
    output = OutputSpec(side - 2 * margin, side - 2 * margin)
    return replace(colour_spec(side), input=InputSpec(side, side, margin=margin), output=output)


def write_convolution(path: Path, spec: ModelSpec, batch: int | str = "batch") -> Path:
    """softmax(3x3 convolution of RGB / 255): padded with zeros where the spec has no margin, else unpadded."""
    side, valid = spec.input.height, spec.output.height
    pad = 1 - spec.input.margin
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "scale"], ["scaled"]),
        helper.make_node("Transpose", ["scaled"], ["nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "kernels"], ["features"], pads=[pad] * 4),
        helper.make_node("Transpose", ["features"], ["logits"], perm=[0, 2, 3, 1]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "convolution",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, side, side, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, valid, valid, 3])],
        [
            helper.make_tensor("scale", TensorProto.FLOAT, [], [1 / 255]),
            helper.make_tensor("kernels", TensorProto.FLOAT, KERNELS.shape, KERNELS.ravel().tolist()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    path.write_bytes(append_to_onnx(model.SerializeToString(), spec))
    return path

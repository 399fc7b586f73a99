"""A model whose right output is known by looking: the class of a pixel is its strongest colour."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from unet_runtime.core.artifact import append_to_onnx
from unet_runtime.core.datasets.oxford_pets import CLASSES
from unet_runtime.core.spec import ClassSpec, InputSpec, ModelSpec, OutputSpec


def colour_spec(size: int = 32, fit: str = "stretch", width: int | None = None) -> ModelSpec:
    """Spec of ``write_colour_model``: red is foreground, green background, blue neutral."""
    return ModelSpec(
        name="colours",
        architecture="none",
        license="CC0-1.0",
        input=InputSpec(size, width or size, fit=fit),
        output=OutputSpec(size, width or size),
        classes=(
            ClassSpec("red", (255, 0, 0), "foreground"),
            ClassSpec("green", (0, 255, 0), "background"),
            ClassSpec("blue", (0, 0, 255), "neutral"),
        ),
    )


def pet_colour_spec(size: int = 32, fit: str = "stretch") -> ModelSpec:
    """As ``colour_spec``, with Oxford-IIIT Pet's classes: red is pet, green background, blue border."""
    return replace(colour_spec(size, fit), classes=CLASSES)


def write_colour_model(path: Path, spec: ModelSpec) -> Path:
    """Write ``colour_model_bytes`` with its spec."""
    path.write_bytes(append_to_onnx(colour_model_bytes(spec), spec))
    return path


def colour_model_bytes(spec: ModelSpec) -> bytes:
    """An ONNX model whose class is each pixel's strongest colour channel: softmax(RGB / 10)."""
    shape = ["batch", spec.input.height, spec.input.width, 3]
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["float", "tenth"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape)],
        [helper.make_tensor("tenth", TensorProto.FLOAT, [], [0.1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString()
    return serialized

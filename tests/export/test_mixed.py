"""Mixed files: normalisations that measure a deviation compute in float, where 8 bits fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.helpers import discs
from tests.helpers.foreign import Network
from unet_export.formats import FORMATS, Builder, format_named
from unet_export.formats.onnx_model import load_onnx
from unet_export.gate.gate import GATES, EngineResult, ParityResult
from unet_export.gate.runners import keras_runner
from unet_export.photos import PhotoSource, choose_photos
from unet_export.repair import repair
from unet_export.report.report import table
from unet_runtime import Segmenter
from unet_runtime.core.artifact import append_to_onnx, read_artifact
from unet_runtime.core.datasets.classes import named_classes
from unet_runtime.core.spec import InputSpec, ModelSpec, OutputSpec

MATRIX = np.array([[0, 4, -4], [-1, -2, -1], [0, -4, 4]], np.float32)
"""(colours, classes): background is dull, red is red, blue is blue."""


def keras_network() -> Any:
    """Each channel less its mean, through its own deviation; then a class by colour."""
    image = keras.Input((discs.SIDE, discs.SIDE, 3), dtype="uint8", name="image")
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Conv2D(3, 1, name="mix")(x)
    x = keras.layers.GroupNormalization(-1, name="norm")(x)
    x = keras.layers.Conv2D(3, 1, name="classes")(x)
    network = keras.Model(image, keras.layers.Conv2D(3, 1, activation="softmax", name="head")(x))
    for name, kernel in (("mix", np.eye(3)), ("classes", MATRIX), ("head", 3 * np.eye(3))):
        network.get_layer(name).set_weights([kernel.reshape(1, 1, 3, 3), np.zeros(3)])
    return network


def onnx_network() -> bytes:
    """The same as another tool writes it: NCHW, one operator for the normalisation, logits."""
    nodes = [
        helper.make_node("Conv", ["pixels", "eye"], ["mixed"], name="/mix"),
        helper.make_node("InstanceNormalization", ["mixed", "one", "zero"], ["even"], name="/norm"),
        helper.make_node("Conv", ["even", "matrix"], ["classes"], name="/classes"),
        helper.make_node("Conv", ["classes", "head"], ["out"], name="/head"),
    ]
    shape = [1, 3, discs.SIDE, discs.SIDE]
    constants = {
        "eye": np.eye(3).reshape(3, 3, 1, 1),
        "matrix": MATRIX.T.reshape(3, 3, 1, 1),
        "head": 3 * np.eye(3).reshape(3, 3, 1, 1),
        "one": np.ones(3),
        "zero": np.zeros(3),
    }
    graph = helper.make_graph(
        nodes,
        "theirs",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def spec_of(content: InputSpec) -> ModelSpec:
    spec = Network().spec()
    classes = named_classes(list(discs.CLASSES))
    spec = replace(spec, input=content, output=OutputSpec(discs.SIDE, discs.SIDE), classes=classes)
    return replace(spec, provenance=replace(spec.provenance, recipe={}))


def sources(tmp_path: Path, kind: str) -> tuple[Any, ModelSpec]:
    if kind == "Keras":
        return keras_network(), spec_of(InputSpec(discs.SIDE, discs.SIDE))
    given = InputSpec(discs.SIDE, discs.SIDE, dtype="float32", layout="nchw", range=(0.0, 1.0))
    spec = replace(spec_of(given), output=OutputSpec(discs.SIDE, discs.SIDE, layout="nchw", logits=True))
    spec = replace(spec, provenance=replace(spec.provenance, recipe={"adopted_from": "a test"}))
    path = tmp_path / "theirs.onnx"
    path.write_bytes(append_to_onnx(onnx_network(), spec))
    return load_onnx(path)


@pytest.mark.parametrize(("kind", "name"), [("Keras", "onnx-int8"), ("ONNX", "onnx-int8"), ("Keras", "tflite-int8")])
def test_normalisations_in_float_repair_a_file(kind: str, name: str, tmp_path: Path) -> None:
    model, spec = sources(tmp_path, kind)
    calibration, parity = discs.folder(tmp_path / "a", 10, 2000), discs.folder(tmp_path / "b", 10, 500)
    photos = choose_photos(PhotoSource(calibration=calibration, parity=parity), spec)
    builder = Builder(model, spec, photos, tmp_path / "work")
    form = FORMATS[name]
    path = tmp_path / form.file_name(spec)
    path.write_bytes(b"whatever failed")
    failed = EngineResult("onnx", "cpu", "ONNX Runtime", None, failures=("agreement 50.000%, at least 99.00%",))
    gate = replace(GATES["int8"], agreement=0.9, iou_drop=20, class_drop=20)  # the network knows little
    result = ParityResult(name, "int8", path, 1, "", gate, (failed,), {})
    repaired = repair(result, builder, keras_runner(model), photos.parity, spec)
    assert (repaired.passed, repaired.precision) == (True, "mixed"), repaired.failures
    assert repaired.path.name == format_named(repaired.format).file_name(spec)
    assert repaired.path.name == path.name.replace(".int8.", ".mixed.")
    assert not path.exists()
    found = read_artifact(repaired.path).spec
    assert found.precision == "mixed"
    assert found.provenance.quantization["float"]
    if name == "onnx-int8":
        proto = onnx.load_from_string(repaired.path.read_bytes())
        makers = {tensor: node for node in proto.graph.node for tensor in node.output}
        products = [node for node in proto.graph.node if node.op_type == "Conv"]
        integers = [
            node for node in products if getattr(makers.get(node.input[1]), "op_type", "") == "DequantizeLinear"
        ]
        assert len(integers) >= 1
    assert f"{repaired.path.name}: computes in float, with a conversion before and behind each" in table([repaired])


def test_what_goes_on_from_a_float_operator_is_float(tmp_path: Path) -> None:
    """Mish: 8 bits between exp and log would lose everything near 0."""
    image = keras.Input((discs.SIDE, discs.SIDE, 3), dtype="uint8", name="image")
    x = keras.layers.Conv2D(3, 1, name="wide", use_bias=False)(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Activation("mish", name="mish")(x)
    network = keras.Model(image, keras.layers.Conv2D(3, 1, activation="softmax", name="head")(x))
    network.get_layer("wide").set_weights([np.array([[9, 0, 0], [0, 0.5, 0], [0, 0, 0.5]]).reshape(1, 1, 3, 3)])
    network.get_layer("head").set_weights([np.diag([1, 9, 9]).reshape(1, 1, 3, 3), np.zeros(3)])
    spec = spec_of(InputSpec(discs.SIDE, discs.SIDE))
    calibration, parity = discs.folder(tmp_path / "a", 4, 1), discs.folder(tmp_path / "b", 2, 500)
    photos = choose_photos(PhotoSource(calibration=calibration, parity=parity), spec)
    builder = Builder(network, spec, photos, tmp_path / "work")
    form = FORMATS["tflite-int8"].mixed
    assert form is not None
    path = tmp_path / form.file_name(spec)
    builder.write(form, path, form.quantization)
    found = read_artifact(path).spec.provenance.quantization["float"]
    assert found == {"EXP": 1, "ADD": 1, "LOG": 1, "TANH": 1}
    images = builder.images(4)
    made = Segmenter(path, backend="tflite").infer(images)
    assert np.abs(made - network(images, training=False).numpy()).max() < 0.1

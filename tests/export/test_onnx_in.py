"""An adopted ONNX file as the source of an export: the same network in each precision, photos in, probabilities out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

from tests.export.test_adopt import TORCH, TORCH_CHOICES
from tests.helpers import discs
from tests.helpers.foreign import IMAGENET, SIDE, Network
from unet_export import ExportOptions, PhotoSource, export_model
from unet_export.adopt.adopt import adopt
from unet_export.cli.command import command
from unet_export.errors import ExportError
from unet_export.formats.onnx_model import load_onnx
from unet_runtime import ModelFileError, Segmenter
from unet_runtime.core.artifact import append_to_onnx, read_artifact
from unet_runtime.core.spec import ModelSpec

MEAN = {"range": (0.0, 1.0), "mean": IMAGENET[0], "std": IMAGENET[1]}

NETWORKS: dict[str, tuple[Network, dict[str, Any]]] = {
    "PyTorch": (Network(), MEAN),
    "BGR": (Network(), {"channels": "bgr", "mean": (103.939, 116.779, 123.68), "std": (60.0, 60.0, 60.0)}),
    "one factor": (Network(activation="softmax"), {"range": (0.0, 1.0)}),
    "NHWC": (Network("nhwc", activation="softmax"), {"range": (-1.0, 1.0)}),
    "uint8": (Network(dtype="uint8"), {}),
    "grey": (Network(depth=1), {"range": (0.0, 1.0), "channels": "grey"}),
    "mask": (Network(channels=1, activation="sigmoid"), MEAN),
    "mask, logit": (Network(channels=1), MEAN),
    "sigmoid": (Network(channels=4, activation="sigmoid"), MEAN),
    "labels": (Network(activation="argmax"), MEAN),
    "a quarter": (Network(pool=4), MEAN),
    "the second output": (Network(second=True), MEAN),
    "batch of 1": (Network(batch=1), MEAN),
    "any size": (Network(size=("h", "w")), MEAN),
}


def spec_of(network: Network, **fields: Any) -> ModelSpec:
    spec = network.spec(**fields)
    return replace(spec, provenance=replace(spec.provenance, recipe={"adopted_from": "a test"}))


def written(path: Path, network: Network, **fields: Any) -> Path:
    path.write_bytes(append_to_onnx(network.onnx(), spec_of(network, **fields)))
    return path


@pytest.mark.parametrize("name", NETWORKS)
def test_the_rewritten_graph_is_the_same_network(name: str, tmp_path: Path) -> None:
    network, fields = NETWORKS[name]
    path = written(tmp_path / "theirs.onnx", network, **fields)
    model, spec = load_onnx(path)
    assert spec.is_plain
    graph = model.graph
    images = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {"image": images})
    expected = network.expected(images, read_artifact(path).spec.input)
    if network.activation == "argmax":
        assert (found == expected).mean() > 0.999
    else:
        np.testing.assert_allclose(found, expected, atol=2e-5)
    np.testing.assert_allclose(model(images).numpy(), expected, atol=1 if network.activation == "argmax" else 2e-5)
    assert graph.SerializeToString(deterministic=True) == load_onnx(path)[0].graph.SerializeToString(deterministic=True)
    assert model.count_params() >= network.depth * network.channels


def test_a_unet_of_torch_becomes_float16_and_int8(tmp_path: Path) -> None:
    """BatchNormalization fused, mean and std inside; each file proven against the adopted one and measured."""
    adopted = adopt(TORCH, TORCH_CHOICES, tmp_path / "adopted").path
    calibration = discs.folder(tmp_path / "calibration", 12, 2000)
    parity = discs.folder(tmp_path / "parity", 12, 500)
    names = ("onnx", "onnx-float16", "onnx-int8")
    source = PhotoSource(calibration=calibration, parity=parity)
    results = export_model(adopted, source, tmp_path / "out", ExportOptions(formats=names))
    assert [result.path.name for result in results] == [
        "torch-unet-64.float32.onnx",
        "torch-unet-64.float16.onnx",
        "torch-unet-64.int8.onnx",
    ]
    picture, labels = discs.draw(900)
    for result in results:
        assert result.passed, result.failures
        segmenter = Segmenter(result.path)
        assert segmenter.spec.is_plain
        assert segmenter.spec.provenance.weights_sha256 == read_artifact(adopted).spec.provenance.weights_sha256
        assert (segmenter(picture).mask == labels).mean() > 0.98
    graph = onnx.load(results[0].path).graph
    assert not any(node.op_type == "BatchNormalization" for node in graph.node)
    assert results[2].size < results[0].size
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["passed"]


def test_what_needs_keras_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = written(tmp_path / "theirs.onnx", Network(), **MEAN)
    words = [str(path), "--calibration", str(tmp_path), "--parity", str(tmp_path), "-o", str(tmp_path / "out")]
    for extra, message in (
        (["--formats", "onnx,tflite-int8,saved-model"], "tflite-int8, saved-model: made of a Keras model alone"),
        (["--dynamic"], "--dynamic needs a Keras model"),
        (["--labels"], "--labels needs a Keras model"),
    ):
        done = CliRunner().invoke(command, [*words, *extra])
        assert isinstance(done.exception, ExportError), done.output
        assert message in str(done.exception)
    quantization = load_onnx(path)[0]
    from unet_export.quantization import Quantization

    with pytest.raises(ExportError, match="the source is an ONNX file"):
        quantization.variant(Quantization(equalized=True))


def test_what_is_no_source(tmp_path: Path) -> None:
    plain = tmp_path / "plain.onnx"
    plain.write_bytes(Network().onnx())
    with pytest.raises(ModelFileError, match="If another tool made it, give it a spec first"):
        load_onnx(plain)
    half = written(tmp_path / "half.onnx", Network(), **MEAN)
    half.write_bytes(append_to_onnx(Network().onnx(), replace(spec_of(Network(), **MEAN), precision="float16")))
    with pytest.raises(ExportError, match="is float16 already, expected float32"):
        load_onnx(half)
    four = written(tmp_path / "four.onnx", Network(batch=4), **MEAN)
    with pytest.raises(ExportError, match="takes 4 pictures at a time"):
        _ = load_onnx(four)[0].graph
    ours = tmp_path / "ours.onnx"
    ours.write_bytes(append_to_onnx(Network().onnx(), Network().spec(**MEAN)))
    with pytest.raises(ExportError, match="was made by unet-export of a Keras model"):
        load_onnx(ours)

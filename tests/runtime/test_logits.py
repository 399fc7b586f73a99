"""A file may end with logits: the runtime makes probabilities of them, whatever the engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.helpers.colours import colour_model_bytes, colour_spec, write_colour_model
from unet_runtime import ModelFileError, Segmenter
from unet_runtime.core.artifact import append_to_onnx
from unet_runtime.core.masks import activated
from unet_runtime.core.spec import Activation, ModelSpec


def logit_spec(activation: Activation = "softmax") -> ModelSpec:
    spec = colour_spec()
    return replace(spec, output=replace(spec.output, activation=activation, logits=True))


@pytest.fixture
def logit_model(tmp_path: Path) -> Path:
    """The colour model without its softmax."""
    model = onnx.load_from_string(colour_model_bytes(colour_spec()))
    del model.graph.node[-1], model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 32, 32, 3]))
    path = tmp_path / "logits.onnx"
    path.write_bytes(append_to_onnx(model.SerializeToString(), logit_spec()))
    return path


@pytest.mark.parametrize("classes", [2, 3, 21])
@pytest.mark.parametrize("offset", [0, 500, -500])
def test_a_softmax_is_what_it_is_in_float64(classes: int, offset: float) -> None:
    logits = np.random.default_rng(0).normal(offset, 5, (2, 7, 5, classes)).astype(np.float32)
    exact = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    exact /= exact.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(activated(logits, logit_spec()), exact, atol=1e-6)


def test_a_sigmoid_never_overflows() -> None:
    logits = np.array([[[[-2000.0, 0.0, 2000.0]]]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_allclose(activated(logits, logit_spec("sigmoid")), [[[[0, 0.5, 1]]]], atol=1e-6)


def test_probabilities_are_left_as_they_are() -> None:
    probabilities = np.full((1, 2, 2, 3), 1 / 3, np.float32)
    assert activated(probabilities, colour_spec()) is probabilities


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_a_file_of_logits_gives_the_same_result_as_one_of_probabilities(
    logit_model: Path, tmp_path: Path, stripes: np.ndarray, backend: str
) -> None:
    whole = write_colour_model(tmp_path / "whole.onnx", colour_spec())
    one = Segmenter(logit_model, backend=backend)(stripes)
    other = Segmenter(whole, backend=backend)(stripes)
    np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
    np.testing.assert_array_equal(one.mask, other.mask)


def test_a_file_of_logits_that_does_not_say_so_is_refused(logit_model: Path, stripes: np.ndarray) -> None:
    model = onnx.load_from_string(logit_model.read_bytes())
    del model.metadata_props[:]
    logit_model.write_bytes(append_to_onnx(model.SerializeToString(), colour_spec()))
    with pytest.raises(ModelFileError, match="expected probabilities"):
        Segmenter(logit_model)(stripes)


def test_the_spec_keeps_it_and_earlier_schemas_have_none() -> None:
    spec = logit_spec()
    assert ModelSpec.from_json(spec.to_json()) == spec
    text = colour_spec().to_json().replace('"logits":false,', "").replace('"schema":6', '"schema":3')
    assert "logits" not in text
    assert not ModelSpec.from_json(text).output.logits
    with pytest.raises(ModelFileError, match=r"output\.logits is 1, expected true or false"):
        ModelSpec.from_json(spec.to_json().replace('"logits":true', '"logits":1'))

"""float16 and int8 from the float32 graph: what they say they are, the same bytes, close to the model."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from tests.helpers.tiny import SIZE
from unet_export.errors import ExportError
from unet_export.formats.onnx_convert import build_onnx, finish
from unet_export.formats.onnx_float16 import check_stored, store_float16, to_float16
from unet_export.formats.onnx_graph import nodes_of
from unet_export.formats.onnx_parts import head_layers
from unet_export.formats.onnx_reduced import check_quantized, quantize
from unet_export.quantization import METHODS, Quantization
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.spec import ModelSpec
from unet_runtime.engines import load
from unet_training.models import canet, residual

HEAD = Quantization(weight_bits=7)


def run(proto: onnx.ModelProto, images: Any) -> list[Any]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})


def simulated(proto: onnx.ModelProto, images: Any) -> Any:
    """In float32, every Quantize and Dequantize by itself: what the file says, whatever the kernels do."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"image": images})[0]


@pytest.fixture(scope="module")
def plain(model: Any) -> onnx.ModelProto:
    return build_onnx(model, "tiny")


@pytest.fixture(scope="module")
def expected(plain: onnx.ModelProto, images: Any) -> Any:
    return run(plain, images)[0]


@pytest.fixture(scope="module")
def int8(plain: onnx.ModelProto, images: Any) -> onnx.ModelProto:
    return quantize(plain, images, HEAD)


# --- float16 ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def half(plain: onnx.ModelProto, images: Any) -> onnx.ModelProto:
    return to_float16(plain, images)


@pytest.fixture(scope="module")
def stored(plain: onnx.ModelProto, images: Any) -> onnx.ModelProto:
    return store_float16(plain, images)


def test_float16_is_half_the_size_and_casts_once_down_and_once_up(
    plain: onnx.ModelProto, half: onnx.ModelProto
) -> None:
    types = {entry.name: entry.data_type for entry in half.graph.initializer}
    names = set(nodes_of(plain, ["logits"]))
    head = {name for node in half.graph.node if node.name in names for name in node.input[1:]}
    assert {name for name, kind in types.items() if kind == onnx.TensorProto.FLOAT} == head
    casts = [node.attribute[0].i for node in half.graph.node if node.op_type == "Cast"]
    assert casts == [onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT]  # the photo down, before the head up
    ends = [value.type.tensor_type.elem_type for value in (*half.graph.input, *half.graph.output)]
    assert ends == [onnx.TensorProto.UINT8, onnx.TensorProto.FLOAT]
    assert half.ByteSize() < 0.6 * plain.ByteSize()
    assert plain.graph.initializer[0].data_type == onnx.TensorProto.FLOAT  # the argument is left alone


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
@pytest.mark.parametrize("precision", ["float16", "float16-weights"])
def test_float16_runs_and_is_close(
    request: pytest.FixtureRequest,
    spec: ModelSpec,
    images: Any,
    expected: Any,
    tmp_path: Path,
    backend: str,
    precision: Any,
) -> None:
    pytest.importorskip(backend.replace("onnx", "onnxruntime"))
    proto = request.getfixturevalue("half" if precision == "float16" else "stored")
    (tmp_path / "tiny.onnx").write_bytes(finish(proto, spec, precision))
    actual = load(backend, read_artifact(tmp_path / "tiny.onnx"), device="cpu").run(images)
    assert actual.dtype == np.float32
    assert 0 < np.abs(actual - expected).max() < 5e-3
    assert (actual.argmax(-1) == expected.argmax(-1)).mean() > 0.999


def test_float16_kernels_keep_their_sums(plain: onnx.ModelProto, half: onnx.ModelProto) -> None:
    def kernels(proto: onnx.ModelProto, name: str) -> Any:
        node = next(node for node in proto.graph.node if node.name == name)
        entry = next(entry for entry in proto.graph.initializer if entry.name == node.input[1])
        return onnx.numpy_helper.to_array(entry).astype(np.float64)

    for name in ("encoder2_conv_a", "bridge_conv_b", "decoder1_conv_a"):
        before, after = kernels(plain, name), kernels(half, name)
        error = np.abs((after - before).sum(axis=(2, 3))).mean()
        rounding = np.abs((before.astype(np.float16) - before).sum(axis=(2, 3))).mean()
        assert error < rounding / 3


def louder(plain: onnx.ModelProto, layer: str, factor: float) -> onnx.ModelProto:
    """The graph with a kernel multiplied."""
    loud = onnx.ModelProto()
    loud.CopyFrom(plain)
    entry = next(entry for entry in loud.graph.initializer if entry.name == f"{layer}_input1")
    entry.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(entry) * np.float32(factor), entry.name))
    return loud


def test_a_weight_beyond_float16_is_refused(plain: onnx.ModelProto, images: Any) -> None:
    with pytest.raises(ExportError, match=r"encoder1_conv_a_input1 reaches .*float16 ends at 65504"):
        to_float16(louder(plain, "encoder1_conv_a", 1e6), images)


def test_the_first_layers_stay_float32_where_float16_differs_too_much(
    plain: onnx.ModelProto, images: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A head that is sure of itself makes much of every rounding before it."""
    sure = louder(plain, "logits", 50)
    caplog.set_level("INFO")
    made = to_float16(sure, images)
    steps = [record.args for record in caplog.records if record.name.endswith("onnx_float16")]
    assert steps[0][0] == 1
    first = steps[-1][0]
    types = {entry.name: entry.data_type for entry in made.graph.initializer}
    layers = [node for node in made.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    wide = [types[node.input[1]] == onnx.TensorProto.FLOAT for node in layers]
    assert wide == first * [True] + (len(layers) - first - 1) * [False] + [True]  # the head too


# --- float16 as storage ----------------------------------------------------------------------------


def test_stored_float16_is_half_the_size_and_computes_in_float32(
    plain: onnx.ModelProto, stored: onnx.ModelProto
) -> None:
    types = {entry.name: entry.data_type for entry in stored.graph.initializer}
    for node in stored.graph.node:
        if node.op_type != "Cast":
            assert onnx.TensorProto.FLOAT16 not in map(types.get, node.input)
    halves = [name for name, kind in types.items() if kind == onnx.TensorProto.FLOAT16]
    assert len([node for node in stored.graph.node if node.op_type == "Cast"]) == 1 + len(halves)
    sizes = {entry.name: np.prod(entry.dims) for entry in plain.graph.initializer if len(entry.dims) > 1}
    assert sum(sizes[name.removesuffix("_float16")] for name in halves) >= 0.95 * sum(sizes.values())
    assert stored.ByteSize() < 0.65 * plain.ByteSize()
    assert plain.graph.initializer[0].data_type == onnx.TensorProto.FLOAT  # the argument is left alone
    check_stored(stored)


def test_stored_float16_is_closer_than_plain_rounding(
    plain: onnx.ModelProto, stored: onnx.ModelProto, images: Any, expected: Any
) -> None:
    rounded = onnx.ModelProto()
    rounded.CopyFrom(plain)
    for entry in rounded.graph.initializer:
        if len(entry.dims) > 1:
            values = onnx.numpy_helper.to_array(entry).astype(np.float16).astype(np.float32)
            entry.CopyFrom(onnx.numpy_helper.from_array(values, entry.name))
    errors = [np.square(run(proto, images)[0] - expected).mean() for proto in (stored, rounded)]
    assert errors[0] < errors[1]


def test_a_kernel_that_two_layers_share_is_stored_once(images: Any) -> None:
    image = keras.Input((SIZE, SIZE, 3), dtype="uint8", name="image")
    shared = keras.layers.Conv2D(8, 3, padding="same", name="shared")
    x = keras.layers.Conv2D(8, 3, padding="same", name="first")(keras.layers.Rescaling(1 / 255)(image))
    x = keras.layers.Conv2D(3, 1, activation="softmax", name="head")(shared(keras.layers.ReLU()(shared(x))))
    made = store_float16(build_onnx(keras.Model(image, x), "twice"), images)
    readers = [node.input[1] for node in made.graph.node if node.name.startswith("shared") and node.op_type == "Conv"]
    assert len(readers) == 2
    assert len(set(readers)) == 1
    onnx.checker.check_model(made, full_check=True)


def test_what_float16_cannot_hold_stays_float32_and_is_said(plain: onnx.ModelProto, images: Any) -> None:
    made = store_float16(louder(plain, "bridge_conv_b", 1e7), images)
    assert "bridge_conv_b_input1" in {entry.name for entry in made.graph.initializer}
    with pytest.raises(ExportError, match=r"weights are float32: beyond the range of float16, ±65504"):
        check_stored(made)


def test_arithmetic_in_float16_is_no_storage(half: onnx.ModelProto) -> None:
    with pytest.raises(ExportError, match=r"encoder1_conv_a.*computes in float16, expected float32"):
        check_stored(half)


# --- int8 ------------------------------------------------------------------------------------------


def test_the_head_is_found(plain: onnx.ModelProto) -> None:
    assert head_layers(plain) == ("logits",)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_int8_runs_and_agrees(
    int8: onnx.ModelProto, spec: ModelSpec, images: Any, expected: Any, tmp_path: Path, backend: str
) -> None:
    pytest.importorskip(backend.replace("onnx", "onnxruntime"))
    (tmp_path / "tiny.onnx").write_bytes(finish(int8, spec, "int8", quantization=HEAD.as_dict()))
    actual = load(backend, read_artifact(tmp_path / "tiny.onnx"), device="cpu").run(images)
    assert actual.dtype == np.float32
    assert (actual.argmax(-1) == expected.argmax(-1)).mean() > 0.98
    assert np.abs(actual - expected).max() > 1e-3  # it is another arithmetic


def test_int8_says_uint8_activations_and_int8_weights_per_channel(int8: onnx.ModelProto) -> None:
    weights = {entry.name: entry for entry in int8.graph.initializer}
    makers = {node.output[0]: node for node in int8.graph.node}
    seen = Counter[str]()
    for node in int8.graph.node:
        if node.op_type not in ("Conv", "ConvTranspose") or node.name == "logits":
            continue
        activation, kernel = (makers[name] for name in node.input[:2])
        assert weights[activation.input[2]].data_type == onnx.TensorProto.UINT8
        values = onnx.numpy_helper.to_array(weights[kernel.input[0]])
        assert (values.dtype, np.abs(values).max()) == (np.int8, 64)  # 7 bits: no kernel saturates
        assert weights[kernel.input[1]].dims[0] == values.shape[0 if node.op_type == "Conv" else 1]
        seen[node.op_type] += 1
    assert seen == {"Conv": 10, "ConvTranspose": 2}


def test_the_photo_goes_in_as_it_is(int8: onnx.ModelProto) -> None:
    first, second = int8.graph.node[:2]
    assert (first.op_type, list(first.input)) == ("Transpose", ["image"])
    assert (second.op_type, second.input[0]) == ("DequantizeLinear", first.output[0])
    weights = {entry.name: onnx.numpy_helper.to_array(entry) for entry in int8.graph.initializer}
    assert (weights[second.input[1]], weights[second.input[2]]) == (np.float32(1 / 255), 0)


def test_no_kernel_saturates(int8: onnx.ModelProto, images: Any) -> None:
    fast = run(int8, images)[0]
    assert (fast.argmax(-1) == simulated(int8, images).argmax(-1)).mean() > 0.999


@pytest.mark.parametrize("method", METHODS)
def test_every_method_calibrates(plain: onnx.ModelProto, images: Any, method: str, expected: Any) -> None:
    made = quantize(plain, images[:4], Quantization(method=method, precise=("logits",)))
    assert (run(made, images)[0].argmax(-1) == expected.argmax(-1)).mean() > 0.9


def test_methods_choose_other_ranges(plain: onnx.ModelProto, images: Any, int8: onnx.ModelProto) -> None:
    other = quantize(plain, images, Quantization(method="entropy", precise=("logits",)))
    assert other.SerializeToString() != int8.SerializeToString()


def test_labels_stay_the_most_probable_classes(model: Any, images: Any) -> None:
    made = quantize(build_onnx(model, "tiny", dynamic=True, labels=True), images[:4], HEAD)
    probabilities, labels = run(made, images[:, :32])
    np.testing.assert_array_equal(labels, probabilities.argmax(-1))


_QUANTIZE = """
import hashlib, sys
import numpy as np, onnx
from unet_export.formats.onnx_reduced import quantize
from unet_export.quantization import Quantization
made = quantize(onnx.load(sys.argv[1]), np.load(sys.argv[2]), Quantization(weight_bits=7))
print(hashlib.sha256(made.SerializeToString(deterministic=True)).hexdigest())
"""


def test_the_same_photos_give_the_same_bytes(
    plain: onnx.ModelProto, int8: onnx.ModelProto, images: Any, tmp_path: Path
) -> None:
    onnx.save(plain, tmp_path / "plain.onnx")
    np.save(tmp_path / "images.npy", images)
    environment = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _QUANTIZE, str(tmp_path / "plain.onnx"), str(tmp_path / "images.npy")]
    fresh = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    content = int8.SerializeToString(deterministic=True)
    assert fresh.stdout.strip() == hashlib.sha256(content).hexdigest()  # and nothing is printed beside it
    assert fresh.stderr == ""
    assert not int8.metadata_props
    assert b"/tmp" not in content


def test_a_norm_that_no_convolution_takes_in_stays_in_float(images: Any) -> None:
    """Behind a sum: one rounding, for the convolution that reads it, and not one each of product and addition."""
    model = residual.build(SIZE, SIZE, 3, filters=4, depth=1)
    model.get_layer("bridge_norm_a").beta.assign([0.5] * 4)  # nothing that adds 0 may be left out
    made = quantize(build_onnx(model, "tiny"), images[:4], HEAD)
    readers = {name: node for node in made.graph.node for name in node.input}
    product = next(node for node in made.graph.node if node.name == "bridge_norm_a")
    addition = readers[product.output[0]]
    assert (product.op_type, addition.op_type) == ("Mul", "Add")
    assert readers[addition.output[0]].op_type in ("Relu", "QuantizeLinear")  # which may cut at 0 itself


def test_a_float_operator_that_nobody_asked_for_is_refused(plain: onnx.ModelProto, int8: onnx.ModelProto) -> None:
    check_quantized(int8, ["logits"])
    with pytest.raises(ExportError, match=r"computes in float: logits \(Conv\)"):
        check_quantized(int8, [])
    with pytest.raises(ExportError, match=r"12 weighted|13 weighted.*none of them int8"):
        check_quantized(plain, [node.name for node in plain.graph.node])


@pytest.mark.parametrize(("bits", "largest"), [(7, 64), (8, 127)])
def test_weights_use_as_many_bits_as_asked_for(plain: onnx.ModelProto, images: Any, bits: int, largest: int) -> None:
    made = quantize(plain, images[:4], Quantization(weight_bits=bits))
    kernels = [onnx.numpy_helper.to_array(entry) for entry in made.graph.initializer if entry.data_type == 3]
    assert max(np.abs(kernel.astype(int)).max() for kernel in kernels if kernel.ndim == 4) == largest


def test_layers_kept_precise_are_float_and_no_others(plain: onnx.ModelProto, images: Any) -> None:
    precise = ("logits", "decoder1_up", "encoder1_conv_a")
    made = quantize(plain, images[:4], Quantization(precise=precise))
    check_quantized(made, precise)
    with pytest.raises(ExportError, match=r"encoder1_conv_a \(Conv\), decoder1_up \(ConvTranspose\), logits"):
        check_quantized(made, [])
    with pytest.raises(ExportError, match="no node of the ONNX graph"):
        quantize(plain, images[:4], Quantization(precise=("nonsense",)))


def test_the_head_is_found_behind_a_resizing(images: Any) -> None:
    """Whose constants are sizes, no weights."""
    proto = build_onnx(canet.build(SIZE, SIZE, 3, filters=4, depth=2), "enlarged")
    assert "Resize" in {node.op_type for node in proto.graph.node}
    assert head_layers(proto) == ("logits",)
    operators = {node.name: node for node in quantize(proto, images, Quantization(photos=len(images))).graph.node}
    makers = {tensor: node.op_type for node in operators.values() for tensor in node.output}
    assert makers.get(operators["logits"].input[1]) is None  # float32 weights
    assert makers[operators["stem_norm"].input[1]] == "DequantizeLinear"

"""Intel's GPUs and NPUs through OpenVINO: asked for by name, read back, and refused where they are not there."""

from __future__ import annotations

import numpy as np
import openvino
import pytest

from tests.helpers.bundled import FLOAT_ONNX, SPEC
from unet_runtime import BackendError
from unet_runtime.core.artifact import read_artifact
from unet_runtime.engines import choose, engine_for, load
from unet_runtime.engines.openvino import OpenVINOBackend, used_device

HERE = [name.partition(".")[0] for name in openvino.Core().available_devices]


@pytest.mark.parametrize(("device", "plugin", "remedy"), [("gpu", "GPU", "render"), ("npu", "NPU", "linux-npu-driver")])
def test_a_device_that_is_not_there(device: str, plugin: str, remedy: str) -> None:
    if plugin in HERE:
        pytest.skip(f"there is a {plugin} here")
    for named in (device, f"{device}:3"):
        with pytest.raises(BackendError, match=rf"OpenVINO finds 0 of them \(it has CPU\): .*{remedy}"):
            load("openvino", read_artifact(FLOAT_ONNX), device=named)


def test_a_fallback_is_an_error() -> None:
    """OpenVINO's AUTO runs what was asked of a GPU on the CPU, and says so when it is asked."""
    core = openvino.Core()
    model = core.compile_model(core.read_model(FLOAT_ONNX), "AUTO:CPU")
    with pytest.raises(BackendError, match=r"device gpu: OpenVINO runs the model on .*CPU"):
        used_device(model, "gpu")
    assert used_device(core.compile_model(core.read_model(FLOAT_ONNX), "CPU"), "cpu") == "cpu"


def test_a_model_of_a_fixed_batch_gives_the_same() -> None:
    """As an NPU compiles it: photo by photo."""
    images = np.random.default_rng(0).integers(0, 256, (3, SPEC.input.height, SPEC.input.width, 3), np.uint8)
    core = openvino.Core()
    graph = core.read_model(FLOAT_ONNX)
    graph.reshape([1, SPEC.input.height, SPEC.input.width, 3])
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    one_by_one = OpenVINOBackend(compiled, 0, "OpenVINO", "npu").run(images)
    np.testing.assert_allclose(one_by_one, load("openvino", read_artifact(FLOAT_ONNX)).run(images), atol=1e-5)


def test_auto_takes_the_engine_that_knows_the_device() -> None:
    assert engine_for(".onnx") == "onnx"
    assert engine_for(".onnx", "npu:1") == "openvino"
    assert choose(["onnx", "tflite", "openvino"], "npu").engine == "openvino"
    assert choose(["onnx", "tflite", "openvino"], "cuda:1").engine == "onnx"

"""GPUs of any maker, in software (SwiftShader, of Chromium): ONNX Runtime's WebGPU plug-in, LiteRT's accelerator."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import bundled
from tests.helpers.convolution import convolution_spec, write_convolution
from unet_runtime import BackendError, engines
from unet_runtime.cli import machine
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.install import pip_command
from unet_runtime.engines import ENGINES, Engine, drivers, load, onnxruntime

SWIFTSHADER = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
SLOW = pytest.mark.skipif(not os.environ.get("SLOW_TESTS"), reason="a minute on a software adapter: set SLOW_TESTS=1")

needs_plugin = pytest.mark.skipif(
    importlib.util.find_spec(onnxruntime.WEBGPU_PACKAGE) is None, reason="no onnxruntime-ep-webgpu"
)
needs_adapter = pytest.mark.skipif(
    not SWIFTSHADER.is_file() or find_library("vulkan") is None,
    reason="no SwiftShader: apt install chromium libvulkan1",
)

# Reads what a GPU gives beside the CPU; in a process of its own, whose end frees what the driver holds.
PROGRAM = """
import json, sys
import numpy as np
from pathlib import Path
from unet_runtime.core.artifact import read_artifact
from unet_runtime.engines import load
artifact = read_artifact(Path(sys.argv[1]))
size = artifact.spec.input
images = np.random.default_rng(0).integers(0, 256, (2, size.height, size.width, 3), np.uint8)
backend = load(sys.argv[2], artifact, device="gpu")
found = backend.run(images)
expected = load(sys.argv[2], artifact, device="cpu").run(images)
print(json.dumps({
    "device": backend.device, "note": backend.note, "difference": float(abs(found - expected).max()),
    "spread": float(expected.std()), "same": float((found.argmax(-1) == expected.argmax(-1)).mean()),
}))
"""


def run(*arguments: str | Path, driver: Path | None, **environment: str) -> subprocess.CompletedProcess[str]:
    """This Python with arguments, with one Vulkan driver or none, whatever the machine has."""
    names = dict.fromkeys(("VK_DRIVER_FILES", "VK_ICD_FILENAMES"), str(driver or "/nonexistent"))
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, **names, **environment},
        capture_output=True,
        text=True,
        timeout=570,
        check=False,
    )


def compared(model: Path, engine: str = "onnx") -> dict[str, Any]:
    done = run("-c", PROGRAM, model, engine, driver=SWIFTSHADER, ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER="1")
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{engine}, {model.name}: {result}")
    return result


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_convolution(tmp_path_factory.mktemp("model") / "convolution.onnx", convolution_spec(0))


@needs_plugin
@needs_adapter
def test_the_provider_is_read_back_and_gives_the_cpus_numbers(model: Path) -> None:
    result = compared(model)
    assert result["device"] == "gpu"
    assert "the adapter is software" in result["note"]
    assert result["difference"] <= 1e-5 < result["spread"]


@SLOW
@needs_plugin
@needs_adapter
def test_the_bundled_model(model: Path) -> None:
    result = compared(bundled.FLOAT_ONNX)
    assert "nodes run on the CPU" not in result["note"]
    assert result["difference"] <= 1e-5 < result["spread"]


@SLOW
@needs_adapter
def test_litert_has_the_whole_model_on_the_gpu() -> None:
    result = compared(bundled.INT8_TFLITE, "tflite")
    assert result["device"] == "gpu"
    assert result["same"] > 0.995, result


COMMAND = ("-c", "from unet_runtime.cli.run import main; main()", "--device", "gpu", "--backend")


@needs_plugin
def test_a_refused_adapter_is_an_error(model: Path, sample_photo: Path, tmp_path: Path) -> None:
    """ONNX Runtime would go on with the CPU."""
    words = ("onnx", "--model", model, sample_photo, "-o", tmp_path / "mask.png")
    done = run(*COMMAND, *words, driver=None, ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER="1")
    assert done.returncode == 3, done.stderr
    assert "device gpu: WebGPU does not start: " in done.stderr
    assert "mesa-vulkan-drivers" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "mask.png").exists()


def test_litert_does_not_go_on_with_the_cpu(sample_photo: Path, tmp_path: Path) -> None:
    done = run(*COMMAND, "tflite", sample_photo, "-o", tmp_path / "mask.png", driver=None)
    assert done.returncode == 3, done.stderr
    assert "device gpu: LiteRT" in done.stderr
    assert "does not start it" in done.stderr
    assert not (tmp_path / "mask.png").exists()


@needs_plugin
@pytest.mark.skipif(any(Path("/dev/dri").glob("renderD*")), reason="there is a GPU here")
def test_a_machine_without_a_gpu(model: Path) -> None:
    with pytest.raises(BackendError, match=r"device gpu: WebGPU finds no GPU: .*libvulkan1"):
        load("onnx", read_artifact(model), device="gpu")


def test_a_number_is_refused(model: Path) -> None:
    for engine, path in (("onnx", model), ("tflite", bundled.INT8_TFLITE)):
        with pytest.raises(BackendError, match=r"device gpu:1: \w+ takes the GPU that the system prefers"):
            load(engine, read_artifact(path), device="gpu:1")


@pytest.mark.skipif(drivers.no_gpu() == "", reason="there may be a GPU here")
@pytest.mark.parametrize("engine", ["onnx", "tflite", "openvino"])
def test_unet_info_starts_nothing_where_there_is_no_gpu(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []

    def attempt(engine: Engine, device: str) -> machine.DeviceState:
        started.append(device)
        return machine.DeviceState(device, True)

    monkeypatch.setattr(machine, "_try", attempt)
    states = {state.device: state for state in machine._try_devices(ENGINES[engine])}
    assert started == ["cpu"]
    assert states["gpu"].runs is False
    assert re.search("apt-get install|pip install", states["gpu"].reason)


@pytest.fixture
def no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_webgpu", None)
    monkeypatch.setattr(onnxruntime, "WEBGPU_PACKAGE", "not_there")
    monkeypatch.setitem(ENGINES, "onnx", ENGINES["onnx"]._replace(plugins={"gpu": "not_there"}))


def test_without_the_plug_in(model: Path, no_plugin: None) -> None:
    from unet_runtime.engines import onnxruntime_webgpu

    onnxruntime_webgpu._register.cache_clear()
    with pytest.raises(BackendError) as caught:
        load("onnx", read_artifact(model), device="gpu")
    for extra in ("webgpu", "openvino"):
        assert pip_command(extra) in str(caught.value)
    assert pip_command("webgpu") in machine._missing(ENGINES["onnx"], "gpu")


def test_auto_takes_the_engine_that_has_its_plug_in(no_plugin: None, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["onnx", "tflite", "openvino"]
    assert engines.choose(names, "gpu").engine == engines.engine_for(".onnx", "gpu") == "openvino"
    assert engines.engine_for(".tflite", "gpu") == "tflite"
    monkeypatch.setitem(ENGINES, "onnx", ENGINES["onnx"]._replace(plugins={"gpu": "json"}))
    assert engines.choose(names, "gpu").engine == engines.engine_for(".onnx", "gpu") == "onnx"
    assert engines.choose(names, "gpu").model == bundled.FLOAT_ONNX

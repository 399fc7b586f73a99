"""CUDA and TensorRT on a machine without a GPU: the real engine, whose "cuda" is the CPU in these tests.

What is replaced is what cannot exist here: the list of providers, the names a session returns, and where a
buffer lies. Sessions, bindings and buffers are ONNX Runtime's own, so the numbers are real ones.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.helpers.colours import colour_model_bytes, colour_spec
from unet_runtime import BackendError, ModelFileError
from unet_runtime.cli.shared import DEVICE
from unet_runtime.core.artifact import Artifact, append_to_onnx, read_artifact
from unet_runtime.core.install import pip_command
from unet_runtime.engines import ENGINES, load, nvidia, onnxruntime_cpu, onnxruntime_gpu

CPU, CUDA, TENSORRT = onnxruntime_gpu.CPU, onnxruntime_gpu.CUDA, onnxruntime_gpu.TENSORRT


class Buffer:
    """OrtValue: "cuda" memory is the CPU's."""

    made: list[tuple[int, ...]]
    numbers: list[int]

    @classmethod
    def ortvalue_from_shape_and_type(cls, shape: Any, kind: Any, device: str, number: int) -> Any:
        assert device == "cuda"
        cls.numbers.append(number)
        cls.made.append(tuple(shape))
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, kind, "cpu", 0)


class Machine:
    """The module onnxruntime on a machine with a GPU; records what it is asked for."""

    SessionOptions = onnxruntime.SessionOptions
    __version__ = onnxruntime.__version__

    def __init__(self, folder: Path, available: list[str]) -> None:
        self.__file__ = str(folder / "onnxruntime" / "__init__.py")
        self.libraries = folder / "onnxruntime" / "capi"
        self.libraries.mkdir(parents=True)
        self.available = [*available, CPU]
        self.asked: list[dict[str, Any]] = []  # providers of each session, with their options
        self.sessions: list[Any] = []
        self.runs = 0
        self.running = 0  # runs under way: the buffer on the GPU is one
        self.registers: list[str] | None = None  # what a session returns, if not what it was asked for
        self.nodes: dict[str, int] | None = None
        self.failure: Exception | None = None
        self.OrtValue = type("OrtValue", (Buffer,), {"made": [], "numbers": []})

    def get_available_providers(self) -> list[str]:
        return self.available

    def set_default_logger_severity(self, level: int) -> None:
        pass

    def preload_dlls(self) -> None:
        print("Failed to load libcudnn.so.9")  # as the real one, which prints

    def InferenceSession(self, content: bytes, options: Any, providers: list[Any], enable_fallback: int) -> Any:  # noqa: N802
        assert enable_fallback == 0
        asked = {
            item if isinstance(item, str) else item[0]: None if isinstance(item, str) else item[1] for item in providers
        }
        self.asked.append(asked)
        names = list(asked)
        if self.failure is not None and names != [CPU]:
            raise self.failure
        session = onnxruntime.InferenceSession(content, options, providers=[CPU])
        if names == [CPU]:
            return session
        self.sessions.append(session)
        registered = self.registers or names
        nodes = self.nodes or {registered[0]: 3}
        run = session.run_with_iobinding

        def counted(binding: Any) -> None:
            self.runs += 1
            self.running += 1
            assert self.running == 1
            time.sleep(0.001)  # room for another thread to come between
            run(binding)
            self.running -= 1

        session.run_with_iobinding = counted
        session.get_providers = lambda: registered
        session.get_provider_graph_assignment_info = lambda: [
            SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [None] * count) for name, count in nodes.items()
        ]
        return session


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine with an NVIDIA GPU and the wheel that has both providers."""
    here = Machine(tmp_path, [TENSORRT, CUDA])
    for module in (onnxruntime_cpu, onnxruntime_gpu):
        monkeypatch.setattr(module, "ort", here)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    return here


@pytest.fixture
def artifact(colour_model: Path) -> Artifact:
    return read_artifact(colour_model)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), np.uint8)


def test_cuda_gives_the_cpus_result_through_its_buffers(machine: Machine, artifact: Artifact) -> None:
    on_cpu = load("onnx", artifact, device="cpu")
    backend = load("onnx", artifact, device="cuda")
    assert (backend.device, backend.note) == ("cuda", "")
    outputs = [(pictures(n, n), backend.run(pictures(n, n))) for n in (1, 1, 3, 1, 0)]
    for images, output in outputs:  # compared at the end: no call has written into another's result
        assert output.dtype == np.float32
        np.testing.assert_allclose(output, on_cpu.run(images), atol=1e-6)


def test_cuda_is_asked_for_float32_as_proven(machine: Machine, artifact: Artifact) -> None:
    load("onnx", artifact, device="cuda")
    options = machine.asked[-1][CUDA]
    assert options["use_tf32"] == "0"
    assert options["cudnn_conv_algo_search"] == "HEURISTIC"
    assert list(machine.asked[-1]) == [CUDA, CPU]


def test_cuda_is_warm_after_loading_and_keeps_its_buffer(machine: Machine, artifact: Artifact) -> None:
    backend = load("onnx", artifact, device="cuda")
    assert machine.runs == 1
    for _ in range(3):
        backend.run(pictures(1))
    assert machine.runs == 4
    assert machine.OrtValue.made == [(1, 32, 32, 3)]
    backend.run(pictures(2))
    assert machine.OrtValue.made[1:] == [(2, 32, 32, 3)]


def test_threads_share_one_gpu(machine: Machine, artifact: Artifact) -> None:
    backend = load("onnx", artifact, device="cuda")
    expected = [backend.run(pictures(1 + seed % 3, seed)) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        for turn, output in enumerate(
            pool.map(lambda seed: backend.run(pictures(1 + seed % 3, seed)), [*range(8)] * 4)
        ):
            assert np.array_equal(output, expected[turn % 8])


def test_a_provider_that_silently_became_the_cpu_is_an_error(machine: Machine, artifact: Artifact) -> None:
    machine.registers = [CPU]
    with pytest.raises(BackendError, match=r"device cuda: .* runs on cpu"):
        load("onnx", artifact, device="cuda")


def test_a_provider_without_nodes_is_not_believed(machine: Machine, artifact: Artifact) -> None:
    """Registered first, but every node of the model went to another one."""
    machine.nodes = {CUDA: 3}
    with pytest.raises(BackendError, match=r"device tensorrt: .* runs on cuda"):
        load("onnx", artifact, device="tensorrt")


def test_nodes_left_to_the_cpu_are_reported(machine: Machine, artifact: Artifact) -> None:
    machine.nodes = {CUDA: 40, CPU: 9}
    backend = load("onnx", artifact, device="cuda")
    assert (backend.device, backend.note) == ("cuda", "9 of the model's 49 nodes run on the CPU")


@pytest.mark.parametrize("failure", [RuntimeError("CUDA driver version is insufficient"), ValueError("Invalid option")])
def test_auto_says_why_not_cuda(failure: Exception, machine: Machine, artifact: Artifact) -> None:
    machine.failure = failure
    backend = load("onnx", artifact, device="auto")
    assert backend.device == "cpu"
    assert str(failure) in backend.note
    assert backend.run(pictures(2)).shape == (2, 32, 32, 3)
    with pytest.raises(BackendError, match=str(failure)):
        load("onnx", artifact, device="cuda")


def test_a_warm_up_that_fails_is_found_at_loading(
    machine: Machine, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a GPU too old for the wheel: the session opens, its first run fails."""

    def fail(*_: object) -> None:
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(onnxruntime_gpu.GpuBackend, "_run", fail)
    with pytest.raises(BackendError, match="ONNX Runtime failed"):
        load("onnx", artifact, device="cuda")
    assert load("onnx", artifact, device="auto").device == "cpu"


def test_a_model_that_no_device_takes_is_the_models_fault(machine: Machine, artifact: Artifact) -> None:
    for device in ("auto", "cpu", "cuda", "tensorrt"):
        with pytest.raises(ModelFileError, match="refuses it"):
            load("onnx", artifact._replace(content=append_to_onnx(b"", artifact.spec)), device=device)


def test_auto_takes_cuda_and_never_builds_an_engine(machine: Machine, artifact: Artifact, tmp_path: Path) -> None:
    assert load("onnx", artifact, device="auto").device == "cuda"
    assert all(TENSORRT not in asked for asked in machine.asked)
    assert not (tmp_path / "cache").exists()


def test_tensorrt_keeps_its_engine_by_the_models_digest(
    machine: Machine, artifact: Artifact, colour_model: Path, tmp_path: Path
) -> None:
    backend = load("onnx", artifact, device="tensorrt")
    assert backend.device == "tensorrt"
    assert list(machine.asked[-1]) == [TENSORRT, CUDA, CPU]
    options = machine.asked[-1][TENSORRT]
    folder = Path(options["trt_engine_cache_path"])
    assert folder.is_relative_to(tmp_path / "cache" / "unet-edge" if sys.platform != "darwin" else Path.home())
    assert folder.name.startswith(colour_model.read_bytes()[-64:].decode()[:16])
    assert options["trt_timing_cache_path"] == str(folder)
    if sys.platform != "win32":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_tensorrt_runs_a_batch_one_by_one(machine: Machine, artifact: Artifact) -> None:
    """Its engine is built for one size: the model's batch is fixed at 1."""
    backend = load("onnx", artifact, device="tensorrt")
    assert machine.sessions[-1].get_inputs()[0].shape == [1, 32, 32, 3]
    before = machine.runs
    images = pictures(3)
    np.testing.assert_allclose(backend.run(images), load("onnx", artifact, device="cpu").run(images), atol=1e-6)
    assert machine.runs - before == 3


@pytest.mark.parametrize(("precision", "half"), [("float32", "False"), ("float16", "True")])
def test_tensorrt_computes_as_the_model_says(
    precision: str, half: str, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host process' environment stays as it was: where TF32 is not switched off there, the note says so."""
    before = dict(os.environ)
    spec = colour_spec().with_precision(precision)
    path = tmp_path / "model.onnx"
    path.write_bytes(append_to_onnx(colour_model_bytes(spec), spec))
    backend = load("onnx", read_artifact(path), device="tensorrt")
    assert machine.asked[-1][TENSORRT]["trt_fp16_enable"] == half
    assert os.environ == before
    assert ("NVIDIA_TF32_OVERRIDE=0" in backend.note) == (precision == "float32")
    kept = machine.asked[-1][TENSORRT]["trt_engine_cache_path"]
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert load("onnx", read_artifact(path), device="tensorrt").note == ""
    assert machine.asked[-1][TENSORRT]["trt_engine_cache_path"] != kept


def test_a_command_switches_tf32_off_for_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")  # restored at the end
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE")
    DEVICE.convert("cuda:1", None, None)
    assert "NVIDIA_TF32_OVERRIDE" not in os.environ
    DEVICE.convert("tensorrt", None, None)
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"


def test_an_engine_is_kept_for_what_it_was_built_for(artifact: Artifact) -> None:
    orin, ada = nvidia.Gpu("Orin", "sm_87"), nvidia.Gpu("NVIDIA RTX 4000 Ada", "sm_89")
    keys = {
        onnxruntime_gpu.engine_key(artifact, orin, "10.9.0"),
        onnxruntime_gpu.engine_key(artifact, ada, "10.9.0"),
        onnxruntime_gpu.engine_key(artifact, orin, "10.13.3"),
        onnxruntime_gpu.engine_key(artifact._replace(spec=artifact.spec.with_precision("float16")), orin, "10.9.0"),
    }
    assert len(keys) == 4
    assert all(re.fullmatch(r"[\w.-]+", key) for key in keys)


def test_a_second_gpu(machine: Machine, artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "count", lambda: 2)
    backend = load("onnx", artifact, device="cuda:1")
    assert backend.device == "cuda:1"
    assert machine.asked[-1][CUDA]["device_id"] == "1"
    assert set(machine.OrtValue.numbers) == {1}
    np.testing.assert_allclose(
        backend.run(pictures(2)), load("onnx", artifact, device="cpu").run(pictures(2)), atol=1e-6
    )
    with pytest.raises(BackendError, match=r"device cuda:2: GPU 2 is not there, the driver lists 2"):
        load("onnx", artifact, device="cuda:2")


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cuda:-1", "cpu:1", "auto:0", "cuda:1:2", "tpu", "tpu:1"])
def test_a_device_that_is_none(name: str, artifact: Artifact) -> None:
    with pytest.raises(BackendError, match="expected"):
        load("onnx", artifact, device=name)


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        (
            "CUDA error cudaErrorNoKernelImageForDevice:no kernel image is available for execution",
            "has no code for Orin",
        ),
        ("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version", "driver 580 or newer"),
        ("CUDA failure 100: no CUDA-capable device is detected", "CUDA_VISIBLE_DEVICES"),
        ("CUDA failure 2: out of memory", "smaller batches"),
        ("CUDNN failure 1001: CUDNN_STATUS_NOT_INITIALIZED", "cuDNN 9 is incomplete"),
        ("CUDA failure 802: system not yet initialized", "restart the machine"),
        ("CUDA failure 700: an illegal memory access was encountered", "Xid"),
    ],
)
def test_an_error_of_the_driver_has_a_remedy(
    message: str, advice: str, machine: Machine, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nvidia, "gpu", lambda index: nvidia.Gpu("Orin", "sm_87"))
    machine.failure = RuntimeError(message)
    with pytest.raises(BackendError, match=re.escape(message)) as caught:
        load("onnx", artifact, device="cuda")
    assert advice in str(caught.value)


def test_a_wheel_for_other_gpus_is_named_by_board() -> None:
    jetson = nvidia._other_wheel(nvidia.Gpu("Orin", "sm_87"))
    assert "NVIDIA publishes for your JetPack" in jetson
    old = nvidia._other_wheel(nvidia.Gpu("NVIDIA GeForce GTX 1080", "sm_61"))
    assert "<1.27" in old
    assert nvidia.remedy("something else") == ""


def test_cudnn_is_opened_to_know_that_it_is_there(
    machine: Machine, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider's own library loads without it, and would fail at the first convolution."""
    stand_in = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_shared.so"
    onnxruntime_gpu._library("cuda").write_bytes(stand_in.read_bytes())
    with pytest.raises(BackendError, match=r"needs cuDNN 9, which does not load \(libcudnn"):
        load("onnx", artifact, device="cuda")


def test_the_driver_is_asked_where_there_is_none() -> None:
    if onnxruntime_cpu.has_nvidia_driver():
        pytest.skip("a driver is installed")
    assert (nvidia.count(), nvidia.gpu(), nvidia.tensorrt_version()) == (None, None, "")


def test_a_provider_whose_library_does_not_load(
    machine: Machine, artifact: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loader's own words, an explicit device an error, ``auto`` the CPU with a note; nothing is printed."""
    onnxruntime_gpu._library("cuda").write_bytes(b"no library")
    with pytest.raises(BackendError, match=r"CUDA provider does not start \(libonnxruntime_providers_cuda"):
        load("onnx", artifact, device="cuda")
    backend = load("onnx", artifact, device="auto")
    assert backend.device == "cpu"
    assert pip_command("cuda") in backend.note
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux which libraries are loaded")
def test_tensorrt_is_loaded_from_its_wheel(
    machine: Machine, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's loader would not look there. Any library stands for NVIDIA's: the engine's smallest one."""
    stand_in = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_shared.so"
    wheel = tmp_path / "tensorrt_libs"
    wheel.mkdir()
    (wheel / "__init__.py").touch()
    for name in ("libnvinfer.so.10", "libnvonnxparser.so.10"):
        (wheel / name).write_bytes(stand_in.read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path))
    load("onnx", artifact, device="cuda")
    assert str(wheel) not in Path("/proc/self/maps").read_text()
    load("onnx", artifact, device="tensorrt")
    loaded = Path("/proc/self/maps").read_text()
    assert str(wheel / "libnvinfer.so.10") in loaded
    assert str(wheel / "libnvonnxparser.so.10") in loaded
    sys.modules.pop("tensorrt_libs")


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("libcuda.so.1: cannot open shared object file: No such file or directory", "nvidia-smi"),
        ("libnvinfer.so.10: cannot open shared object file: No such file", 'pip install "tensorrt-cu13==10.*"'),
        ("libnvonnxparser.so.11: cannot open shared object file: No such file", 'pip install "tensorrt-cu13==11.*"'),
        ("libcudnn.so.9: cannot open shared object file: No such file", pip_command("cuda")),
        ("libcublasLt.so.13: cannot open shared object file: No such file", pip_command("cuda")),
    ],
)
def test_the_remedy_is_for_the_library_that_is_missing(message: str, remedy: str) -> None:
    assert remedy in onnxruntime_gpu._install(message, "cuda")


def test_a_wheel_without_the_provider(
    machine: Machine, artifact: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine.available = [CPU]
    for device in ("cuda", "tensorrt"):
        with pytest.raises(BackendError, match="no NVIDIA driver was found here: install that of the GPU first"):
            load("onnx", artifact, device=device)
    assert load("onnx", artifact, device="auto").note == ""  # no GPU, nothing to say
    driver = tmp_path / "version"
    driver.touch()
    monkeypatch.setattr(onnxruntime_cpu, "_NVIDIA_DRIVER", (str(driver),))
    for device in ("cuda", "tensorrt"):
        with pytest.raises(BackendError, match=rf"has no .* provider.*{re.escape(pip_command(device))}"):
            load("onnx", artifact, device=device)
    note = load("onnx", artifact, device="auto").note
    assert note.startswith("an NVIDIA driver is installed")
    assert pip_command("cuda") in note


def test_other_engines_have_no_gpu(artifact: Artifact) -> None:
    tflite = read_artifact(ENGINES["tflite"].default_model)
    for device in ("cuda", "tensorrt"):
        for name, model in (("tflite", tflite), ("openvino", artifact)):
            with pytest.raises(BackendError, match=rf"device {device}: .* expected auto, cpu.*: .*--backend onnx"):
                load(name, model, device=device)

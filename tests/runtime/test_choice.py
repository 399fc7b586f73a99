"""``auto`` takes the row of a table that fits the machine; what a user names stays as named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers import bundled
from unet_runtime import Segmenter, engines
from unet_runtime.core.errors import BackendError
from unet_runtime.engines import ENGINES, choice
from unet_runtime.engines.base import FLOAT_ONNX, INT8_ONNX, INT8_TFLITE
from unet_runtime.engines.choice import Kind

GPU = Kind(gpu=True, x86=True, vnni=True)
VNNI = Kind(gpu=False, x86=True, vnni=True)
PLAIN = Kind(gpu=False, x86=True, vnni=False)
ARM = Kind(gpu=False, x86=False, vnni=False)


def on(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "this_kind", lambda gpu: kind._replace(gpu=gpu or kind.gpu))


@pytest.mark.parametrize("names", [["onnx"], ["tflite"], ["openvino"], list(ENGINES)])
@pytest.mark.parametrize("kind", [GPU, VNNI, PLAIN, ARM])
def test_every_machine_and_every_engine_has_a_row_whose_file_is_there(
    kind: Kind, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    on(kind, monkeypatch)
    found = engines.choose(names)
    assert found.engine in names
    assert found.model.suffix in ENGINES[found.engine].suffixes
    assert found.model.is_file()
    assert found.why


@pytest.mark.parametrize(
    ("kind", "engine", "model"),
    [
        (GPU, "onnx", FLOAT_ONNX),
        (VNNI, "tflite", INT8_TFLITE),
        (PLAIN, "onnx", INT8_ONNX),
        (ARM, "onnx", FLOAT_ONNX),
    ],
)
def test_the_table_as_it_was_measured(kind: Kind, engine: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on(kind, monkeypatch)
    assert engines.choose(list(ENGINES))[:2] == (engine, model)


@pytest.mark.parametrize("kind", [VNNI, PLAIN])
@pytest.mark.parametrize("backend", ["onnx", "tflite", "openvino"])
def test_an_engine_that_is_named_is_taken_with_its_int8_model(
    backend: str, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(kind, monkeypatch)
    found = engines.default_choice(backend)
    assert (found.engine, found.model) == (backend, INT8_TFLITE if backend == "tflite" else INT8_ONNX)


def test_a_gpu_that_is_named_gets_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    on(VNNI, monkeypatch)
    assert engines.default_choice("auto", "cuda")[:2] == ("onnx", FLOAT_ONNX)
    assert engines.default_choice("auto", "cpu").engine == "tflite"


def test_a_model_that_is_missing_from_the_package_is_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on(PLAIN, monkeypatch)
    rows = [row if row.model != INT8_ONNX else row._replace(model=tmp_path / "absent.onnx") for row in choice.TABLE]
    monkeypatch.setattr(choice, "TABLE", tuple(rows))
    assert engines.choose(["onnx"]).model == FLOAT_ONNX


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(BackendError, match="backend 'fast', expected one of onnx, tflite, openvino"):
        engines.default_choice("fast")


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "flags\t\t: fpu avx2 avx512_vnni avx512vl", (True, True)),
        ("AMD64", "flags\t\t: fpu avx2 avx_vnni", (True, True)),
        ("x86_64", "flags\t\t: fpu avx2 fma", (True, False)),
        ("x86_64", "", (True, False)),
        ("aarch64", "Features\t: fp asimd asimddp", (False, False)),
    ],
)
def test_the_machine_is_read_from_the_systems_list(
    machine: str, flags: str, expected: tuple[bool, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice.platform, "machine", lambda: machine)
    monkeypatch.setattr(choice, "_CPUINFO", tmp_path / "cpuinfo")
    assert choice.this_kind()[1:] == (machine != "aarch64", False)  # no such file, as on Windows
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n\nprocessor\t: 1\n")
    assert choice.this_kind()[1:] == expected


def test_a_wheel_for_gpus_is_found_beside_the_engine(tmp_path: Path) -> None:
    package = tmp_path / "onnxruntime" / "__init__.py"
    assert not choice.has_gpu_wheel(None)
    package.parent.mkdir()
    (tmp_path / "onnxruntime-1.31.1.dist-info").mkdir()
    assert not choice.has_gpu_wheel(package)
    (tmp_path / "onnxruntime_gpu-1.31.1.dist-info").mkdir()
    assert choice.has_gpu_wheel(package)


def test_the_segmenter_says_which_artifact_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    on(VNNI, monkeypatch)
    assert repr(Segmenter()).startswith(f"Segmenter({bundled.SPEC.name} int8, LiteRT ")
    on(ARM, monkeypatch)
    assert repr(Segmenter()).startswith(f"Segmenter({bundled.SPEC.name} float")

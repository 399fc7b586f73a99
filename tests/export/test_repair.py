"""An integer file that fails its gate gets the cheapest remedy that passes it, or left as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.hard_model import hard_model
from tests.helpers.one_convolution import one_convolution
from tests.helpers.tiny import SIZE
from unet_export.diagnosis.examine import examine
from unet_export.formats import FORMATS
from unet_export.gate.gate import ParityError, changed_gates
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_export.repair import MORE_PHOTOS, remedies
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.errors import OutputError
from unet_runtime.io.stamps import is_ours

INTEGERS = ("onnx-int8", "tflite-int8")

# 16 pictures do not tell 0.3 point of IoU from chance; the agreement stays at its 99 %.
GATES = changed_gates(["int8.iou_drop=1", "int8.class_drop=2"])


@pytest.fixture(scope="module")
def hard(model: Any, write_model: Callable[..., Path]) -> Path:
    """The same function as ``model_file``, in channels that int8 cannot hold side by side."""
    return write_model(hard_model(model, 5))


def test_a_hard_model_fails_plainly_and_passes_repaired(
    hard: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    results = export_model(hard, PhotoSource(data), tmp_path / "out", ExportOptions(INTEGERS, GATES, repair=True))
    for result in results:
        assert f"{result.path.name} failed its gate, trying: " in caplog.text
        assert result.passed
        assert result.quantization["equalized"] is True
        recorded = read_artifact(result.path).spec.provenance.quantization
        assert recorded == result.quantization
        assert f"  {result.path.name} passes with channels of equal range" in caplog.messages
    report = json.loads((tmp_path / "out" / "parity.json").read_text(encoding="utf-8"))
    assert [entry["quantization"]["equalized"] for entry in report["artifacts"]] == [True, True]


def test_what_no_remedy_helps_is_rejected_as_it_first_failed(
    write_model: Callable[..., Path],
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = write_model(one_convolution(SIZE, SIZE, 3, filters=4, activation="softmax", norm_momentum=0.9))
    monkeypatch.setattr("unet_export.repair._FINETUNE_STEPS", 1)
    gates = changed_gates(["int8.agreement=1", "int8.max_abs=0"])
    caplog.set_level("INFO")
    with pytest.raises(ParityError) as caught:
        export_model(file, PhotoSource(data), tmp_path / "out", ExportOptions(("onnx-int8",), gates, True))
    (result,) = caught.value.results
    assert result.quantization["equalized"] is False
    name = f"tiny-{SIZE}.int8.onnx"
    rejected = read_artifact(tmp_path / "out" / "rejected" / name).spec.provenance.quantization
    assert rejected == result.quantization
    tried = [line for line in caplog.messages if line.startswith(f"{name} failed its gate, trying: ")]
    assert len(tried) == len(list(remedies(FORMATS["onnx-int8"], lambda made: ["any"])))


@pytest.mark.usefixtures("mixed_up")
def test_a_float_file_that_fails_gets_no_remedy(
    small_file: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    with pytest.raises(ParityError):
        export_model(small_file, PhotoSource(data), tmp_path / "out", ExportOptions(("onnx",), repair=True))
    assert "proving" in caplog.text
    assert "trying" not in caplog.text


@pytest.mark.parametrize("name", [*INTEGERS, "tflite-int16x8"])
def test_remedies_come_in_order_of_cost(name: str) -> None:
    start = FORMATS[name].quantization
    tried = [settings for _, settings in remedies(FORMATS[name], lambda made: ["a", "b", "c", "d"])]
    methods = [settings.method for settings in tried if settings.method != start.method]
    assert methods == (["percentile", "entropy"] if name == "onnx-int8" else ["percentile"])
    rest = tried[len(methods) :]
    steps = rest[-1].finetune_steps
    assert rest == [
        replace(start, photos=MORE_PHOTOS * start.photos),
        replace(start, equalized=True),
        replace(start, equalized=True, finetune_steps=steps),
        replace(start, equalized=True, finetune_steps=steps, precise=("a", "b", "c")),
        replace(start, equalized=True, finetune_steps=steps, precise=("a", "b", "c", "d")),
    ]
    assert steps > 0


@pytest.mark.parametrize("name", INTEGERS)
def test_an_examination_names_the_main_contributor_and_draws_where_masks_differ(
    model: Any, write_model: Callable[..., Path], data: Path, tmp_path: Path, name: str
) -> None:
    wild = write_model(hard_model(model, 5, ["bridge_norm_a"]))
    found = examine(wild, name, PhotoSource(data), tmp_path / "out")
    assert found.errors[0].layer == "bridge_conv_a"
    assert 0 < found.agreement < 1
    assert sorted(path.name for path in found.files) == ["diagnosis.json", "differences.png", "worst-photos.png"]
    assert all(path.parent == tmp_path / "out" for path in found.files)
    assert all(is_ours(path, "unet-export") for path in found.files)
    content = json.loads((tmp_path / "out" / "diagnosis.json").read_text(encoding="utf-8"))
    assert content["layers"][0]["layer"] == "bridge_conv_a"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["diagnosis.json", "differences.png", "worst-photos.png"])
def test_an_examination_leaves_files_of_others(model_file: Path, data: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x89PNG\r\n\x1a\n drawn by hand")
    with pytest.raises(OutputError, match=f"{name}: exists, and was not made by unet-export"):
        examine(model_file, "tflite-int8", PhotoSource(data), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]

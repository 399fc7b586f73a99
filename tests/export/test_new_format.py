"""A format is one record: a dummy is added, exported, proven by the gate, and refused when it is not what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.onnx_file import export_onnx
from tests.helpers.tiny import SIZE
from unet_export.errors import ExportError
from unet_export.formats import FORMATS, Builder, Format
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_export.quantization import Quantization
from unet_runtime.core.artifact import read_artifact

# --- what the one file of a new format holds -------------------------------------------------------


def write(builder: Builder, path: Path, quantization: Quantization) -> None:
    path.write_bytes(export_onnx(builder.model(quantization), builder.spec))


def check(path: Path) -> None:
    size = len(read_artifact(path).content)
    if size > LIMIT:
        raise ExportError(f"{path}: {size} bytes, a cartridge holds {LIMIT}")


LIMIT = 200_000
CARTRIDGE = Format("cartridge", "float32", ".cartridge.onnx", ("onnx",), write, check)

# ---------------------------------------------------------------------------------------------------


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line in the table of formats."""
    monkeypatch.setitem(FORMATS, CARTRIDGE.name, CARTRIDGE)


def test_a_new_format_is_exported_and_proven(table: None, model_file: Path, data: Path, tmp_path: Path) -> None:
    options = ExportOptions((CARTRIDGE.name,))
    (result,) = export_model(model_file, PhotoSource(data), tmp_path / "out", options)
    assert (result.format, result.passed) == ("cartridge", True)
    assert result.path == tmp_path / "out" / f"tiny-{SIZE}.cartridge.onnx"
    CARTRIDGE.check(result.path)


def test_its_check_is_asked(table: None, model_file: Path, data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(globals(), "LIMIT", 1000)
    with pytest.raises(ExportError, match=r"bytes, a cartridge holds 1000"):
        export_model(model_file, PhotoSource(data), tmp_path / "out", ExportOptions((CARTRIDGE.name,)))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_what_it_needs(name: str) -> None:
    form = FORMATS[name]
    assert form.name == name
    assert form.engines
    if form.quantized:
        assert form.quantization.method in form.methods
        assert form.baseline is not None
        assert form.baseline.precision == "float32"
    else:
        assert form.methods == ()


def test_a_float_file_is_refused_under_the_name_of_an_integer_format(exported: Any) -> None:
    for result in exported.results:
        FORMATS[result.format].check(result.path)
    files = {result.format: result.path for result in exported.results}
    with pytest.raises(ExportError):
        FORMATS["onnx-int8"].check(files["onnx"])
    with pytest.raises(ExportError):
        FORMATS["tflite"].check(files["tflite-int8"])

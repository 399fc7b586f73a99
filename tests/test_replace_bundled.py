"""benchmarks/replace_bundled.py on a copy: the files that are bundled, in place of others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.replace_bundled import chosen, places, replace
from tests.helpers import bundled
from tests.helpers.convolution import convolution_spec, write_convolution
from unet_runtime.engines import base


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    folder = tmp_path / "export"
    folder.mkdir()
    for path in (bundled.FLOAT_ONNX, bundled.INT8_ONNX, bundled.INT8_TFLITE):
        shutil.copy(path, folder)
    return folder


def test_the_bundled_files_replace_others(exported: Path, tmp_path: Path) -> None:
    target = places(tmp_path / "copy")
    for folder in (target.models, target.weights, target.names.parent, target.page.parent):
        folder.mkdir(parents=True)
    (target.models / "old-96.int8.tflite").write_bytes(b"old")
    (target.weights / "old.keras").write_bytes(b"old")
    (target.weights / "larger.keras").write_bytes(b"stays")
    target.page.write_text("curl /v2/models/old > old-file", encoding="utf-8")
    text = Path(base.__file__).read_text(encoding="utf-8")
    target.names.write_text(text.replace(f'_NAME = "{base._NAME}"', '_NAME = "old-96"'), encoding="utf-8")
    assert target.names.read_text(encoding="utf-8") != text
    replace(bundled.KERAS, chosen(bundled.KERAS, exported), target)
    assert target.names.read_text(encoding="utf-8") == text
    assert target.page.read_text(encoding="utf-8").startswith(f"curl /v2/models/{bundled.SPEC.name} > ")
    assert {path.name for path in target.models.iterdir()} == {path.name for path in exported.iterdir()}
    assert {path.name for path in target.weights.iterdir()} == {bundled.KERAS.name, "larger.keras"}


def test_an_export_that_lacks_a_file_or_is_of_another_training_is_refused(exported: Path, tmp_path: Path) -> None:
    (exported / bundled.INT8_TFLITE.name).unlink()
    with pytest.raises(SystemExit, match=r"no int8\.tflite that may be bundled"):
        chosen(bundled.KERAS, exported)
    (exported / bundled.FLOAT_ONNX.name).unlink()
    write_convolution(exported / "other.onnx", convolution_spec(1))
    with pytest.raises(SystemExit, match=r"other\.onnx: made of other weights"):
        chosen(bundled.KERAS, exported)

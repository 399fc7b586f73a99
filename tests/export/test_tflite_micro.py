"""The format tflite-micro: a C array that compiles to the network's bytes, and a report whose figures are estimates."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import bundled, tiny
from unet_export.errors import ExportError
from unet_export.formats import FORMATS, tflite_micro
from unet_export.formats.flatbuffer import Flatbuffer
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_runtime.core.artifact import read_artifact


@pytest.fixture(scope="module")
def folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("micro") / "out"
    (result,) = export_model(tiny.SOFTMAX_FILE, PhotoSource(data), out, ExportOptions(("tflite-micro",)))
    assert result.passed
    assert [entry.backend for entry in result.checked] == ["tflite"]
    return result.path


@pytest.fixture(scope="module")
def network(folder: Path) -> bytes:
    return tflite_micro.without_spec(read_artifact(folder / "model.tflite").content)


def test_its_files(folder: Path) -> None:
    assert folder.name == f"tiny-{tiny.SIZE}.tflite-micro"
    names = {path.name for path in folder.iterdir()}
    assert names == {"model.tflite", "model.cc", "model.h", "report.json", "report.md", "SHA256SUMS"}


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_the_c_array_is_the_network(folder: Path, network: bytes, tmp_path: Path) -> None:
    main = tmp_path / "main.cc"
    main.write_text('#include <cstdio>\n#include "model.h"\nint main() { fwrite(g_tiny, 1, g_tiny_size, stdout); }\n')
    program = tmp_path / "program"
    subprocess.run(["g++", f"-I{folder}", "-Wall", "-Werror", main, folder / "model.cc", "-o", program], check=True)
    assert subprocess.run([program], capture_output=True, check=True).stdout == network


def test_the_network_is_the_file_without_its_spec(folder: Path, network: bytes) -> None:
    content = read_artifact(folder / "model.tflite").content
    assert content.startswith(network)
    assert b"unet_edge.json" not in network
    assert Flatbuffer(network).operators == Flatbuffer(content).operators


def test_the_report_says_what_was_measured(folder: Path, network: bytes) -> None:
    pytest.importorskip("tflite_micro")
    report = json.loads((folder / "report.json").read_text())
    assert report["flash_bytes"] == len(network)
    assert sum(report["operators"].values()) == len(Flatbuffer(network).operators)
    found = report["tflite_micro"]
    assert found["arena_bytes"] >= found["activations_bytes"] + found["persistent_bytes"]
    assert found["activations_bytes"] >= 2 * 4 * tiny.SIZE**2  # two maps of the first stage at least
    assert found["same_class_as_litert"] > 0.99
    text = (folder / "report.md").read_text()
    assert "nothing here ran on a device" in text
    assert "resolver.AddConv2D();" in text
    assert f"{found['arena_bytes']:,} bytes" in text


def test_velas_estimates(folder: Path) -> None:
    pytest.importorskip("ethosu")
    rows = json.loads((folder / "report.json").read_text())["ethos_u"]
    assert [row["accelerator"] for row in rows] == [known[0] for known in tflite_micro._ACCELERATORS]
    for row in rows:
        assert row["milliseconds"] > 0, row
        assert row["sram_bytes"] + row["dram_bytes"] > 0
        assert row["operators_on_npu"] > row["operators_on_cpu"]


def test_without_the_tools_it_names_what_brings_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_micro, "find_spec", lambda name: None)
    content = tflite_micro.without_spec(read_artifact(bundled.INT8_TFLITE).content)
    report = tflite_micro.describe(content, bundled.INT8_TFLITE, np.zeros((1, 8, 8, 3), np.uint8), tmp_path)
    text = tflite_micro.as_text(report)
    for package in ("tflite-micro", "ethos-u-vela"):
        assert f"Not estimated: {package} is not installed: pip install " in text


def test_an_interpreter_that_ends_is_a_line_of_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_micro, "_PROBE", "import os; os.abort()")
    monkeypatch.setattr(tflite_micro, "find_spec", lambda name: name == "tflite_micro" or None)
    content = tflite_micro.without_spec(read_artifact(bundled.INT8_TFLITE).content)
    report = tflite_micro.describe(content, bundled.INT8_TFLITE, np.zeros((1, 8, 8, 3), np.uint8), tmp_path)
    assert "the interpreter does not run it" in report["tflite_micro"]["not_done"]


def test_a_changed_folder_fails_its_check(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    FORMATS["tflite-micro"].check(copy)
    (copy / "model.h").write_text("")
    with pytest.raises(ExportError, match="SHA256SUMS"):
        FORMATS["tflite-micro"].check(copy)

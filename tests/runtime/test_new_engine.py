"""A new engine is one file and one line: a copy of the package with both added knows it everywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import bundled
from tests.helpers.paths import REPOSITORY

PACKAGE = REPOSITORY / "runtime" / "unet_runtime"

FILE = '''
"""Plain: the shares of red, green and blue are the probabilities."""

import numpy as np

from unet_runtime.engines.base import FLOAT_ONNX, Engine


class PlainBackend:
    name, device, note = "plain", "cpu", ""

    def __init__(self, engine):
        self.engine = engine

    def run(self, images):
        values = images.astype(np.float32) + 1
        return values / values.sum(axis=-1, keepdims=True)


def load(artifact, device, threads):
    import plain_engine

    return PlainBackend(f"Plain {plain_engine.__version__}")


ENGINE = Engine(
    name="plain",
    label="Plain",
    package="plain_engine",
    extra="plain",
    suffixes=(".onnx",),
    default_model=FLOAT_ONNX,
    default_threads=lambda: 3,
    load=load,
)
'''

LINE = '    "plain",\n'

USE = """
import json
import numpy as np
from click.testing import CliRunner
from pathlib import Path
from unet_runtime import Segmenter
from unet_runtime.bench.plan import model_files, plan
from unet_runtime.cli.machine import engine_states
from unet_runtime.cli.run import command
from unet_runtime.io.jobs import models_to_load

model = Path("colours.onnx")
with Segmenter(model, backend="plain") as segmenter:
    mask = segmenter(np.full((20, 30, 3), (0, 250, 0), np.uint8)).mask
    (state,) = [state for state in engine_states() if state.name == "plain"]
    print(json.dumps({
        "mask": np.unique(mask).tolist(),
        "engine": segmenter.backend.engine,
        "copies": models_to_load(segmenter.backend, 4),
        "threads": state.threads,
        "devices": [[device.device, device.runs, device.engine] for device in state.devices],
        "planned": [entry.backend for entry in plan(model_files([model]), [], ["auto"], [1])[0]],
        "default model": Segmenter(backend="plain").spec.name,
        "option": "plain" in CliRunner().invoke(command, ["--help"]).output,
    }))
"""


@pytest.fixture
def package(tmp_path: Path, colour_model: Path) -> Path:
    """The runtime's package with one file and one line more, and the engine's own package beside it."""
    copy = tmp_path / "unet_runtime"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "engines" / "plain.py").write_text(FILE)
    listing = copy / "engines" / "__init__.py"
    text = listing.read_text()
    assert text.count('    "openvino",\n') == 1
    listing.write_text(text.replace('    "openvino",\n', '    "openvino",\n' + LINE))
    (tmp_path / "plain_engine.py").write_text('__version__ = "0.1"\n')
    (tmp_path / "colours.onnx").write_bytes(colour_model.read_bytes())
    return tmp_path


def run(script: str, package: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(package)}
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=package,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_new_engine_is_one_file_and_one_line(package: Path) -> None:
    """Segmenter, unet-run, unet-info and unet-bench know it; nothing else has been touched."""
    done = run(USE, package)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["mask"] == [1]
    assert result["engine"] == "Plain 0.1"
    assert result["copies"] == 4  # its record does not say that one model runs several photos at a time
    assert result["threads"] == 3
    assert result["devices"] == [["cpu", True, "Plain 0.1"]]
    assert result["planned"] == ["onnx", "openvino", "plain"]
    assert result["default model"] == bundled.SPEC.name
    assert result["option"]


def test_its_package_may_be_missing(package: Path) -> None:
    (package / "plain_engine.py").unlink()
    done = run("from unet_runtime import Segmenter; Segmenter('colours.onnx', backend='plain')", package)
    assert "MissingDependencyError: backend plain needs Plain, which is not installed: pip install" in done.stderr

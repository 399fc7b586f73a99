"""On a device: the wheel in an empty environment, with one engine and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.helpers.paths import REPOSITORY
from unet_runtime.core.install import pip_command

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


class Device:
    """A virtual environment that was empty."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder)  # without pip, which takes seconds to install: that of the tests installs into it
        self.python = folder / "bin" / "python"

    def call(self, *arguments: str | Path, program: str = "python") -> subprocess.CompletedProcess[str]:
        command = [self.python.with_name(program), *arguments]
        return subprocess.run(
            [*map(str, command)], capture_output=True, text=True, timeout=600, check=False, cwd=self.python.parents[2]
        )

    def install(self, requirement: str) -> None:
        subprocess.run(
            [
                *PIP,
                "--python",
                self.python,
                "install",
                "--quiet",
                "--constraint",
                REPOSITORY / "constraints.txt",
                requirement,
            ],
            check=True,
        )

    def packages(self) -> set[str]:
        command = [*PIP, "--python", self.python, "list", "--format", "json"]
        listed = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return {entry["name"].lower() for entry in listed}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([*PIP, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, REPOSITORY / "runtime"], check=True)
    return next(folder.glob("unet_edge_runtime-*.whl"))


EXPECTED = {
    "onnx": {"unet-edge-runtime", "numpy", "pillow", "click", "onnxruntime", "flatbuffers", "packaging", "protobuf"},
    "tflite": {
        "unet-edge-runtime",
        "numpy",
        "pillow",
        "click",
        "ai-edge-litert",
        "flatbuffers",
        "backports.strenum",
        "tqdm",
        "typing-extensions",
        "protobuf",
        "ml-dtypes",
    },
}


@pytest.mark.parametrize(("extra", "other"), [("onnx", "tflite"), ("tflite", "onnx")])
def test_one_engine(extra: str, other: str, wheel: Path, tmp_path: Path, sample_photo: Path) -> None:
    device = Device(tmp_path / "device")
    device.install(f"{wheel}[{extra}]")
    assert {name.replace("_", "-") for name in device.packages()} == EXPECTED[extra]

    done = device.call("--backend", extra, "--output-dir", tmp_path / "out", sample_photo, program="unet-run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "chelsea.mask.png").is_file()

    # Nobody named the engine: the installed one is taken, and the other says how to get it.
    assert device.call("--output-dir", tmp_path / "auto", sample_photo, program="unet-run").returncode == 0
    missing = device.call("--backend", other, sample_photo, program="unet-run")
    assert missing.returncode == 3
    assert pip_command(other) in missing.stderr
    assert "Traceback" not in missing.stderr


def test_no_engine(wheel: Path, tmp_path: Path, sample_photo: Path) -> None:
    device = Device(tmp_path / "device")
    device.install(str(wheel))
    assert device.packages() == {"unet-edge-runtime", "numpy", "pillow", "click"}
    run = device.call(sample_photo, program="unet-run")
    assert run.returncode == 3
    assert "no engine is installed" in run.stderr

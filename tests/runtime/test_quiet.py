"""Engines are silenced for a while, people never."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from unet_runtime.cli.quiet import engines_quiet


def test_error_output_comes_back(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with engines_quiet():
            os.write(2, b"hidden\n")
            raise RuntimeError("the engine's error")

    with pytest.raises(RuntimeError, match="the engine's error"):
        fail()
    os.write(2, b"shown\n")
    with engines_quiet(False):
        os.write(2, b"wanted\n")
    assert capfd.readouterr().err == "shown\nwanted\n"


def test_error_output_closed_by_the_caller(sample_photo: Path, tmp_path: Path) -> None:
    command = f'"{Path(sys.executable).with_name("unet-run")}" --backend tflite "{sample_photo}" 2>&-'
    done = subprocess.run(["sh", "-c", f"{command} --output-dir {tmp_path}"], check=False, stdout=subprocess.DEVNULL)
    assert done.returncode == 0
    assert (tmp_path / "chelsea.mask.png").is_file()

"""A bundle on an aarch64 machine, emulated: installed by its own installer, its masks beside this machine's.

    pytest -m aarch64 -s tests/export/test_aarch64.py

About a quarter of an hour on an idle machine, so outside the default run (tests/conftest.py). ``-s`` shows the figures
of docs/results.md.
"""

from __future__ import annotations

import io
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.arm import make_machine
from tests.helpers.bundled import FLOAT_ONNX as FLOAT32
from tests.helpers.bundled import INT8_TFLITE as INT8
from tests.helpers.exported import Export
from tests.helpers.serving import Running
from unet_export.bundle.bundle import bundle
from unet_export.bundle.wheels import Wheelhouse
from unet_runtime import Segmenter
from unet_runtime.core.datasets import evenly

pytestmark = [
    pytest.mark.aarch64,
    pytest.mark.skipif(
        sys.platform != "linux" or platform.machine() != "x86_64", reason="emulates aarch64 on x86-64 under Linux"
    ),
]

PHOTOS = 20
SAME_CLASS = 0.9999


class Device:
    """The bundle, unpacked and installed there."""

    def __init__(self, root: Path, python: Path) -> None:
        self.root, self.python = root, python

    def call(self, *words: str | Path, program: str = "unet-run") -> subprocess.CompletedProcess[str]:
        command = [str(self.root / "venv" / "bin" / program), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)


@pytest.fixture(scope="module")
def device(exported: Export, tmp_path_factory: pytest.TempPathFactory) -> Device:
    folder = tmp_path_factory.mktemp("arm")
    python = make_machine(folder / "machine")
    archive = bundle(exported.folder, "linux-aarch64", folder, python="3.11", engines=["onnx", "tflite"])
    subprocess.run([sys.executable, "-m", "tarfile", "-e", archive, folder], check=True, capture_output=True)
    root = folder / "unet-edge-linux-aarch64"
    installed = subprocess.run([python, root / "install.py"], capture_output=True, text=True, timeout=1800, check=False)
    assert installed.returncode == 0, installed.stderr
    assert str(root / "venv" / "bin" / "unet-run") in shlex.split(installed.stdout.splitlines()[-1])
    return Device(root, python)


@pytest.fixture(scope="module")
def photos(pets_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for path in evenly(sorted((pets_dir / "images").glob("*.jpg")), PHOTOS):
        shutil.copy(path, folder)
    return folder


@pytest.mark.parametrize(("artifact", "same"), [(INT8, 1.0), (FLOAT32, SAME_CLASS)], ids=["int8", "float32"])
def test_masks_are_those_of_this_machine(
    artifact: Path, same: float, device: Device, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = device.call("--model", artifact, photos, "--save", "mask", "--output-dir", out)
    assert done.returncode == 0, done.stderr
    segmenter = Segmenter(artifact)
    equal = total = 0
    for path in sorted(photos.iterdir()):
        with Image.open(out / f"{path.stem}.mask.png") as mask:
            there = np.asarray(mask)
        here = segmenter(path).mask
        equal += int((here == there).sum())
        total += here.size
    print(f"{artifact.name}: {equal} of {total} pixels of {PHOTOS} photos have x86-64's class")
    assert equal >= same * total


def test_a_damaged_model_is_refused(device: Device, photos: Path, tmp_path: Path) -> None:
    content = bytearray(INT8.read_bytes())
    content[1000] ^= 1
    damaged = tmp_path / "damaged.tflite"
    damaged.write_bytes(content)
    done = device.call("--model", damaged, next(photos.iterdir()))
    assert done.returncode == 3
    assert "damaged" in done.stderr


@pytest.fixture(scope="module")
def service(device: Device, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """unet-serve there, its extra installed into the same environment."""
    (runtime,) = (device.root / "wheels").glob("unet_edge_runtime-*.whl")
    folder = tmp_path_factory.mktemp("serve")
    house = Wheelhouse(folder, "linux-aarch64", "3.11")
    shutil.copy(runtime, folder)
    house.fetch_dependencies(folder / runtime.name, ["serve"])
    (pip,) = (device.root / "wheels").glob("pip-*.whl")  # its installer leaves none in the environment
    words = [device.root / "venv/bin/python", pip / "pip", "install", "--no-index", f"--find-links={folder}"]
    subprocess.run([*words, f"unet-edge-runtime[serve] @ {(folder / runtime.name).as_uri()}"], check=True, timeout=1800)
    log = folder / "serve.log"
    # No home and no environment, as a unit of systemd starts it.
    command = ["/usr/bin/env", "-i", device.root / "venv/bin/unet-serve", "--model", f"pets={INT8}", "--port", "0"]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        try:
            yield Running(process, log)
        finally:
            process.kill()


def test_a_service_answers_and_ends(service: Running, photos: Path) -> None:
    photo = next(photos.iterdir())
    answer = service.post("/segment?save=mask", photo.read_bytes())
    assert answer.status == 200, answer.body
    with Image.open(io.BytesIO(answer.body)) as mask:
        np.testing.assert_array_equal(np.asarray(mask), Segmenter(INT8)(photo).mask)
    assert service.get("/health").status == 200
    assert service.post("/segment", b"no photo").status == 400
    assert service.stop() == 0, service.log()


def test_unet_info_tells_the_truth(device: Device) -> None:
    done = device.call(program="unet-info")
    assert done.returncode == 0, done.stderr
    assert "Linux aarch64" in done.stdout
    # An emulated ONNX Runtime may take longer than an engine that hangs: what it says then is true as well.
    assert "    cpu      runs" in done.stdout
    assert done.stdout.count("    cpu      ") == 2
    assert "openvino  not installed" in done.stdout

"""What ``gpu.py`` takes along: models at each size, photos, wheels. Runs where training and export are installed."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from unet_export.bundle import wheels
from unet_export.foreign.load import load_model
from unet_export.formats import FORMATS, Builder
from unet_export.photos import PhotoSource, choose_photos
from unet_training.data.synthetic import ensure_dataset

REPOSITORY = Path(__file__).resolve().parents[1]
PRECISIONS = ("onnx", "onnx-float16")
CALIBRATED_ON = 16
"""Photos on which float16 is rounded, and its first layers are chosen: more of 512x512 take a CPU minutes."""

PICTURES = 24, 16
"""Numbers of pictures in a rehearsal: to train on, to measure."""

GPU_PACKAGES = ("onnxruntime-gpu[cuda,cudnn]", "jax[cuda13]>=0.10,<0.11")
"""TensorRT 10 is not among them: its package is a source archive that fetches wheels from NVIDIA's own index when it is
installed. ``--wheels`` takes them along."""

NOT_THERE = ("tensorflow", "tensorboard")
"""The training runs on JAX."""


def default_model() -> Path:
    """The trained model of the bundled files."""
    import bundled

    return bundled.KERAS


def write_models(model: Path, data: Path, folder: Path, sizes: Sequence[int]) -> None:
    """Write the model in float32 and float16 at each size: ``NAME-SIZE.PRECISION.onnx``."""
    folder.mkdir()
    trained, spec = load_model(model)
    for size in sizes:
        source = replace(spec.input, height=size, width=size)
        resized = replace(spec, input=source, output=replace(spec.output, height=size, width=size))
        with tempfile.TemporaryDirectory() as work:
            photos = choose_photos(PhotoSource(data), resized)
            photos = replace(photos, calibration=photos.calibration[:CALIBRATED_ON])
            builder = Builder(at_size(trained, size), resized, photos, Path(work))
            for name in PRECISIONS:
                form = FORMATS[name]
                builder.write(form, folder / form.file_name(resized), form.quantization)


def at_size(model: Any, size: int) -> Any:
    """The same network and weights for photos of another size."""
    config = model.get_config()
    config["layers"][0]["config"]["batch_shape"] = [None, size, size, 3]
    resized = model.from_config(config)
    resized.set_weights(model.get_weights())
    return resized


def write_data(data: Path, folder: Path) -> None:
    """The photos and their labels as they are. In reduced resolution they are smaller than their pixels at 160x160,
    compressed without loss, would be."""
    for name in ("images", "annotations"):
        shutil.copytree(data / name, folder / name)


def draw_pictures(folder: Path) -> None:
    """Generated pictures in Oxford-IIIT Pet's layout."""
    ensure_dataset(folder, train=PICTURES[0], test=PICTURES[1], size=96, seed=1)


def write_wheels(folder: Path, python: str, installed: Path | None, more: Path | None, *, own_only: bool) -> None:
    """The project's wheels and, but for ``own_only``, all that runtime and training need on a machine with a GPU.

    Args:
        folder: to make.
        python: version there.
        installed: what ``pip freeze`` says there; packages in it are left out, whatever their version.
        more: a folder of wheels to take along.
        own_only: whether the rest is there.
    """
    folder.mkdir()
    for wheel in [] if more is None else more.glob("*.whl"):
        shutil.copy(wheel, folder)
    for package in ("runtime", "training"):
        wheels.pip("wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", str(REPOSITORY / package))
    if own_only:
        return
    house = wheels.Wheelhouse(folder, "linux-x86_64", python)
    there = set() if installed is None else names_of(installed.read_text(encoding="utf-8"))
    pins = folder.parent / "pins.txt"
    platform = wheels.PLATFORMS["linux-x86_64"].uv_name
    options = [f"--python-platform={platform}", f"--python-version={python}", f"--output-file={pins}"]
    wheels._resolve("\n".join([*GPU_PACKAGES, *requirements()]), *options)
    lines = []
    for line in pins.read_text(encoding="utf-8").splitlines():
        if not names_of(line) & there:
            lines.append(line)
    pins.write_text("\n".join(lines), encoding="utf-8")
    house._download(f"--requirement={pins}")
    pins.unlink()


def names_of(text: str) -> set[str]:
    """Names of the packages that lines such as ``numpy==2.4.6`` pin."""
    return set(map(canonicalize_name, re.findall(r"^([\w.-]+)\s*(?:==|@)", text, re.MULTILINE)))


def requirements() -> list[str]:
    """What runtime and training need, without TensorFlow and themselves."""
    found = []
    for package in ("unet-edge-runtime", "unet-edge-training"):
        for line in metadata.requires(package) or []:
            requirement = Requirement(line)
            is_own = requirement.name.startswith("unet-edge")
            if requirement.marker is None and not is_own and requirement.name not in NOT_THERE:
                found.append(str(requirement))
    return found

"""Engines by name. A new engine is one module with ``load`` (see base.py) and one line here."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import NamedTuple, cast

from unet_runtime.core.artifact import Artifact
from unet_runtime.core.errors import BackendError
from unet_runtime.engines import wheels
from unet_runtime.engines.base import Backend, Load


class Engine(NamedTuple):
    module: str
    """Where its ``load`` is."""
    package: str
    """Top-level module of the engine itself."""
    suffixes: tuple[str, ...]
    """Model files it reads."""
    extra: str
    """Extra of unet-edge-runtime that installs it."""
    rivals: tuple[str, ...] = ()
    """Distributions that install the same package: only one may be there."""


ENGINES = {
    "onnx": Engine("unet_runtime.engines.onnxruntime", "onnxruntime", (".onnx",), "onnx", wheels.ONNXRUNTIME),
    "tflite": Engine("unet_runtime.engines.litert", "ai_edge_litert", (".tflite",), "tflite"),
    "openvino": Engine("unet_runtime.engines.openvino", "openvino", (".onnx",), "openvino"),
}
"""In the order in which ``auto`` prefers them."""

DEVICES = ("auto", "cpu", "cuda", "tensorrt")
"""``auto`` never takes ``tensorrt``: it builds its engine for minutes when a model is first used."""


def installed(name: str) -> bool:
    """Whether the engine's package is there; does not import it."""
    return package_file(name) is not None


def package_file(name: str) -> Path | None:
    """``__init__.py`` of the engine's package; None where it is not installed."""
    found = importlib.util.find_spec(ENGINES[name].package)
    # Without origin it is a folder that an uninstalled wheel left behind: Python takes any folder for a package.
    return Path(found.origin) if found is not None and found.origin is not None else None


def engine_for(suffix: str) -> str:
    """Name of the preferred installed engine for a model file's suffix.

    Raises:
        BackendError: none is installed, or no engine reads such files.
    """
    able = [name for name, engine in ENGINES.items() if suffix in engine.suffixes]
    for name in able:
        if installed(name):
            return name
    if not able:
        raise BackendError(f"no engine reads {suffix!r} files, expected .onnx or .tflite")
    raise BackendError(f"no engine for {suffix} files is installed: {install_hint(able[0])}")


def load(name: str, artifact: Artifact, *, device: str = "auto", threads: int | None = None) -> Backend:
    """Load a model into the engine ``name``.

    Raises:
        BackendError: unknown engine or device, engine not installed, broken, installed in two wheels, or it does
            not run on ``device`` or read this kind of file.
        ModelFileError: the engine refuses the file.
    """
    if name not in ENGINES:
        raise BackendError(f"backend {name!r}, expected one of {', '.join(ENGINES)}")
    if device not in DEVICES:
        raise BackendError(f"device {device!r}, expected one of {', '.join(DEVICES)}")
    engine = ENGINES[name]
    if artifact.path.suffix not in engine.suffixes:
        raise BackendError(f"{artifact.path}: backend {name} reads {', '.join(engine.suffixes)} files")
    return import_engine(name)(artifact, device, threads)


def import_engine(name: str) -> Load:
    """Import the engine ``name``: its module's ``load``.

    Raises:
        BackendError: not installed, installed in two wheels, or broken.
    """
    engine = ENGINES[name]
    package = package_file(name)
    if package is None:
        raise BackendError(f"backend {name} needs {engine.package}, which is not installed: {install_hint(name)}")
    if engine.rivals:
        wheels.refuse_several(package.parent, engine.rivals)
    try:
        return cast(Load, importlib.import_module(engine.module).load)
    except Exception as error:  # a damaged wheel or a missing system library raises anything: OSError, AttributeError
        raise BackendError(
            f"backend {name}: {engine.package} is installed but cannot be imported ({error}): "
            f"{install_hint(name)} --force-reinstall"
        ) from error


def install_hint(name: str) -> str:
    return f'pip install "unet-edge-runtime[{ENGINES[name].extra}]"'

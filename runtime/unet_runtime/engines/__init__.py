"""Engines by name. A new engine is one module with its record (see base.py), and its name in the list here."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, cast, get_args
from weakref import WeakSet

from unet_runtime.core import install
from unet_runtime.core.artifact import Artifact
from unet_runtime.core.errors import BackendError, MissingDependencyError
from unet_runtime.engines import choice, wheels
from unet_runtime.engines.base import MODELS, Backend, Device, Engine, split_device

__all__ = ["DEVICES", "ENGINES", "MODELS", "Backend", "Device", "Engine", "split_device"]

_MODULES = (
    "onnxruntime",
    "litert",
    "openvino",
)
"""In the order in which ``auto`` prefers them for a model that the user named."""


def _record(module: str) -> Engine:
    return cast(Engine, importlib.import_module(f"{__name__}.{module}").ENGINE)


ENGINES = {engine.name: engine for engine in map(_record, _MODULES)}
"""The engine's name, as ``--backend`` has it -> its record."""


class Choice(NamedTuple):
    """What ``auto`` takes."""

    engine: str
    model: Path
    why: str
    """In words, for ``unet-info``."""


DEVICES: tuple[Device, ...] = get_args(Device)


def find(name: str) -> Engine:
    """The record of the engine ``name``.

    Raises:
        BackendError: there is no such engine.
    """
    if name not in ENGINES:
        raise BackendError(f"backend {name!r}, expected one of {', '.join(ENGINES)}")
    return ENGINES[name]


def package_file(name: str) -> Path | None:
    """``__init__.py`` of the engine's package; None where it is not installed. Does not import it."""
    found = importlib.util.find_spec(ENGINES[name].package)
    # Without origin it is a folder that an uninstalled wheel left behind: Python takes any folder for a package.
    return Path(found.origin) if found is not None and found.origin is not None else None


def installed(name: str) -> bool:
    """Whether the engine's package is installed; does not import it."""
    return package_file(name) is not None


def install_hint(name: str) -> str:
    """The pip command that installs an engine."""
    return install.pip_command(ENGINES[name].extra)


def readers(suffix: str) -> list[str]:
    """Names of the engines that read model files of a suffix, installed or not, the preferred one first.

    Example:
        >>> readers(".onnx"), readers(".pt")
        (['onnx', 'openvino'], [])
    """
    return [name for name, engine in ENGINES.items() if suffix in engine.suffixes]


def engine_for(suffix: str, device: str = "auto") -> str:
    """Name of the preferred installed engine for a model file's suffix, of those that know the device if there are any.

    Raises:
        BackendError: no engine reads such files.
        MissingDependencyError: none of those that do is installed.
    """
    able = readers(suffix)
    if not able:
        raise BackendError(f"no engine reads {suffix!r} files, expected .onnx or .tflite")
    able = _for_device(able, device)
    return _first_installed(able, f"no engine for {suffix} files is installed")


def choose(names: Iterable[str], device: str = "auto") -> Choice:
    """The engine, of those ``names``, that runs a bundled model best on this machine, and that model.

    Nothing is imported or measured: ``choice.TABLE`` decides. Engines that it does not have come last.

    Args:
        names: engines, one at least.
        device: as for ``load``.
    """
    able = _for_device(list(names), device)
    for row in choice.rows(device, choice.has_gpu_wheel(package_file("onnx"))):
        if row.engine in able and row.model.exists():
            return Choice(row.engine, row.model, row.why)
    return Choice(able[0], find(able[0]).default_model, "the only one here")


def _for_device(names: list[str], device: str) -> list[str]:
    """Those of ``names`` that know a device, without those that lack a plug-in for it; all where none is left."""
    kind, _ = split_device(device)
    able = [name for name in names if kind in ("auto", *ENGINES[name].devices)]
    ready = [name for name in able if _has_plugin(name, kind)]
    return ready or able or names


def _has_plugin(name: str, kind: str) -> bool:
    plugin = cast(Mapping[str, str], ENGINES[name].plugins).get(kind)
    return plugin is None or importlib.util.find_spec(plugin) is not None


def default_choice(backend: str = "auto", device: str = "auto") -> Choice:
    """Engine and bundled model for what the user asked for, as ``choose``.

    Raises:
        BackendError: there is no engine ``backend``.
        MissingDependencyError: it is ``auto``, and none is installed.
    """
    if backend != "auto":
        return choose([find(backend).name], device)
    _first_installed(list(ENGINES), "no engine is installed")
    return choose(filter(installed, ENGINES), device)


def _first_installed(names: list[str], problem: str) -> str:
    for name in filter(installed, names):
        return name
    raise MissingDependencyError(f"{problem}: {' or '.join(dict.fromkeys(map(install_hint, names)))}")


def load(name: str, artifact: Artifact, *, device: str = "auto", threads: int | None = None) -> Backend:
    """Load a model into the engine ``name``.

    Raises:
        BackendError: unknown engine or device, an installation that does not work, or an engine that does not run on
            ``device`` or read this kind of file.
        MissingDependencyError: the engine is not installed.
        ModelFileError: the engine refuses the file.
    """
    engine = find(name)
    kind, _ = split_device(device)
    if kind not in DEVICES:
        raise BackendError(f"device {device!r}, expected one of {', '.join(DEVICES)}")
    if artifact.path.suffix not in engine.suffixes:
        raise BackendError(f"{artifact.path}: backend {name} reads {', '.join(engine.suffixes)} files")
    if kind not in ("auto", *engine.devices):
        able = [other.name for other in ENGINES.values() if kind in other.devices]
        raise BackendError(
            f"device {device}: {engine.label} does not run on it, expected {', '.join(('auto', *engine.devices))}: "
            f"take a .onnx model with --backend {' or '.join(able)}"
        )
    if not artifact.spec.is_plain and not engine.foreign:
        raise BackendError(f"{artifact.path}: backend {name} runs models of unet-export alone: take another --backend")
    import_engine(name)
    backend = engine.load(artifact, device, threads)
    if not artifact.spec.is_plain:
        from unet_runtime.engines.foreign import ForeignBackend  # what few need

        backend = ForeignBackend(backend, artifact.spec)
    _loaded.add(backend)
    return backend


_loaded: WeakSet[Backend] = WeakSet()


def _keep_for_ever() -> None:
    """In a forked child: never free the parent's engines, not even when the child ends.

    Their threads are not here. OpenVINO and ONNX Runtime wait for them for ever where a model, or what all models have
    in common, is freed, or they abort the process.
    """
    if not _loaded:
        return
    import ctypes

    for backend in _loaded:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(backend))  # a list would be emptied when the interpreter ends
    _loaded.clear()
    system = ctypes.CDLL(None)
    if hasattr(system, "on_exit"):  # glibc
        # Python has ended by then, and written what it had to write; the engines' own endings are left out.
        system.on_exit(system._exit, None)


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_keep_for_ever)


def import_engine(name: str) -> None:
    """Import an engine's package, to know that it works.

    Raises:
        BackendError: installed in two wheels, or broken.
        MissingDependencyError: not installed.
    """
    engine = ENGINES[name]
    package = package_file(name)
    if package is None:
        raise install.missing(f"backend {name}", engine.label, engine.extra)
    if engine.rival_wheels:
        wheels.refuse_several(package.parent, engine.rival_wheels)
    try:
        importlib.import_module(engine.entry or engine.package)
    except Exception as error:  # a damaged wheel or a missing system library raises anything: OSError, AttributeError
        raise BackendError(
            f"backend {name}: {engine.package} is installed but cannot be imported ({error}): "
            f"{install_hint(name)} --force-reinstall"
        ) from error

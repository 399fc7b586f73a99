"""Which wheels of an engine are installed, read from their metadata's folders: no engine is imported.

``onnxruntime`` and ``onnxruntime-gpu`` fill one folder with different files. With both installed the one installed
last decides what runs, and removing either breaks the other: so it is refused before anything is imported
(https://github.com/microsoft/onnxruntime/issues/26996).
"""

from __future__ import annotations

import os
from pathlib import Path

from unet_runtime.core import install
from unet_runtime.core.errors import BackendError

ONNXRUNTIME = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-rocm",
)
"""Wheels that all install the module ``onnxruntime``."""

_METADATA = ".dist-info"


def found(package: Path, names: tuple[str, ...]) -> dict[str, str]:
    """Name -> version of those of ``names`` that are installed beside ``package`` (the engine's own folder).

    One listing of the folder (0.3 ms); ``importlib.metadata`` would take 20 ms to be imported.
    """
    versions = {}
    for item in os.scandir(package.parent):  # lists names alone: half the time of pathlib
        name, _, version = item.name.removesuffix(_METADATA).partition("-")
        name = name.replace("_", "-")
        if item.name.endswith(_METADATA) and name in names:
            versions[name] = version
    return dict(sorted(versions.items()))


def refuse_several(package: Path, names: tuple[str, ...]) -> None:
    """Only one of wheels that share a folder may be installed.

    Raises:
        BackendError: several are; the message has the commands that repair it.
    """
    versions = found(package, names)
    if len(versions) > 1:
        wheels = " and ".join(map(" ".join, versions.items()))
        remedy = replace_by("cuda" if "onnxruntime-gpu" in versions else "onnx", tuple(versions))
        raise BackendError(
            f"{wheels} are both installed, expected one: they overwrite each other's files. Run: {remedy}"
        )


def replace_by(extra: str, names: tuple[str, ...] = ("onnxruntime", "onnxruntime-gpu")) -> str:
    """Commands that leave exactly one wheel, that of ``extra``: ``onnx``, ``cuda`` or ``tensorrt``."""
    return f"pip uninstall -y {' '.join(names)} && {install.pip_command(extra)}"

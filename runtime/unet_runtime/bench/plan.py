"""What is measured: every model file in every engine that reads it, on each device, with each number of threads."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.errors import BackendError, ModelFileError, UnetRuntimeError
from unet_runtime.core.spec import ModelSpec
from unet_runtime.engines import ENGINES, MODELS, engine_for, installed, readers


@dataclass(frozen=True)
class Model:
    """A model file that was read whole and found undamaged."""

    path: Path
    spec: ModelSpec
    bytes: int
    sha256: str
    """SHA-256 of the whole file."""


@dataclass(frozen=True)
class Combination:
    """One way to run one model."""

    model: Model
    backend: str
    device: str
    """The device asked for; what the model runs on is read back from the engine."""
    threads: int


@dataclass(frozen=True)
class Refusal:
    """A model file that cannot be measured at all."""

    file: Path
    reason: str


def thread_count(count: int) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{count} thread{'s' if count > 1 else ''}"


def model_files(named: Sequence[Path], backends: Sequence[str] = ()) -> list[Path]:
    """List model files: those named, those inside folders named, or the bundled ones where nothing is named.

    Args:
        named: files and folders.
        backends: engines; from folders and the bundled models, only files that one of them reads are taken. Empty: all
            engines.

    Raises:
        ModelFileError: a folder without such a file.
    """
    suffixes: set[str] = set()
    for name in backends or ENGINES:
        suffixes.update(ENGINES[name].suffixes)
    files: list[Path] = []
    for item in named or [MODELS]:
        inside = [item]
        if item.is_dir():
            inside = sorted(path for path in item.iterdir() if path.suffix in suffixes)
        if not inside:
            raise ModelFileError(f"{item}: no model in this folder, expected {' or '.join(sorted(suffixes))} files")
        files += inside
    return list(dict.fromkeys(files))


def plan(
    files: Sequence[Path], backends: Sequence[str], devices: Sequence[str], threads: Sequence[int]
) -> tuple[list[Combination], list[Refusal]]:
    """List the combinations in the order of ``files``, and the files that have none.

    Args:
        files: model files.
        backends: engines by name, installed or not; empty: all that are installed.
        devices: some of ``engines.DEVICES``.
        threads: numbers of CPU threads.
    """
    combinations: list[Combination] = []
    refusals: list[Refusal] = []
    for path in files:
        try:
            model = read_model(path)
            engines = _engines(path, backends)
        except UnetRuntimeError as error:
            refusals.append(Refusal(path, str(error)))
            continue
        for engine, device, count in itertools.product(engines, devices, threads):
            combinations.append(Combination(model, engine, device, count))
    return combinations, refusals


def read_model(path: Path) -> Model:
    """Read a model file whole and verify it.

    Raises:
        ModelFileError: it is missing, damaged or carries no spec.
    """
    artifact = read_artifact(path)
    return Model(path, artifact.spec, len(artifact.content), hashlib.sha256(artifact.content).hexdigest())


def _engines(path: Path, wanted: Sequence[str]) -> list[str]:
    """Engines to try on a file; one that was named but is not installed is tried too, so that its row says so."""
    able = readers(path.suffix)
    if not wanted:
        engine_for(path.suffix)  # raises where none is installed, and says what to install
        return list(filter(installed, able))
    chosen = [name for name in able if name in wanted]
    if not chosen:
        raise BackendError(f"{path}: none of {', '.join(wanted)} reads {path.suffix} files, {', '.join(able)} do")
    return chosen

"""What is measured: every model file in every engine that reads it, on each device, with each number of threads."""

from __future__ import annotations

import hashlib
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
    """Of the whole file."""


@dataclass(frozen=True)
class Combination:
    """One way to run one model."""

    model: Model
    backend: str
    device: str
    """As asked for; what it runs on is read back from the engine."""
    threads: int


@dataclass(frozen=True)
class Refusal:
    """A model file that cannot be measured at all."""

    path: Path
    reason: str


def thread_count(count: int) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{count} thread{'s' if count > 1 else ''}"


def model_files(named: Sequence[Path], backends: Sequence[str] = ()) -> list[Path]:
    """Files as named, folders replaced by the model files in them; without any, the bundled models.

    Args:
        named: files and folders.
        backends: engines; of folders and bundled models, only what one of them reads is taken. Empty: all engines.

    Raises:
        ModelFileError: a folder without such a file.
    """
    suffixes = tuple(sorted({suffix for name in backends or ENGINES for suffix in ENGINES[name].suffixes}))
    files: dict[Path, None] = {}
    for item in named or [MODELS]:
        inside = sorted(path for path in item.glob("*") if path.suffix in suffixes) if item.is_dir() else [item]
        if not inside:
            raise ModelFileError(f"{item}: no model in this folder, expected {' or '.join(suffixes)} files")
        files.update(dict.fromkeys(inside))
    return list(files)


def plan(
    files: Sequence[Path], backends: Sequence[str], devices: Sequence[str], threads: Sequence[int]
) -> tuple[list[Combination], list[Refusal]]:
    """Combinations in the order of ``files``, and the files that none was found for.

    Args:
        files: model files.
        backends: engines by name, installed or not; empty: all that are installed.
        devices: of ``backends.DEVICES``.
        threads: numbers of CPU threads.
    """
    combinations: list[Combination] = []
    refusals: list[Refusal] = []
    for path in files:
        try:
            model = _read(path)
            engines = _engines(path, backends)
        except UnetRuntimeError as error:
            refusals.append(Refusal(path, str(error)))
            continue
        combinations += [
            Combination(model, engine, device, count) for engine in engines for device in devices for count in threads
        ]
    return combinations, refusals


def _read(path: Path) -> Model:
    artifact = read_artifact(path)
    return Model(path, artifact.spec, len(artifact.content), hashlib.sha256(artifact.content).hexdigest())


def _engines(path: Path, wanted: Sequence[str]) -> list[str]:
    """Engines to try on a file: one that was named and is not installed too, so that its row says so."""
    able = readers(path.suffix)
    if not wanted:
        engine_for(path.suffix)  # raises where none is installed, and says what to install
        return [name for name in able if installed(name)]
    chosen = [name for name in able if name in wanted]
    if not chosen:
        raise BackendError(f"{path}: none of {', '.join(wanted)} reads {path.suffix} files, {', '.join(able)} do")
    return chosen

"""The commands of a comparison: run in processes of their own, and not again where they have done their work."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_runtime.cli import exits
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.errors import BackendError
from unet_runtime.core.spec import ModelSpec
from unet_training.errors import TrainingError
from unet_training.files import replacing

EXPORT_FORMATS = "onnx,onnx-int8,tflite-int8"

_PACKAGES = {
    "unet-train": "unet-edge-training",
    "unet-export": "unet-edge-export",
    "unet-bench": "unet-edge-runtime[bench]",
}


class StepError(TrainingError):
    """A command of the comparison failed; it has said why."""


@dataclass(frozen=True)
class Steps:
    """Everything but the network that a comparison holds fixed.

    What a command has done is known by the words it was given, which lie beside what it wrote: with others, or after
    an interruption, it runs again, a training from its last epoch on.
    """

    data: Path
    output: Path
    training: Sequence[str]
    """Options of every training."""
    parity_count: int
    """Photos of the test part that each export is proven on."""
    rounds: int
    """Of the timing."""

    def train(self, folder: Path, options: Sequence[str]) -> ModelSpec:
        """Train into ``folder``, with the further ``options``.

        Returns:
            The spec of the model made.

        Raises:
            StepError: the command failed.
            BackendError: the command is not installed.
        """
        model = folder / "model.keras"
        words = [
            "unet-train",
            "--data",
            str(self.data),
            "--output",
            str(folder),
            *self.training,
            *options,
            "--cache",
            str(self.output / "cache"),
        ]
        if not (_done(folder / "trained.json", words) and model.is_file()):
            _run([*words, "--resume"])
            _note(folder / "trained.json", words)
        return read_artifact(model).spec

    def export(self, folder: Path) -> tuple[list[Path], dict[str, Any]]:
        """Export what ``train`` left in ``folder``, repaired where that is needed and helps.

        Returns:
            The artifacts, accepted or not, and what ``parity.json`` says.

        Raises:
            StepError, BackendError: as ``train``.
        """
        exported = folder / "export"
        model = read_artifact(folder / "model.keras")
        words = [
            "unet-export",
            "model",
            str(model.path),
            "--formats",
            EXPORT_FORMATS,
            "--output",
            str(exported),
            "--data",
            str(self.data),
            "--parity-count",
            str(self.parity_count),
            "--repair",
            "auto",
        ]
        stamp = [*words, model.spec.provenance.weights_sha256]
        if not _done(folder / "exported.json", stamp):
            shutil.rmtree(exported, ignore_errors=True)  # an older export beside one that fails would pass for it
            _run(words, allowed=(exits.OK, exits.GATE))
            _note(folder / "exported.json", stamp)
        there = exported if (exported / "parity.json").is_file() else exported / "rejected"
        parity = json.loads((there / "parity.json").read_text(encoding="utf-8"))
        return [there / entry["file"] for entry in parity["artifacts"]], parity

    def bench(self, artifacts: Sequence[Path]) -> dict[str, Any]:
        """Time every artifact in every engine that is installed, in turns, on all cores.

        Returns:
            What ``unet-bench`` writes.

        Raises:
            StepError, BackendError: as ``train``.
        """
        result = self.output / "bench.json"
        words = [
            "unet-bench",
            *map(str, artifacts),
            "--threads",
            "all",
            "--rounds",
            str(self.rounds),
            "--output",
            str(self.output),
            "--json",
            str(result),
        ]
        _run(words)
        content: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return content


def _done(path: Path, words: Sequence[str]) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")) == list(words))
    except (OSError, ValueError):
        return False


def _note(path: Path, words: Sequence[str]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(list(words)), encoding="utf-8")


def _run(words: Sequence[str], allowed: Sequence[int] = (exits.OK,)) -> None:
    """Its output goes where this process' goes. An interruption reaches it too, and its cleaning up is waited for."""
    name = words[0]
    program = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if program is None:
        raise BackendError(f'{name} is not installed, which a comparison needs: pip install "{_PACKAGES[name]}"')
    with subprocess.Popen([program, *words[1:]]) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
    if code in (exits.INTERRUPTED, exits.TERMINATED):
        raise KeyboardInterrupt
    if code not in allowed:
        raise StepError(f"{' '.join(words)}: ended with exit code {code}; what it did before is kept")

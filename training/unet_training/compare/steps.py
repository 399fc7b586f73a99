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

from unet_runtime.core import files
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.errors import GATE, INTERRUPTED, OK, TERMINATED, MissingDependencyError
from unet_runtime.core.spec import ModelSpec
from unet_training.errors import TrainingError

EXPORT_FORMATS = "onnx,onnx-int8,tflite-int8"

_STDERR = 2
"""Where the commands print: this process' standard output is for the comparison."""

_SOURCES = {"unet-train": "./training", "unet-export": "./export", "unet-bench": '"./runtime[bench]"'}
"""Where pip finds each command's package, from the folder of unet-edge's sources."""


class StepError(TrainingError):
    """A command of the comparison failed; it has reported why."""


@dataclass(frozen=True)
class Steps:
    """The commands, with all options that are the same for every network.

    Each command's words are noted beside what it wrote: with other words, or after an interruption, it runs again, a
    training from its last epoch on.
    """

    data: Path
    output: Path
    training: Sequence[str]
    """Options of every training."""
    parity_count: int
    """Test photos of each export's parity gate."""
    rounds: int
    """Rounds of the timing."""

    def train(self, folder: Path, options: Sequence[str]) -> ModelSpec:
        """Train into ``folder``, with the further ``options``; the spec of the trained model.

        Raises:
            StepError: the command failed.
            MissingDependencyError: the command is not installed.
        """
        model = folder / "model.keras"
        words = ["unet-train", f"--data={self.data}", f"--output={folder}", f"--cache={self.output / 'cache'}"]
        words += [*self.training, *options]
        if not (_done(folder / "trained.json", words) and model.is_file()):
            _run([*words, "--resume"])
            _note(folder / "trained.json", words)
        return read_artifact(model).spec

    def export(self, folder: Path) -> tuple[list[Path], dict[str, Any]]:
        """Export what ``train`` left in ``folder``, repaired where that helps: its artifacts, accepted or not, and
        the content of ``parity.json``.

        Raises:
            StepError, MissingDependencyError: as ``train``.
        """
        exported = folder / "export"
        model = read_artifact(folder / "model.keras")
        words = ["unet-export", "model", str(model.path), f"--data={self.data}", f"--output={exported}"]
        words += [f"--formats={EXPORT_FORMATS}", f"--parity-count={self.parity_count}", "--repair=auto"]
        stamp = [*words, model.spec.provenance.weights_sha256]
        if not _done(folder / "exported.json", stamp):
            _run(words, allowed=(OK, GATE))
            _note(folder / "exported.json", stamp)
        # An export that passes removes the one that failed; the other way round an older one stays.
        rejected = exported / "rejected"
        there = rejected if (rejected / "parity.json").is_file() else exported
        parity = json.loads((there / "parity.json").read_text(encoding="utf-8"))
        return [there / entry["file"] for entry in parity["artifacts"]], parity

    def bench(self, artifacts: Sequence[Path]) -> dict[str, Any]:
        """Time every artifact in every installed engine, in turns, on all cores; the content of ``bench.json``.

        Raises:
            StepError, MissingDependencyError: as ``train``.
        """
        result = self.output / "bench.json"
        words = ["unet-bench", *map(str, artifacts), "--threads=all", f"--rounds={self.rounds}"]
        _run([*words, f"--output={self.output}", f"--json={result}"])
        content: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return content


def _done(path: Path, words: Sequence[str]) -> bool:
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")) == list(words))
    except (OSError, ValueError):
        return False


def _note(path: Path, words: Sequence[str]) -> None:
    files.write_text(path, json.dumps(list(words)))


def _run(words: Sequence[str], allowed: Sequence[int] = (OK,)) -> None:
    """Run a command that writes to this process' output. An interruption reaches it too, and its end is waited for."""
    name = words[0]
    program = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if program is None:
        raise MissingDependencyError(
            f"a comparison needs {name}, which is not installed: pip install {_SOURCES[name]}, in unet-edge's folder"
        )
    with subprocess.Popen([program, *words[1:]], stdout=_STDERR) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
    if code in (INTERRUPTED, TERMINATED):
        raise KeyboardInterrupt
    if code not in allowed:
        raise StepError(f"{' '.join(words)}: ended with exit code {code}; what it did before is kept")

"""Kills commands at random moments, goes on with ``--resume``, and looks at what lies there each time.

    python -m tests.robustness.kills folder FOLDER KILLS SEED
    python -m tests.robustness.kills training FOLDER KILLS SEED
    python -m tests.robustness.kills export FOLDER KILLS SEED

A command runs in a fork of this process, which has imported what it needs: TensorFlow alone takes seconds. FOLDER has
``photos`` and ``model.onnx``, or ``pictures``, or ``data`` and ``model.keras``. Prints JSON, the last line counts:
kills, runs that came to their end, what was wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO

Folder = dict[str, bytes]

MODULES = {
    "folder": "unet_runtime.cli.run",
    "training": "unet_training.cli.command",
    "export": "unet_export.cli.command",
}

EPOCHS = 10
KINDS = "mask,overlay,json"


@contextmanager
def command(module: str, words: list[str]) -> Iterator[tuple[int, IO[str]]]:
    """(process, what it prints on both streams) of a command in a fork."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115  # the ones before may have been files
        sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
        sys.argv = words
        code = 99
        try:
            import_module(module).main()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, errors="replace") as printed:
        yield child, printed


def run(module: str, words: list[str]) -> tuple[int, str]:
    """(exit code, output) of a command that nobody disturbs."""
    with command(module, words) as (child, printed):
        text = printed.read()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text


def killed(
    module: str, words: list[str], after: str, count: int, seconds: float, wait: Callable[[], object] = str
) -> tuple[int, list[str]]:
    """(exit code, lines) of a command that gets SIGKILL ``seconds`` after it has printed ``count`` lines with a word.

    ``wait`` is called before those seconds. The exit code is that of SIGKILL, unless the command was quicker.
    """
    with command(module, words) as (child, printed):
        lines: list[str] = []
        while count and (line := printed.readline()):
            lines.append(line)
            count -= after in line
        wait()
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        lines += printed.readlines()  # what was on its way: it has been reported
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), lines


class Folders:
    """Photos of a folder become files."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self._folder, self._rng = folder, rng
        self.out = folder / "out"
        code, text = run(MODULES["folder"], self._words(folder / "alone"))
        assert code == 0, text
        self._expected = content(folder / "alone")

    def _words(self, out: Path, *more: str) -> list[str]:
        source, model = str(self._folder / "photos"), str(self._folder / "model.onnx")
        return [
            "unet-run",
            source,
            "-o",
            str(out),
            "--save",
            KINDS,
            "--model",
            model,
            *more,
            "--coco",
            f"{out}/all.json",
        ]

    def kill(self) -> tuple[int, list[str]]:
        count = self._rng.randrange(8)
        seconds = self._rng.uniform(0, 0.01 if count else 0.4)
        return killed(MODULES["folder"], self._words(self.out, "--resume"), " -> ", count, seconds)

    def problems(self, lines: list[str]) -> list[str]:
        """Files that are no whole result, and results that were reported and are not there."""
        there = content(self.out)
        found = [f"{name} is damaged" for name in there if there[name] != self._expected.get(name)]
        for line in lines:
            for name in re.findall(r"[^ /,]+\.(?:mask\.png|overlay\.png|json)", line.partition(" -> ")[2]):
                if name not in there:
                    found.append(f"{name} was reported, and is not there")
        return found

    def end(self) -> list[str]:
        code, text = run(MODULES["folder"], self._words(self.out, "--resume"))
        if code:
            return [f"exit code {code}: {text[-500:]}"]
        return [] if content(self.out) == self._expected else ["other results than those of an undisturbed run"]


class Trainings:
    """A small network is trained."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self._folder, self._rng = folder, rng
        self.out = folder / "out"
        import keras  # noqa: F401
        import tensorflow as tf

        from unet_training import pipeline  # noqa: F401

        # Tracing its functions takes a process three quarters of the few seconds that it lives.
        tf.config.run_functions_eagerly(True)
        code, text = run(MODULES["training"], self._words(folder / "alone"))
        assert code == 0, text[-2000:]
        self._expected = json.loads((folder / "alone" / "history.json").read_text())

    def _words(self, out: Path) -> list[str]:
        words = ["unet-train", "--preset", "demo", "--width", "2", "--depth", "1", "--size", "32", "--batch-size", "4"]
        words += ["--epochs", str(EPOCHS), "--ema", "0.9", "--seed", "3", "--precision", "float32", "--no-cache"]
        return [*words, "--resume", "--data", str(self._folder / "pictures"), "--output", str(out)]

    def kill(self) -> tuple[int, list[str]]:
        count = self._rng.choice([0, 1, 1, 1, 2, 3])
        seconds = self._rng.uniform(0, 0.15 if count else 2)
        return killed(MODULES["training"], self._words(self.out), f"/{EPOCHS} ", count, seconds)

    def problems(self, lines: list[str]) -> list[str]:
        """A checkpoint that cannot be read, or that has not the epochs that were reported."""
        from unet_training.fit.checkpoint import CHECKPOINT, Checkpoint

        reported = [int(number) for number in re.findall(rf"epoch (\d+)/{EPOCHS} ", "".join(lines))]
        path = self.out / CHECKPOINT
        if not path.exists():
            return [f"epoch {max(reported)} was reported, and there is no checkpoint"] if reported else []
        try:
            state, _ = Checkpoint(path, "val_loss", {})._read()
        except Exception as error:
            return [f"{type(error).__name__}: {error}"]
        epochs = len(state["history"]["loss"])
        return [f"epoch {max(reported)} was reported, there are {epochs}"] if max(reported, default=0) > epochs else []

    def end(self) -> list[str]:
        from unet_runtime.core.artifact import read_artifact

        code, text = run(MODULES["training"], self._words(self.out))
        if code:
            return [f"exit code {code}: {text[-500:]}"]
        read_artifact(self.out / "model.keras")
        found = json.loads((self.out / "history.json").read_text())
        problems = []
        for name, values in self._expected.items():
            pairs = zip(values, found[name], strict=True)
            if any(abs(value - other) > 1e-4 + 1e-3 * abs(value) for value, other in pairs):
                problems.append(f"{name}: {found[name]}, undisturbed {values}")
        return problems


class Exports:
    """A model becomes files; a later export takes the place of an earlier one."""

    _ACCEPTS = 0.02  # seconds, about what the moves take

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self._folder, self._rng = folder, rng
        self.out = folder / "out"
        import keras  # noqa: F401
        import onnx  # noqa: F401
        import tf2onnx  # noqa: F401

        from unet_export import pipeline  # noqa: F401

        start = time.monotonic()
        code, text = run(MODULES["export"], self._words(folder / "alone"))
        assert code == 0, text[-2000:]
        self._seconds = time.monotonic() - start

    def _words(self, out: Path, formats: str = "saved-model,onnx") -> list[str]:
        words = ["unet-export", "model", str(self._folder / "model.keras"), "--data", str(self._folder / "data")]
        return [*words, "--formats", formats, "--output", str(out)]

    def kill(self) -> tuple[int, list[str]]:
        words = self._words(self.out, self._rng.choice(["saved-model,onnx", "onnx"]))
        if self._rng.random() < 0.5:
            return killed(MODULES["export"], words, "", 0, self._rng.uniform(0, self._seconds))
        # Artifacts get their names in a moment that chance would hardly ever meet.
        seconds = self._rng.uniform(0, self._ACCEPTS)
        return killed(MODULES["export"], words, "proving", 2, seconds, self._wait_for_moves)

    def _wait_for_moves(self) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and not self._moving():
            time.sleep(0.0005)

    def _moving(self) -> bool:
        """Whether artifacts have passed, and an export that lives or was killed moves them to their names."""
        return any(self._folder.glob(".new-out-*/previous"))

    def problems(self, lines: list[str]) -> list[str]:
        """Damaged artifacts, and a report that lists others than those which are there."""
        found = _damaged(self.out)
        if "accepted: " in "".join(lines) and not (self.out / "parity.json").is_file():
            found.append("an export was accepted, and there is no report")
        if not self._moving():
            found += _unlike_report(self.out)
        return found

    def end(self) -> list[str]:
        code, text = run(MODULES["export"], self._words(self.out))
        if code:
            return [f"exit code {code}: {text[-500:]}"]
        problems = _damaged(self.out) + _unlike_report(self.out)
        if {path.name for path in self.out.iterdir()} != {path.name for path in (self._folder / "alone").iterdir()}:
            problems.append(f"other files than those of an undisturbed export: {sorted(self.out.iterdir())}")
        if left := list(self._folder.glob(".new-*")):
            problems.append(f"left behind: {left}")
        return problems


def _damaged(folder: Path) -> list[str]:
    """What is wrong with the artifacts of an export; nothing where there is no folder."""
    from unet_runtime.core.artifact import read_artifact, read_saved_model_spec
    from unet_runtime.core.errors import ModelFileError

    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            if path.is_dir():
                read_saved_model_spec(path)
            elif path.suffix == ".onnx":
                read_artifact(path)
        except ModelFileError as error:
            found.append(str(error))
    return found


def _unlike_report(folder: Path) -> list[str]:
    """Artifacts that a report lists and that are not there, and the other way round."""
    report, found = folder / "parity.json", []
    listed = json.loads(report.read_text())["artifacts"] if report.is_file() else []
    for entry in listed:
        path = folder / entry["file"]
        if not path.exists():
            found.append(f"{path.name} is listed, and is not there")
        elif path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != entry["sha256"]:
            found.append(f"{path.name} is another than that which is listed")
    known = {"README.md", "parity.json", "report.html", *(entry["file"] for entry in listed)}
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in known:
            found.append(f"{path.name} is in no report")
    return found


def content(folder: Path) -> Folder:
    """Files by name, without those that are being written."""
    found = {}
    for path in folder.iterdir() if folder.is_dir() else ():
        if not path.name.startswith(".unet-edge."):
            found[path.name] = path.read_bytes()
    return found


def main() -> None:
    task, folder, kills, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    import_module(MODULES[task])
    rng = random.Random(seed)
    kinds: dict[str, Callable[[Path, random.Random], Folders | Trainings | Exports]] = {
        "folder": Folders,
        "training": Trainings,
        "export": Exports,
    }
    work = kinds[task](folder, rng)
    done, ends, problems = 0, 0, []
    while done < kills:
        code, lines = work.kill()
        done += code == -signal.SIGKILL
        problems += work.problems(lines)
        if code not in (0, -signal.SIGKILL):
            problems.append(f"exit code {code}: {''.join(lines)[-500:]}")
        if code == 0 or done == kills or rng.random() < 0.1:
            problems += work.end()
            ends += 1
            shutil.rmtree(work.out)
        print(json.dumps({"kills": done, "ends": ends, "problems": problems}), flush=True)


if __name__ == "__main__":
    main()

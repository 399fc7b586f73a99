"""Kills commands at random moments, goes on with ``--resume``, and looks at what lies there each time.

    python -m tests.robustness.kills folder FOLDER KILLS SEED
    python -m tests.robustness.kills training FOLDER KILLS SEED
    python -m tests.robustness.kills export FOLDER KILLS SEED

A command is the real one, ``main()`` in a fork of this process, which has imported what it needs but used none of it:
TensorFlow alone takes seconds. FOLDER has ``photos`` and ``model.onnx``, or ``pictures``, or ``data`` and
``model.keras``. Prints JSON, the last line counts: kills, those that left an unfinished file, runs that came to their
end, what was wrong.

Moments of a training and an export are drawn over the processor time of the whole command, however busy the machine
is. Half of them are drawn over its changes of files instead (one is opened to be written, gets its name, goes): chance
would hardly ever meet those.
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
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import IO

Folder = dict[str, bytes]

MODULES = {
    "folder": "unet_runtime.cli.run",
    "training": "unet_training.cli.command",
    "export": "unet_export.cli.command",
}

EPOCHS = 2
KINDS = "mask,overlay,json"

_FORMATS = ("saved-model", "onnx")
"""An export of one takes the place of an export of the other."""

_MOVING = ".new-out-*/previous"
"""What lies beside an export's folder while artifacts get their names."""


@dataclass(frozen=True)
class Span:
    """What a command takes from its beginning to its end."""

    seconds: float
    """Processor time."""
    changes: int
    """Files and folders that are opened to write, made, renamed, linked or removed."""


class Changes:
    """Counts the changes of files that a process makes below a folder; SIGKILL ends it right before the ``last``."""

    _EVENTS = frozenset(("os.mkdir", "os.rename", "os.link", "os.remove", "os.rmdir"))
    _WRITING = os.O_WRONLY | os.O_RDWR

    def __init__(self, folder: Path, last: int) -> None:
        self._folder, self._last = os.fspath(folder), last
        self.count = 0

    def __call__(self, event: str, arguments: tuple[object, ...]) -> None:
        """Take an event of ``sys.addaudithook``."""
        if event == "open":
            flags = arguments[2]
            if not isinstance(flags, int) or not flags & self._WRITING:
                return
        elif event not in self._EVENTS:
            return
        if any(self._folder in str(argument) for argument in arguments):
            self.count += 1
            if self.count == self._last:
                os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def command(module: str, words: list[str], changes: Changes | None = None) -> Iterator[tuple[int, IO[str]]]:
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
            if changes is not None:
                sys.addaudithook(changes)
            import_module(module).main()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 0
        except BaseException:
            traceback.print_exc()
        finally:
            if changes is not None:
                print(f"\n{changes.count}\n{' '.join(sys.modules)}", file=sys.stderr)
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


def span(module: str, words: list[str], folder: Path) -> Span:
    """What a command takes that nobody disturbs, and that works below a folder; what it imports is imported here."""
    with command(module, words, Changes(folder, 0)) as (child, printed):
        text = printed.read()
        _, status, usage = os.wait4(child, 0)
    assert status == 0, text[-2000:]
    *_, changes, modules = text.splitlines()
    for name in modules.split(" "):
        with suppress(Exception):  # made while the command ran, not a file
            import_module(name)
    return Span(usage.ru_utime + usage.ru_stime, int(changes))


def killed(module: str, words: list[str], after: str, count: int, seconds: float) -> tuple[int, list[str]]:
    """(exit code, lines) of a command that gets SIGKILL ``seconds`` after it has printed ``count`` lines with a word.

    The exit code is that of SIGKILL, unless the command was quicker.
    """
    with command(module, words) as (child, printed):
        lines: list[str] = []
        while count and (line := printed.readline()):
            lines.append(line)
            count -= after in line
        time.sleep(seconds)
        return _killed(child, printed, lines)


def killed_within(
    module: str, words: list[str], whole: Span, folder: Path, rng: random.Random
) -> tuple[int, list[str]]:
    """(exit code, lines) of a command that gets SIGKILL at a random moment of those that it takes as a whole."""
    if rng.random() < 0.5:
        with command(module, words, Changes(folder, rng.randint(1, whole.changes))) as (child, printed):
            lines = printed.readlines()
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), lines
    seconds = rng.uniform(0, whole.seconds)
    with command(module, words) as (child, printed):
        while _processor_seconds(child) < seconds:
            time.sleep(0.005)
        return _killed(child, printed, [])


def _killed(child: int, printed: IO[str], lines: list[str]) -> tuple[int, list[str]]:
    os.kill(child, signal.SIGKILL)
    lines += printed.readlines()  # what was on its way: it has been reported
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), lines


def _processor_seconds(child: int) -> float:
    """What a child has used of the processor; infinite once it has ended."""
    if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
        return float("inf")
    return time.clock_gettime((~child << 3) | 2)  # as clock_getcpuclockid makes it on Linux


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
        words = self._words(folder / "alone")
        span(MODULES["training"], words, folder)  # with its imports, which later ones need not
        shutil.rmtree(folder / "alone")
        self._whole = span(MODULES["training"], words, folder)
        self._expected = json.loads((folder / "alone" / "history.json").read_text())
        self._rest = span(MODULES["training"], words, folder)  # a finished one is resumed: all but the epochs

    def _words(self, out: Path) -> list[str]:
        words = ["unet-train", "--preset", "demo", "--width", "2", "--depth", "1", "--size", "32", "--batch-size", "8"]
        words += ["--epochs", str(EPOCHS), "--ema", "0.9", "--seed", "3", "--precision", "float32", "--no-cache"]
        return [*words, "--resume", "--data", str(self._folder / "pictures"), "--output", str(out)]

    def kill(self) -> tuple[int, list[str]]:
        left = (EPOCHS - self._epochs()) / EPOCHS
        seconds = self._rest.seconds + left * max(0.0, self._whole.seconds - self._rest.seconds)
        changes = self._rest.changes + round(left * (self._whole.changes - self._rest.changes))
        return killed_within(
            MODULES["training"], self._words(self.out), Span(seconds, changes), self._folder, self._rng
        )

    def _epochs(self) -> int:
        """How many the checkpoint has."""
        from unet_training.fit.checkpoint import CHECKPOINT, Checkpoint

        path = self.out / CHECKPOINT
        if not path.exists():
            return 0
        state, _ = Checkpoint(path, "val_loss", {})._read()
        return len(state["history"]["loss"])

    def problems(self, lines: list[str]) -> list[str]:
        """A file that is not whole, and a checkpoint that has not the epochs that were reported."""
        from unet_runtime.core.artifact import read_artifact

        reported = [int(number) for number in re.findall(rf"epoch (\d+)/{EPOCHS} ", "".join(lines))]
        found = []
        try:
            epochs = self._epochs()
            if (model := self.out / "model.keras").exists():
                read_artifact(model)
            if (history := self.out / "history.json").exists():
                json.loads(history.read_text())
            if (page := self.out / "report.html").exists() and not page.read_text().rstrip().endswith("</html>"):
                found.append("report.html is cut off")
        except Exception as error:
            return [f"{type(error).__name__}: {error}"]
        if max(reported, default=0) > epochs:
            found.append(f"epoch {max(reported)} was reported, there are {epochs}")
        if "\nmodel " in "".join(lines) and not model.exists():
            found.append("a model was reported, and there is none")
        return found

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

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self._folder, self._rng = folder, rng
        self.out = folder / "out"
        import keras  # noqa: F401
        import onnx  # noqa: F401
        import tf2onnx  # noqa: F401

        from unet_export import pipeline  # noqa: F401

        span(MODULES["export"], self._words(folder / "alone"), folder)  # with its imports, which later ones need not
        self._spans = {}
        for formats in _FORMATS:
            self._spans[formats] = span(MODULES["export"], self._words(folder / "alone", formats), folder)

    def _words(self, out: Path, formats: str = _FORMATS[-1]) -> list[str]:
        words = ["unet-export", "model", str(self._folder / "model.keras"), "--data", str(self._folder / "data")]
        return [*words, "--formats", formats, "--output", str(out)]

    def kill(self) -> tuple[int, list[str]]:
        formats = self._rng.choice(_FORMATS)
        words = self._words(self.out, formats)
        return killed_within(MODULES["export"], words, self._spans[formats], self._folder, self._rng)

    def _moving(self) -> bool:
        """Whether artifacts have passed, and an export that lives or was killed moves them to their names."""
        return any(self._folder.glob(_MOVING))

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

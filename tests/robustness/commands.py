"""Runs commands given as JSON lines, each in a fork of this process, and prints how each ended.

    python -m tests.robustness.commands FOLDER [keras] < cases > outcomes

A fork has everything imported that a command needs but its engine, so that a thousand commands take minutes; with
``keras`` TensorFlow, too, which has not been used yet, and begins in each fork anew. Every command runs in FOLDER and
has a time limit, its own output files, and the same folder as all others: nothing it writes helps the next.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

MAINS = {
    "unet-run": "unet_runtime.cli.run",
    "unet-info": "unet_runtime.cli.info",
    "unet-bench": "unet_runtime.cli.bench",
    "unet-serve": "unet_runtime.cli.serve",
    "unet-export": "unet_export.cli.command",
    "unet-train": "unet_training.cli.command",
}

HANG_SECONDS = 240
"""Seconds of wall time: the machine may be busy. What a command itself takes is counted by the processor."""

_WITH_KERAS = (
    "keras",
    "unet_training.pipeline",
    "unet_training.report",
    "unet_training.check",
    "unet_training.evaluate",
    "unet_training.compare.steps",
    "unet_export.pipeline",
    "unet_export.diagnosis.examine",
    "unet_runtime.serve.app",
    "unet_runtime.serve.server",
)


def run(words: list[bytes], stdin: str, stdout: str, stop: str = "", *, gone: bool = False) -> dict[str, Any]:
    """Exit code (negative: a signal), seconds of the processor and of the clock, output."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            os.setsid()
            _connect(stdin, os.O_RDONLY, 0)
            if stdout == "file":
                os.dup2(output.fileno(), 1)
            else:
                _connect(stdout, os.O_WRONLY, 1)
            os.dup2(errors.fileno(), 2)
            if gone:  # the current folder is removed
                os.chdir(tempfile.mkdtemp())
                Path.cwd().rmdir()
            _command(words)
        status, usage = _wait(child, start, output.fileno(), stop.encode())
        output.seek(0)
        errors.seek(0)
        return {
            "code": os.waitstatus_to_exitcode(status),
            "processor": usage.ru_utime + usage.ru_stime,
            "clock": time.monotonic() - start,
            "stdout": output.read(1 << 20).decode("latin-1"),
            "stderr": errors.read(1 << 20).decode("latin-1"),
        }


def _connect(name: str, flags: int, number: int) -> None:
    os.close(number)
    if name != "closed":
        assert os.open(name, flags) == number


def _command(words: list[bytes]) -> None:
    sys.stdin = open(0, closefd=False) if _is_open(0) else None  # type: ignore[assignment]  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False) if _is_open(1) else None  # type: ignore[assignment]  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
    sys.argv = list(map(os.fsdecode, words))
    code: Any = 99
    try:
        import_module(MAINS[sys.argv[0]]).main()
        code = 0
    except SystemExit as error:
        code = error.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code if isinstance(code, int) else 98)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _wait(child: int, start: float, output: int, stop: bytes) -> tuple[int, Any]:
    """Wait for a command's end; SIGTERM goes to it once it has printed ``stop``."""
    while True:
        if stop and stop in os.pread(output, 1 << 16, 0):
            os.kill(child, signal.SIGTERM)
            stop = b""
        found, status, usage = os.wait4(child, os.WNOHANG)
        if found:
            return status, usage
        if time.monotonic() - start > HANG_SECONDS:
            os.killpg(child, signal.SIGKILL)
            _, status, usage = os.wait4(child, 0)
            return status, usage
        time.sleep(0.005)


def main() -> None:
    for module in MAINS.values():
        import_module(module)
    for module in _WITH_KERAS if sys.argv[2:] == ["keras"] else ():
        import_module(module)
    os.chdir(sys.argv[1])
    for line in sys.stdin:
        case = json.loads(line)
        words = [word.encode("utf-8", "surrogateescape") for word in case["words"]]
        streams = case.get("stdin", os.devnull), case.get("stdout", "file")
        outcome = run(words, *streams, case.get("stop", ""), gone=case.get("gone", False))
        print(json.dumps({**case, **outcome}), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()

"""How commands end when a signal comes; in processes of their own, whose signals are theirs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from unet_runtime.cli import exits

PROGRAM = """
import os, signal, sys, time
import click
from unet_runtime.cli import exits
from unet_runtime.core.errors import BackendError

@click.command()
def command():
    try:
        os.kill(os.getpid(), {first})
        time.sleep(20)
    finally:
        {cleanup}

{before}
exits.stop_once()
exits.run(command)
"""


def ended(first: signal.Signals, cleanup: str = "pass", before: str = "") -> tuple[int, str, str]:
    """(exit code, standard output, standard error)."""
    program = PROGRAM.format(first=int(first), cleanup=cleanup, before=before)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=180, check=False)
    return done.returncode, done.stdout.strip(), done.stderr.strip()


@pytest.mark.parametrize(
    ("number", "code", "text"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_each_signal_has_its_exit_code(number: signal.Signals, code: int, text: str) -> None:
    assert ended(number) == (code, "", text)


def test_a_second_signal_does_not_cut_off_the_cleaning_up() -> None:
    again = "[os.kill(os.getpid(), number) for number in (2, 15)]; time.sleep(0.05); print('cleaned up')"
    assert ended(signal.SIGTERM, again) == (143, "cleaned up", "terminated")


def test_after_some_seconds_it_does() -> None:
    """What hangs while it cleans up can still be ended."""
    again = "os.kill(os.getpid(), 2); time.sleep(20)"
    assert ended(signal.SIGTERM, again, "exits._GRACE_SECONDS = 0")[0] == 130


def test_an_engine_that_is_interrupted_is_not_broken() -> None:
    assert ended(signal.SIGINT, "raise BackendError('cannot be imported')") == (130, "", "interrupted")


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    """As under nohup: the command comes to its own end."""
    assert ended(signal.SIGINT, "os._exit(7)", "signal.signal(2, signal.SIG_IGN); time.sleep = print")[0] == 7


SWALLOWED = """
import gc, os, pathlib, sys, tempfile, time, weakref
import click
from unet_runtime.cli import exits

class Last:
    def __del__(self):
        os.kill(os.getpid(), {number})
        for _ in range(100): pass

@click.command()
def command():
    try:
        {body}
        time.sleep(20)
    finally:
        print("cleaned up")

exits.stop_once()
exits.run(command)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param("import swallows_all", id="an import that catches everything"),
        pytest.param("import imports_another", id="an import within an import"),
        pytest.param("Last()", id="a destructor"),
        pytest.param("it = Last(); kept = weakref.ref(it, lambda _: time.sleep(0.05)); del it", id="a weak reference"),
    ],
)
def test_a_signal_that_is_swallowed_still_ends_the_command(
    body: str, number: signal.Signals, code: int, tmp_path: Path
) -> None:
    """What the handler raises is lost inside an optional import, or where Python cannot pass an exception on."""
    swallow = f"try:\n    import os, time\n    os.kill(os.getpid(), {int(number)})\n    time.sleep(0.2)\n"
    swallow += "except BaseException: pass\n"
    (tmp_path / "swallows_all.py").write_text(swallow)
    (tmp_path / "imports_another.py").write_text("try:\n    import swallows_all\nexcept BaseException: pass\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    program = SWALLOWED.format(number=int(number), body=body)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=180, env=environment, check=False
    )
    assert (done.returncode, done.stdout) == (code, "cleaned up\n"), done.stderr
    assert done.stderr.strip() == ("terminated" if number == signal.SIGTERM else "interrupted")


FULL = Path("/dev/full")

ENDS = """
import errno, sys
import click
from unet_runtime.cli import exits

@click.command()
def command():
    {body}

exits.run(command)
"""


def end(body: str, stdout: int | IO[bytes] = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", ENDS.format(body=body)]
    given = {name: value for name, value in os.environ.items() if name != exits.TRACEBACK} | environment
    return subprocess.run(
        program, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=180, env=given, check=False
    )


def test_an_unexpected_error_is_one_line() -> None:
    done = end("{}['caf\\udce9\\n\\x1b[31m']")
    assert done.returncode == exits.INTERNAL == 70
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("internal error: KeyError: ")
    assert "please report it" in done.stderr
    assert "\x1b" not in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in end("1 / 0", UNET_EDGE_TRACEBACK="1").stderr
    assert "Traceback" not in end("1 / 0", UNET_EDGE_TRACEBACK="0").stderr


def test_errors_of_the_system_and_of_memory_are_no_internal_ones() -> None:
    done = end("open('/no/such')")
    assert (done.returncode, done.stderr) == (1, "error: /no/such: No such file or directory\n")
    done = end("raise MemoryError")
    assert done.returncode == 1
    assert done.stderr.startswith("error: this machine's memory is full")


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps the folder that a process is in")
def test_a_current_folder_that_was_deleted() -> None:
    gone = "import os, tempfile; folder = tempfile.mkdtemp(); os.chdir(folder); os.rmdir(folder); "
    done = end(gone + "os.getcwd()")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith("error: the current folder is gone")


@pytest.mark.skipif(not FULL.is_char_device(), reason="needs Linux' full device")
@pytest.mark.parametrize("body", ["click.echo('text')", "click.echo('x' * 100_000)", "sys.stdout.write('x')"])
def test_a_full_standard_output(body: str) -> None:
    with os.fdopen(os.open(FULL, os.O_WRONLY), "wb") as full:
        done = end(body, full)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "standard output cannot be written (No space left on device)" in done.stderr


def test_a_closed_standard_output() -> None:
    program = f'exec >&-; exec {sys.executable} -c "$0"'
    for body, code in (("click.echo('text')", 1), ("click.echo('text', err=True)", 0)):
        done = subprocess.run(
            ["/bin/sh", "-c", program, ENDS.format(body=body)], capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == code
        assert "Traceback" not in done.stderr
        assert ("standard output cannot be written" in done.stderr) == (code == 1)


def test_a_closed_descriptor_is_not_given_to_a_file() -> None:
    program = f'exec <&- >&- ; exec {sys.executable} -c "$0"'
    body = "import tempfile; click.echo(tempfile.TemporaryFile().fileno() > 2, err=True)"
    done = subprocess.run(
        ["/bin/sh", "-c", program, ENDS.format(body=body)], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.stderr == "True\n"


def test_what_an_encoding_has_not_is_escaped() -> None:
    done = end("print('caf\\udce9 \\u30d5')", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "caf\\udce9 \\u30d5\n")

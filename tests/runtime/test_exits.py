"""How commands end when a signal comes; in processes of their own, whose signals are theirs."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

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
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
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

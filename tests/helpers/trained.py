"""Commands that load TensorFlow, run in this process, or started in one of their own."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import shlex
import subprocess
import sys
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import keras
import pytest

from tests.helpers.paths import REPOSITORY
from unet_export.cli import command as exporting
from unet_training.cli import command

TINY = ("--width", "2", "--depth", "1", "--size", "32", "--batch-size", "4")
"""Options of a training that takes seconds."""


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def unet_train(*arguments: object) -> Ended:
    """Run ``unet-train`` in this process, from its entry point to its exit code."""
    return in_this_process(command.main, "unet-train", *arguments)


def typed(line: str) -> Ended:
    """A line of a shell that runs a command which loads TensorFlow: in this process, which has loaded it; eagerly."""
    program, *words = shlex.split(line)
    name = Path(program).name
    mains = {"unet-train": command.main, "unet-export": exporting.main}
    with eager_steps():
        return in_this_process(mains[name], name, *words)


def in_this_process(main: Callable[[], object], name: str, *arguments: object) -> Ended:
    """Run the command ``name``, whose entry point is ``main``, as a process of its own would."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        unittest.mock.patch.object(sys, "argv", [name, *map(str, arguments)]),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Ended(int(ended.value.code or 0), out.getvalue(), err.getvalue())


@contextlib.contextmanager
def eager_steps() -> Iterator[None]:
    """Keras computes each step operation by operation.

    Most of a training of few steps is the making of its graph. The fixture ``trained`` makes one, as do ``make demo``,
    trainings under JAX, and those of tests/training/test_train.py that are about graphs.
    """
    compile_eagerly = functools.partialmethod(keras.Model.compile, run_eagerly=True)
    with unittest.mock.patch.object(keras.Model, "compile", compile_eagerly):
        yield


EAGER = "import functools, keras; keras.Model.compile = functools.partialmethod(keras.Model.compile, run_eagerly=True)"
"""What ``eager_steps`` does, for a process that ``start_training`` starts."""

_SMALL = """
from tests.helpers.one_convolution import one_convolution
from unet_training.models import unet
unet.build = one_convolution
{}
from unet_training.cli.command import main
main()
"""


def start_training(*arguments: object, code: str = "") -> subprocess.Popen[str]:
    """``unet-train`` in a process of its own, on a network of one convolution; ``code`` is run before it begins."""
    command = [sys.executable, "-c", _SMALL.format(code), *map(str, arguments)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment, cwd=REPOSITORY)


def read_until(words: str, process: subprocess.Popen[str]) -> None:
    """Read the process's standard error until a line with ``words`` has come."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"the command ended with {process.wait()} before {words!r}")


class Trained(NamedTuple):
    output: Path
    ended: Ended

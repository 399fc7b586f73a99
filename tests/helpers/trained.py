"""The command unet-train, run in this process."""

from __future__ import annotations

import contextlib
import functools
import io
import sys
import unittest.mock
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import keras
import pytest

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

    Most of a training of few steps is the making of its graph. Trainings in processes of their own make one, as do
    those of the fixture ``trained``, of ``make demo`` and of tests/training/test_train.py.
    """
    compile_eagerly = functools.partialmethod(keras.Model.compile, run_eagerly=True)
    with unittest.mock.patch.object(keras.Model, "compile", compile_eagerly):
        yield


class Trained(NamedTuple):
    output: Path
    ended: Ended

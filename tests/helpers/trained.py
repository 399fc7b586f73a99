"""The command unet-train, run in this process."""

from __future__ import annotations

import contextlib
import io
import sys
import unittest.mock
from pathlib import Path
from typing import NamedTuple

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
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        unittest.mock.patch.object(sys, "argv", ["unet-train", *map(str, arguments)]),
        pytest.raises(SystemExit) as ended,
    ):
        command.main()
    return Ended(int(ended.value.code or 0), out.getvalue(), err.getvalue())


class Trained(NamedTuple):
    output: Path
    ended: Ended

"""Waiting for a condition; what tests of the live view share: patience with cameras, a screen without a monitor."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable

import pytest

from unet_runtime.live.source import Patience
from unet_runtime.live.view import Status

QUICK = Patience(open=30.0, read=0.5, delays=(0.1, 0.2, 0.4, 0.8))
"""For cameras that are there: a loss is noticed soon, and a start may take long on a busy machine."""

IMPATIENT = Patience(open=1.0, read=0.5)
"""For those that never give a picture."""

STATUS = Status(29.84, 41.6, 1234, "camera lost, trying again in 2 s", is_lost=True)


def wait_for(what: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


_kept: list[socket.socket] = []


def closed_port() -> int:
    """A TCP port where nobody listens, nor will while the tests run: it is taken."""
    _kept.append(socket.socket())
    _kept[-1].bind(("127.0.0.1", 0))
    return int(_kept[-1].getsockname()[1])


def start_xvfb(*options: str) -> tuple[subprocess.Popen[bytes], str]:
    """(server, name of its display), on a number that is free."""
    program = shutil.which("Xvfb")
    if program is None:
        pytest.skip("no Xvfb: apt install xvfb")
    reader, writer = os.pipe()
    arguments = [program, "-displayfd", str(writer), "-screen", "0", "800x600x24", "-nolisten", "tcp"]
    arguments += ["-noreset", *options]  # else it starts anew, for a while, after its last client has gone
    server = subprocess.Popen(arguments, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as answer:
        number = answer.readline().strip()
    assert number, "Xvfb did not start"
    return server, f":{number}"


def stop(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    server.wait(60)

"""A screen without a monitor, and a browser without a screen."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from unet_runtime.io.video.opencv import load_opencv
from unet_runtime.live.view import Status
from unet_runtime.live.web import WebView

STATUS = Status(29.84, 41.6, 1234, "camera lost, trying again in 2 s")

load_opencv("a test")  # by whichever test it is imported first, it is as quiet as our commands want it


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
    server.wait(10)


@pytest.fixture(scope="module")
def screen() -> Iterator[str]:
    """DISPLAY of an X server of 800 by 600 pixels."""
    server, display = start_xvfb()
    yield display
    stop(server)


@pytest.fixture(scope="session")
def chromium() -> Path:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium: apt install chromium")
    return Path(program)


@pytest.fixture
def halves() -> np.ndarray:
    """uint8 (240, 320, 3): left half red, right half blue."""
    picture = np.zeros((240, 320, 3), np.uint8)
    picture[:, :160, 0] = 200
    picture[:, 160:, 2] = 200
    return picture


@pytest.fixture
def view() -> Iterator[WebView]:
    """The web view, on a port that is free."""
    view = WebView(port=0)
    yield view
    view.close()

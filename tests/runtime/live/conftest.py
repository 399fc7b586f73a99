"""A screen without a monitor, and a browser without a screen."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.live import start_xvfb, stop
from unet_runtime.io.video.opencv import load_opencv
from unet_runtime.live.web import WebView

load_opencv("a test")  # by whichever test it is imported first, it is as quiet as our commands want it


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


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its event loop leaves some behind
        with api.sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=str(chromium),
                args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--allow-file-access-from-files"],
            )
            yield browser
            browser.close()


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

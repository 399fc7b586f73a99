"""A screen without a monitor, and a browser without a screen."""

from __future__ import annotations

from collections.abc import Iterator

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

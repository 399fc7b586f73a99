"""Choosing a view. What each one shows is in its own test."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from unet_runtime.core.errors import BackendError
from unet_runtime.live.view import Status
from unet_runtime.live.views import open_view


def test_no_view_takes_pictures_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    view = open_view("none")
    view.show(np.zeros((4, 4, 3), np.uint8), Status(message="unseen"))
    assert (view.name, view.note, view.keys()) == ("none", "", "")
    view.close()
    assert capfd.readouterr() == ("", "")


def test_an_unknown_view_is_an_error_that_names_the_known_ones() -> None:
    with pytest.raises(BackendError, match="view 'hologram', expected one of auto, window, web, none"):
        open_view("hologram")


def test_a_web_view_is_at_the_address_it_names() -> None:
    view = open_view("web", port=0)
    view.close()
    assert view.name.startswith("web at http://127.0.0.1:")
    assert view.note == ""


def test_nothing_is_imported_for_a_view_that_is_not_opened() -> None:
    program = "import sys; from unet_runtime.live.views import open_view; open_view('none'); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"cv2", "http.server", "unet_runtime.live.picture"} & set(loaded)

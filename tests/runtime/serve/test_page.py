"""The page for people in headless Chromium, on a wide screen and on a phone's."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.helpers.serving import Running, serving
from tests.helpers.web_page import check_cutout, watched

SECONDS = 60_000  # ms
SCREENSHOTS = os.environ.get("SCREENSHOTS", "")
"""Folder in which pictures of the page are kept, for people."""


@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)])
def test_the_page_segments_photos(
    service: Running, browser: Any, photo: bytes, tmp_path: Path, width: int, height: int
) -> None:
    with Image.open(io.BytesIO(photo)) as picture:
        picture.resize((600, 400), Image.Resampling.NEAREST).save(tmp_path / "stripes.png")
    (tmp_path / "broken.png").write_bytes(photo[:50])
    page = browser.new_page(viewport={"width": width, "height": height}, accept_downloads=True)
    complaints, addresses = watched(page)
    page.set_default_timeout(SECONDS)
    page.goto(service.url)
    page.wait_for_selector("#classes li")
    assert page.inner_text("#engine").startswith("colours, float32: ONNX Runtime")
    page.set_input_files("#files", [tmp_path / "stripes.png", tmp_path / "broken.png"])
    page.wait_for_selector("#view:not([hidden])")
    page.wait_for_selector("#strip button.bad")
    page.keyboard.press("Tab")
    page.check("#compare")
    page.wait_for_selector("#wipe:not([hidden])")
    page.check("input[value=cutout]", force=True)
    page.check("#fine")
    page.uncheck("#compare")
    check_cutout(page, width)
    page.close()
    assert complaints == []
    for address in addresses:
        assert address.startswith((service.url, "blob:", "data:"))


@pytest.mark.skipif(not SCREENSHOTS, reason="SCREENSHOTS names no folder")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1400, 900), (390, 844)])
def test_pictures_of_the_page(
    browser: Any, sample_photo: Path, tmp_path: Path, width: int, height: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
    page.set_default_timeout(SECONDS)
    with serving(tmp_path) as service:
        take_picture(page, service, sample_photo, Path(SCREENSHOTS) / f"serve-{width}-{scheme}.jpg")


def take_picture(page: Any, service: Running, photo: Path, target: Path) -> None:
    page.goto(service.url)
    page.wait_for_selector("#classes li")
    page.set_input_files("#files", [photo])
    page.wait_for_selector("#view:not([hidden])")
    page.check("#compare")
    page.wait_for_function("!document.querySelector('#strip button.wait')")
    page.screenshot(path=str(target), full_page=True, type="jpeg", quality=80)
    page.close()

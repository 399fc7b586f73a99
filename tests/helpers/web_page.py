"""The page for people, of a service or in the browser alone, as its users click through it."""

from __future__ import annotations

from typing import Any

from PIL import Image

GROUND = (16, 32, 48)


def watched(page: Any) -> tuple[list[str], list[str]]:
    """What a page complains about, and the addresses that it asks for, from now on."""
    complaints: list[str] = []
    addresses: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: addresses.append(request.url))
    return complaints, addresses


def check_cutout(page: Any, width: int) -> None:
    """With the photo of stripes (600x400) on show, and a broken one: cut-out on a colour, download, message."""
    assert "red 34.3 %" in page.get_attribute("#view", "aria-label")
    assert page.inner_text("#classes").count("%") == 3
    page.check("input[value=cutout]", force=True)
    page.fill("#ground", "#{:02x}{:02x}{:02x}".format(*GROUND))
    with page.expect_download() as download:
        page.click("#save")
    with Image.open(download.value.path()) as saved:
        assert saved.size == (600, 400)
        assert saved.convert("RGB").getpixel((50, 200)) == (255, 0, 0)
        assert saved.convert("RGB").getpixel((300, 200)) == GROUND
    page.click("#strip button.bad")
    assert "broken.png" in page.inner_text("#message")
    assert page.evaluate("document.documentElement.scrollWidth") <= width

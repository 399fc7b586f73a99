"""The web view's page in headless Chromium, as its users see it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.live import STATUS
from unet_runtime.live.view import About, Status
from unet_runtime.live.web import WebView


class Page:
    """A page of the browser, and what went wrong in it."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.complaints, self.requests = page, [], []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.set_default_timeout(120_000)
        page.goto(address)

    def text(self, name: str) -> str:
        return str(self.page.inner_text(f"#{name}"))

    def pixel(self, x: float, y: float) -> list[int]:
        """RGB of the canvas at a place in 0..1."""
        script = """([x, y]) => {
            const one = new OffscreenCanvas(1, 1).getContext("2d");
            one.drawImage(canvas, x * canvas.width, y * canvas.height, 1, 1, 0, 0, 1, 1);
            return [...one.getImageData(0, 0, 1, 1).data];
        }"""
        return list(self.page.evaluate(script, [x, y]))[:3]

    def wait(self, condition: Callable[[], bool]) -> None:
        for _ in range(1200):
            if condition():
                return
            self.page.wait_for_timeout(50)
        raise AssertionError("not within 60 s")


@contextmanager
def page_of(browser: Any, address: str, **settings: Any) -> Iterator[Page]:
    context = browser.new_context(**settings)
    try:
        yield Page(context.new_page(), address)
    finally:
        context.close()


def address(view: WebView) -> str:
    return view.name.removeprefix("web at ")


def test_the_page_shows_the_moving_picture_and_its_status_and_presses_keys(
    browser: Any, view: WebView, halves: np.ndarray, tmp_path: Path
) -> None:
    with page_of(browser, address(view), viewport={"width": 1280, "height": 800}) as page:
        assert page.page.is_visible("text=Waiting for the first picture")
        view.show(halves, Status(29.84, 41.6, 1234))
        page.wait(lambda: page.text("state") == "live")
        assert page.pixel(0.25, 0.5) == pytest.approx([200, 0, 0], abs=6)
        assert page.pixel(0.75, 0.5) == pytest.approx([0, 0, 200], abs=6)
        assert [page.text(name) for name in ("frame_rate", "latency", "dropped")] == ["29.8", "42", "1,234"]
        assert page.page.is_hidden("#message")
        view.show(halves[:, ::-1], STATUS)
        page.wait(lambda: page.text("message") == STATUS.message)
        assert page.text("state") == "camera lost"
        assert page.page.evaluate("document.getElementById('picture').classList.contains('old')")
        assert page.pixel(0.25, 0.5) == pytest.approx([0, 0, 200], abs=6)
        page.page.click("text=Background")
        page.page.keyboard.press("s")
        page.page.keyboard.press("Control+q")
        page.page.keyboard.press("x")
        pressed: list[str] = []
        page.wait(lambda: bool(pressed.append(view.keys())) or "".join(pressed) == "bs")
        page.page.screenshot(path=tmp_path / "desktop.png")
        assert page.complaints == []
        assert page.requests
        assert all(url.startswith((address(view), "data:")) for url in page.requests)


def test_the_page_fits_a_phone(browser: Any, view: WebView, halves: np.ndarray, tmp_path: Path) -> None:
    phone = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}
    with page_of(browser, address(view), **phone, color_scheme="dark") as page:
        view.show(halves, STATUS)
        page.wait(lambda: page.text("state") == "camera lost")
        assert page.page.evaluate("document.documentElement.scrollWidth") == 360
        for name in ("background", "save", "quit"):
            place = page.page.locator(f"#{name}").bounding_box()
            assert place["height"] >= 44
            assert place["y"] + place["height"] <= 640
            page.page.tap(f"#{name}")
        assert page.text("quit") == "Press again to quit"
        assert page.page.evaluate("document.querySelector('footer').scrollWidth") == 360
        pressed: list[str] = []

        def quits() -> bool:
            page.page.tap("#quit")  # again, where the seconds for it are over
            pressed.append(view.keys())
            return "".join(pressed).startswith("bsq")

        page.wait(quits)
        page.page.screenshot(path=tmp_path / "phone.png")
        assert page.complaints == []


def test_the_page_names_what_is_on_show_and_offers_what_was_saved(
    browser: Any, halves: np.ndarray, tmp_path: Path
) -> None:
    mask = tmp_path / "live-1.mask.png"
    mask.write_bytes(b"a mask")
    (tmp_path / "secret.txt").write_bytes(b"secret")
    legend = (("pet", (230, 60, 90)), ("border", (250, 200, 60)))
    view = WebView(port=0, about=About("camera 0", "pets-edge, int8", "ONNX Runtime 1.31.1, cpu", legend))
    try:
        view.show(halves, Status(background="blur", saved=(mask,)))
        with page_of(browser, address(view)) as page:
            page.wait(lambda: page.text("state") == "live")
            assert page.text("about") == "camera 0 · pets-edge, int8 · ONNX Runtime 1.31.1, cpu"
            assert page.text("legend").split() == ["pet", "border"]
            assert page.text("background").startswith("Blur")
            with page.page.expect_download() as download:
                page.page.click("#saved a")
            assert download.value.suggested_filename == mask.name
            assert Path(download.value.path()).read_bytes() == b"a mask"
            for name in ("secret.txt", "..%2Fsecret.txt", ""):
                answer = page.page.evaluate("async (name) => (await fetch(`/saved/${name}`)).status", name)
                assert answer == 404
    finally:
        view.close()


def test_the_page_says_when_the_program_has_ended_and_goes_on_when_it_is_back(browser: Any, halves: np.ndarray) -> None:
    view = WebView(port=0)
    view.show(halves, Status())
    with page_of(browser, address(view)) as page:
        page.wait(lambda: page.text("state") == "live")
        view.close()
        page.wait(lambda: page.text("state") == "no answer")
        assert "has ended" in page.text("message")
        assert page.page.is_disabled("#quit")
        again = WebView(port=view.port)
        try:
            assert again.port == view.port
            again.show(halves, Status())
            page.wait(lambda: page.text("state") == "live")
            assert page.page.is_hidden("#message")
        finally:
            again.close()


def test_another_page_can_neither_press_keys_nor_show_the_picture(
    browser: Any, view: WebView, halves: np.ndarray
) -> None:
    view.show(halves, Status())
    page_text = f"""<!doctype html><title>other</title><script>
        const at = "{address(view)}", seen = [];
        const image = new Image();
        image.onload = () => seen.push("picture shown");
        image.onerror = () => seen.push("picture refused");
        image.src = at + "frame";
        fetch(at + "keys", {{method: "POST", body: "q", mode: "no-cors"}}).finally(() => seen.push("asked"));
        fetch(at + "frame").then(() => seen.push("frame read"), () => seen.push("frame refused"));
    </script>"""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page_text.encode())

        def log_message(self, *arguments: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        thread = threading.Thread(target=other.serve_forever, args=(0.05,))
        thread.start()
        try:
            with page_of(browser, f"http://127.0.0.1:{other.server_port}/") as page:
                page.wait(lambda: len(page.page.evaluate("seen")) == 3)
                assert sorted(page.page.evaluate("seen")) == ["asked", "frame refused", "picture refused"]
        finally:
            other.shutdown()
            thread.join()
    assert view.keys() == ""

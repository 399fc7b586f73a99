"""The page that ``formats/web.py`` writes, in headless Chromium: its model on given inputs, its masks of photos."""

from __future__ import annotations

import base64
import functools
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unet_export.photos import Photo
from unet_runtime import Segmenter
from unet_runtime.core.errors import BackendError
from unet_runtime.core.install import missing
from unet_runtime.core.spec import ModelSpec
from unet_runtime.core.text import one_line


class NoBrowserError(BackendError):
    """No Chromium starts here: a page cannot be checked."""


AGREEMENT = 0.999
"""Smallest share of pixels (0..1) of all photos, at their own sizes, that have the same class in the page's masks as in
those of unet-run: the two decode JPEG a little differently."""

_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_MILLISECONDS = 120_000

_INFER = """async ([index, packed]) => {
    const images = new Uint8Array(await (await fetch("data:;base64," + packed)).arrayBuffer());
    const values = await source.infer(models[index], images);
    return new Promise((done) => {
        const reader = new FileReader();
        reader.onload = () => done(reader.result);
        reader.readAsDataURL(new Blob([values]));
    });
}"""

_SEGMENT = """async ([index, packed]) => {
    const file = await (await fetch("data:;base64," + packed)).blob();
    try {
        (await createImageBitmap(file)).close();
    } catch {
        return null; // another browser may show it
    }
    const result = await source.segment({ model: models[index], file }, true);
    return new Promise((done) => {
        const reader = new FileReader();
        reader.onload = () => done([result.width, result.height, reader.result]);
        reader.readAsDataURL(new Blob([result.ids]));
    });
}"""


class Page:
    """One model of an open page; called with inputs it is a ``Run`` of the gate.

    Args:
        page: Playwright's.
        index: of the model in the page.
        spec: of that model.
        path: the model's file, for comparison with the runtime.
    """

    def __init__(self, page: Any, index: int, spec: ModelSpec, path: Path) -> None:
        self._page = page
        self._index = index
        self._output = (spec.output.height, spec.output.width, len(spec.classes))
        self._path = path

    def __call__(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Probabilities float32 (n, h', w', C) of inputs uint8 (n, h, w, 3)."""
        values = self._page.evaluate(_INFER, [self._index, _packed(images.tobytes())])
        return np.frombuffer(_unpacked(values), np.float32).reshape(len(images), *self._output)

    def mask(self, photo: bytes) -> npt.NDArray[np.uint8] | None:
        """Class ids (H, W) of a photo at its own size; None for a file that Chromium does not decode."""
        result = self._page.evaluate(_SEGMENT, [self._index, _packed(photo)])
        if result is None:
            return None
        width, height, ids = result
        return np.frombuffer(_unpacked(ids), np.uint8).reshape(height, width)

    def agreement(self, photos: Sequence[Path]) -> tuple[float, int]:
        """Share of pixels (0..1) whose class is that of unet-run, and how many photos that is of."""
        same = pixels = shown = 0
        with Segmenter(self._path) as segmenter:
            for path in photos:
                mask = self.mask(path.read_bytes())
                if mask is None:
                    continue
                expected = segmenter(path).mask
                shown += 1
                pixels += expected.size
                if mask.shape == expected.shape:
                    same += int(np.count_nonzero(mask == expected))
        return (same / pixels if pixels else 0.0), shown

    def failures(self, photos: Sequence[Photo]) -> tuple[str, ...]:
        """Why the page's masks of photos are not those of unet-run; empty if they are."""
        agreement, shown = self.agreement([photo.path for photo in photos])
        if not shown:
            return ("shows none of the photos: prove it on JPEG or PNG",)
        if agreement >= AGREEMENT:
            return ()
        return (
            f"masks at the photos' own sizes: same class as unet-run on {agreement:.3%} of pixels, at least "
            f"{AGREEMENT:.1%}",
        )


@contextmanager
def open_page(folder: Path, *arguments: str) -> Iterator[tuple[Any, str]]:
    """A page in headless Chromium, whose models have been listed, and the browser's name and version.

    Args:
        folder: that ``formats.web.write_page`` wrote.
        arguments: of Chromium's command line.

    Raises:
        MissingDependencyError: Playwright is not installed.
        NoBrowserError: there is no Chromium.
        BackendError: the page lists no model.
    """
    try:
        from playwright import sync_api
    except ImportError as error:
        raise missing("the check of a page", "Playwright", "web", "unet-edge-export") from error
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    with _served(folder) as address, sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=program, args=arguments, timeout=_MILLISECONDS)
        except sync_api.Error as error:
            reason = one_line(str(error))
            raise NoBrowserError(f"no Chromium starts here ({reason}): apt install chromium") from error
        try:
            page = browser.new_page()
            page.set_default_timeout(_MILLISECONDS)
            page.goto(address)
            try:
                page.wait_for_selector("#classes li")
            except sync_api.Error as error:
                said = page.inner_text("#message")
                raise BackendError(f"the page lists no model: {said or one_line(str(error))}") from error
            yield page, f"Chromium {browser.version.partition('.')[0]}"
        finally:
            browser.close()


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Address of ``folder`` on this machine, for as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


def _packed(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def _unpacked(address: str) -> bytes:
    return base64.b64decode(address.partition(",")[2])

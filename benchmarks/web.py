"""The page of ``unet-export --formats web`` in headless Chromium, with the bundled models.

    python benchmarks/web.py [--photos 128] [--rounds 5] [--only bytes|first|photos|gpu] PHOTO_FOLDER

bytes    that a browser receives until the first mask, as they are, and with gzip where the folder has not packed them
first    seconds from opening the page to the first mask, a new browser profile each; goal 3 s
photos   difference from the runtime on the same inputs, and share of pixels of the photos that have the same class
gpu      what the page's own test of WebGPU says, on Chromium's GPU in software: results, not speed

Times by the clock mean nothing on a machine that is busy with other things: the load is printed.
"""

from __future__ import annotations

import argparse
import gzip
import os
import statistics
import tempfile
from pathlib import Path

import numpy as np

import unet_runtime
from unet_export.formats import web
from unet_export.gate import browser
from unet_runtime import Segmenter
from unet_runtime.core.datasets import evenly
from unet_runtime.io.sources import find_photos

INPUTS = 8
WAIT = 1_200_000  # ms
MEGABYTE = 1e6


def report_bytes(folder: Path, model: Path) -> None:
    """Print what the page and one model take."""
    plain = packed = 0
    for path in folder.iterdir():
        is_page = path.suffix in (".html", ".js", ".json", ".gz") and path.name not in web.GPU_FILES
        if is_page or path == model:
            content = path.read_bytes()
            plain += len(content)
            packed += len(content) if path.suffix == ".gz" else len(gzip.compress(content))
    print(f"{model.name}: {plain / MEGABYTE:.1f} MB, with gzip {packed / MEGABYTE:.1f} MB")


def first_mask(folder: Path, photo: Path) -> float:
    """Seconds from opening the page to the mask of ``photo``."""
    with browser.open_page(folder) as (page, _):
        url, program = page.url, page.context.browser
        page.close()  # its engine would start beside the one that is measured
        fresh = program.new_context().new_page()
        fresh.goto(url)
        fresh.set_input_files("#files", [photo])
        fresh.wait_for_selector("#view:not([hidden])", timeout=WAIT)
        return float(fresh.evaluate("performance.now() / 1000"))


def report_photos(folder: Path, photos: list[Path]) -> None:
    """Print how near each model of the page is to the runtime."""
    with browser.open_page(folder) as (opened, name):
        for index, (precision, path) in enumerate(web.model_files(folder).items()):
            with Segmenter(path) as segmenter:
                images = np.concatenate([segmenter.prepare(photo).images for photo in photos[:INPUTS]])
                page = browser.Page(opened, index, segmenter.spec, path)
                difference = np.abs(page(images) - segmenter.infer(images)).max()
            agreement, shown = page.agreement(photos)
            print(f"{name}, {precision}: max|dp| {difference:.1e}; {agreement:.5%} of pixels of {shown} photos")


def report_gpu(folder: Path) -> None:
    """Print what the page says of the GPU."""
    with browser.open_page(folder, "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader") as (page, _):
        page.set_default_timeout(WAIT)
        page.click("#gpu")
        page.wait_for_function("/passed|not offered/.test(document.getElementById('message').textContent)")
        print(page.inner_text("#message"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["bytes", "first", "photos", "gpu"])
    given = parser.parse_args()
    photos = [entry.path for entry in evenly(list(find_photos([given.folder], None)), given.photos)]
    models = sorted((Path(unet_runtime.__file__).parent / "models").glob("*.onnx"))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "page"
        web.write_page(folder, models)
        if given.only in (None, "bytes"):
            for model in web.model_files(folder).values():
                report_bytes(folder, model)
        if given.only in (None, "first"):
            times = [first_mask(folder, photos[0]) for _ in range(given.rounds)]
            print(f"first mask: {statistics.median(times):.1f} s (median of {given.rounds})")
        if given.only in (None, "photos"):
            report_photos(folder, photos)
        if given.only in (None, "gpu"):
            report_gpu(folder)


if __name__ == "__main__":
    main()

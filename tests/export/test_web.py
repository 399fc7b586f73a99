"""The format web: a folder whose page runs the model in headless Chromium as the runtime does, also without network."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from tests.helpers import tiny
from tests.helpers.colours import colour_spec, write_colour_model
from tests.helpers.serving import serving
from tests.helpers.tiny import SPEC
from tests.helpers.web_page import check_cutout, watched
from unet_export.errors import ExportError
from unet_export.formats import web, web_engine
from unet_export.gate import browser
from unet_export.gate.gate import GATES, Gate
from unet_export.photos import PhotoSource
from unet_export.pipeline import ExportOptions, export_model
from unet_runtime import Segmenter
from unet_runtime.core.artifact import append_to_onnx
from unet_runtime.core.errors import MissingDependencyError
from unet_runtime.core.spec import OutputSpec, Provenance

WIDTHS = [(1400, 900), (390, 844)]
SECONDS = 120_000  # ms
GPU = ("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader")
"""Options with which Chromium has a GPU, in software."""
SCREENSHOTS = os.environ.get("SCREENSHOTS", "")
"""Folder in which pictures of the page are kept, for people."""


@pytest.fixture(scope="module", autouse=True)
def engine(chromium: Path) -> None:
    pytest.importorskip("playwright")
    try:
        web_engine.web_engine()
    except (ExportError, MissingDependencyError) as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def folder(colour_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with the model whose right output is known by looking."""
    place = tmp_path_factory.mktemp("web") / "colours.web"
    web.write_page(place, [colour_model])
    return place


@contextmanager
def opened(folder: Path) -> Iterator[browser.Page]:
    (path,) = web.model_files(folder).values()
    with browser.open_page(folder) as (page, _), Segmenter(path) as segmenter:
        yield browser.Page(page, 0, segmenter.spec, path)


def encoded(pixels: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **options)
    return file.getvalue()


def test_photos_of_every_kind_get_the_masks_of_the_runtime(folder: Path, stripes: np.ndarray, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    clear = np.dstack([stripes, np.full(stripes.shape[:2], 255, np.uint8)])
    clear[:10, :, 3] = 0  # white paper for the model
    photos = {
        "turned.jpg": encoded(stripes, format="JPEG", quality=95, exif=turned),
        "clear.png": encoded(clear, format="PNG"),
        "grey.png": encoded(stripes[..., 0], format="PNG"),
        "small.webp": encoded(stripes[:1, ::20], format="WEBP", lossless=True),
        "large.png": encoded(stripes.repeat(25, axis=0).repeat(30, axis=1), format="PNG"),
    }
    with opened(folder) as page, Segmenter(next(folder.glob("*.onnx"))) as segmenter:
        for name, content in photos.items():
            (tmp_path / name).write_bytes(content)
            mask = page.mask(content)
            assert mask is not None, name
            assert np.array_equal(mask, segmenter(tmp_path / name).mask), name
        assert page.mask(b"no photo") is None
        images = segmenter.prepare(stripes).images.repeat(3, axis=0)
        assert np.abs(page(images) - segmenter.infer(images)).max() < 1e-5


@pytest.mark.parametrize("spec", [colour_spec(32, "letterbox"), colour_spec(24, width=40)])
def test_models_of_other_fits(spec: Any, stripes: np.ndarray, tmp_path: Path) -> None:
    path = write_colour_model(tmp_path / "colours.onnx", spec)
    web.write_page(tmp_path / "web", [path])
    with opened(tmp_path / "web") as page, Segmenter(path) as segmenter:
        mask = page.mask(encoded(stripes, format="PNG"))
        assert mask is not None
        assert np.array_equal(mask, segmenter(stripes).mask)


@pytest.mark.parametrize("disabled", ["Pad_Fusion", "all"])
def test_optimisers_that_are_wrong_are_left_out(disabled: str, tmp_path: Path) -> None:
    """Zeros around values below them, then max pooling: Pad_Fusion takes the zeros for the pool's own padding."""
    nodes = [
        helper.make_node("Cast", ["image"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["x"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel", "bias"], ["negative"]),
        helper.make_node("Pad", ["negative", "pads"], ["padded"]),
        helper.make_node("MaxPool", ["padded"], ["pooled"], kernel_shape=[3, 3], strides=[2, 2]),
        helper.make_node("Transpose", ["pooled"], ["map"], perm=[0, 2, 3, 1]),
        helper.make_node("Softmax", ["map"], ["probabilities"], axis=-1),
    ]
    constants = [
        numpy_helper.from_array(np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1) / -255, "kernel"),
        numpy_helper.from_array(np.array([-1, -2, -3], np.float32), "bias"),
        numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "pads"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["n", 32, 32, 3])
    result = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 16, 16, 3])
    graph = helper.make_graph(nodes, "pooled", [image], [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    spec = replace(colour_spec(), output=OutputSpec(16, 16), disabled_optimizers=(disabled,))
    (tmp_path / "pooled.onnx").write_bytes(append_to_onnx(model.SerializeToString(), spec))
    web.write_page(tmp_path / "web", [tmp_path / "pooled.onnx"])
    with opened(tmp_path / "web") as page:
        white = page(np.full((1, 32, 32, 3), 255, np.uint8))
    assert np.allclose(white[0, 0], 1 / 3, atol=1e-6)  # the zeros, of all three; else e^-2 : e^-3 : e^-4


@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_the_page_as_its_users_see_it(
    folder: Path, stripes: np.ndarray, tmp_path: Path, width: int, height: int
) -> None:
    (tmp_path / "stripes.png").write_bytes(encoded(stripes.repeat(10, axis=0).repeat(10, axis=1), format="PNG"))
    (tmp_path / "broken.png").write_bytes(b"no photo")
    with browser.open_page(folder) as (page, _):
        complaints, addresses = watched(page)
        page.set_viewport_size({"width": width, "height": height})
        page.reload()
        page.wait_for_selector("#classes li")
        assert page.inner_text("#engine") == f"colours, float32: ONNX Runtime Web {web_engine.VERSION}, this browser"
        page.set_input_files("#files", [tmp_path / "stripes.png", tmp_path / "broken.png"])
        page.wait_for_selector("#view:not([hidden])")
        page.wait_for_selector("#strip button.bad")
        assert page.is_hidden("#fine")
        assert page.is_hidden("#gpu")  # there is none here
        check_cutout(page, width)
        home = page.url
        assert set(complaints) <= {"No available adapters."}  # Chromium's, when it is asked for a GPU
    for address in addresses:
        assert address.startswith((home, f"blob:{home}", "data:"))


def test_a_webcam_is_segmented_until_it_is_stopped(folder: Path) -> None:
    fake = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with browser.open_page(folder, *fake) as (page, _):
        page.click("#webcam")
        page.wait_for_selector("#view[aria-label*='of webcam: no red found']")  # Chromium's fake camera is green
        assert page.get_attribute("#webcam", "aria-pressed") == "true"
        page.click("#webcam")
        page.wait_for_selector("#webcam[aria-pressed=false]")
        page.wait_for_function("document.getElementById('message').textContent.startsWith('webcam: no red found')")
        assert page.locator("#strip button").count() == 1
        assert page.is_enabled("#save")


def test_a_service_offers_the_page_beside_its_model(stripes: np.ndarray, tmp_path: Path) -> None:
    """Its scripts, its worker and its WebAssembly pass the headers of the service; behind a token, too."""
    spec = replace(colour_spec(), provenance=Provenance(weights_sha256="ab" * 32))
    model = write_colour_model(tmp_path / "colours.onnx", spec)
    web.write_page(tmp_path / "colours.web", [model])
    (tmp_path / "stripes.png").write_bytes(encoded(stripes, format="PNG"))
    with (
        serving(tmp_path, "--model", model, "--token", "secret") as service,
        browser.open_page(tmp_path / "colours.web") as (first, _),
    ):
        page = first.context.browser.new_page(accept_downloads=True)
        page.context.set_default_timeout(SECONDS)
        page.goto(f"{service.url}?token=secret")
        page.wait_for_selector("#browser:not([hidden])")
        with page.context.expect_page() as opening:
            page.click("#browser-open")
        opened_page = opening.value
        complaints, _ = watched(opened_page)
        opened_page.wait_for_selector("#classes li")
        opened_page.set_input_files("#files", [tmp_path / "stripes.png"])
        opened_page.wait_for_selector("#view:not([hidden])")
        assert "red 35.0 %" in opened_page.get_attribute("#view", "aria-label")
        opened_page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        with page.expect_download() as download:
            page.click("#browser-save")
        assert download.value.suggested_filename == "colours.web.zip"
        assert set(complaints) <= {"No available adapters."}


def test_a_gpu_is_offered_only_where_it_passes(folder: Path) -> None:
    """Chromium's own GPU in software; then the same with a tolerance that nothing keeps."""
    with browser.open_page(folder, *GPU) as (page, _):
        page.click("#gpu")
        page.wait_for_function("document.getElementById('message').textContent.startsWith('The GPU passed')")
        assert page.is_hidden("#gpu")
        page.select_option("#model", index=1)
        assert page.inner_text("#engine").endswith("WebGPU, this browser's GPU")
        worker = (folder / "worker.js").read_text(encoding="utf-8")
        strict = re.sub(r"const TOLERANCE = \S+;", "const TOLERANCE = -1;", worker)
        assert strict != worker
        page.context.route("**/worker.js", lambda route: route.fulfill(body=strict, content_type="text/javascript"))
        page.evaluate("navigator.serviceWorker.ready.then((registration) => registration.unregister())")
        page.reload()
        page.click("#gpu")
        page.wait_for_selector("#message.bad")
        assert page.inner_text("#message").startswith("The GPU is not offered: its results are others")
        assert page.is_hidden("#gpu")
        assert page.locator("#model option").count() == 1


def test_it_works_without_a_network(folder: Path, stripes: np.ndarray) -> None:
    with browser.open_page(folder) as (page, _), Segmenter(next(folder.glob("*.onnx"))) as segmenter:
        page.evaluate("navigator.serviceWorker.ready.then(() => true)")
        page.context.set_offline(True)
        page.reload()
        page.wait_for_selector("#classes li")
        (path,) = web.model_files(folder).values()
        mask = browser.Page(page, 0, segmenter.spec, path).mask(encoded(stripes, format="PNG"))
        assert mask is not None
        assert np.array_equal(mask, segmenter(stripes).mask)


def test_a_damaged_copy_is_refused(folder: Path, stripes: np.ndarray, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (model,) = copy.glob("*.onnx")
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with browser.open_page(copy) as (page, _):
        page.wait_for_selector("#message.bad")
        assert f"{model.name} is damaged: copy the folder" in page.inner_text("#message")
    model.unlink()
    with browser.open_page(copy) as (page, _):
        page.wait_for_selector("#message.bad")
        assert f"{model.name}: the server answers 404" in page.inner_text("#message")


def test_a_folder_that_was_changed_fails_its_check(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    web.WEB.check(copy)
    (copy / "pixels.js").write_text("")
    with pytest.raises(ExportError, match="its files are not those of SHA256SUMS"):
        web.WEB.check(copy)


def export_page(model: Path, data: Path, output: Path, **gates: Gate) -> Any:
    options = ExportOptions(("web",), gates={**GATES, **gates})
    (result,) = export_model(model, PhotoSource(data), output, options)
    return result


def test_an_export_is_proven_in_chromium(data: Path, tmp_path: Path) -> None:
    result = export_page(tiny.SOFTMAX_FILE, data, tmp_path / "out")
    assert result.path.name == f"tiny-{tiny.SIZE}.web"
    engines = [entry.engine.partition(" ")[0] + entry.part for entry in result.engines]
    assert engines == ["Chromiumint8", "Chromium", "ONNX"]
    assert all(entry.verdict == "passed" for entry in result.engines)
    listed = json.loads((result.path / "models.json").read_text())["models"]
    assert [entry["precision"] for entry in listed] == ["int8", "float32"]
    assert listed[0]["spec"]["provenance"]["data"] == SPEC.provenance.data
    web.WEB.check(result.path)


def test_int8_that_fails_its_gate_is_left_out(small_file: Path, data: Path, tmp_path: Path) -> None:
    result = export_page(small_file, data, tmp_path / "out", int8=replace(GATES["int8"], max_abs=1e-9))
    assert [entry.part for entry in result.engines] == ["", ""]
    assert [entry["precision"] for entry in json.loads((result.path / "models.json").read_text())["models"]] == [
        "float32"
    ]
    assert len(list(result.path.glob("*.onnx"))) == 1
    web.WEB.check(result.path)


def test_without_chromium_the_page_is_not_called_checked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    with pytest.raises(browser.NoBrowserError, match="apt install chromium"), browser.open_page(folder):
        pass


def test_without_npm_and_cache_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        MissingDependencyError, match=r"npm is not installed: install it .* or copy onnxruntime-web-.*tgz"
    ):
        web_engine.web_engine()
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho no network >&2\nexit 1\n")
    npm.chmod(0o755)
    with pytest.raises(ExportError, match=r"npm cannot fetch .*\(no network\): connect it, or copy"):
        web_engine.web_engine()
    assert not list((tmp_path / "unet-edge").iterdir())


def test_another_archive_than_the_pinned_one_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    place = web_engine.cache_folder() / f"{web_engine.PACKAGE}-{web_engine.VERSION}.tgz"
    place.parent.mkdir()
    place.write_bytes(b"another")
    with pytest.raises(ExportError, match="damaged, or another archive than onnxruntime-web"):
        web_engine.web_engine()


def test_a_model_of_parts_of_photos_is_refused(data: Path, tmp_path: Path) -> None:
    builder = web.Builder(None, replace(SPEC, input=replace(SPEC.input, fit="crop")), None, tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="fit crop, so unet-run covers a photo with tiles"):
        web.WEB.write(builder, tmp_path / "out", web.WEB.quantization)


@pytest.mark.skipif(not SCREENSHOTS, reason="SCREENSHOTS names no folder")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), WIDTHS)
def test_pictures_of_the_page(sample_photo: Path, tmp_path: Path, width: int, height: int, scheme: str) -> None:
    models = sample_photo.parents[1] / "models"
    web.write_page(tmp_path / "web", sorted(models.glob("*.onnx")))
    with browser.open_page(tmp_path / "web", *GPU) as (page, _):
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        page.set_default_timeout(SECONDS)
        page.set_input_files("#files", [sample_photo])
        page.wait_for_selector("#view:not([hidden])")
        page.check("#compare")
        page.wait_for_function("!document.querySelector('#strip button.wait')")
        target = Path(SCREENSHOTS) / f"web-{width}-{scheme}.jpg"
        page.screenshot(path=str(target), full_page=True, type="jpeg", quality=80)

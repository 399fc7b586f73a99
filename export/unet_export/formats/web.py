"""Keras model -> a folder that any static server can host: the page of unet-serve, with the model in the browser.

index.html                  the page of unet-serve, in which browser.js takes the place of the service
browser.js worker.js pixels.js   the model's thread; photo -> input -> mask, a port of the runtime's
ort.wasm.bundle.min.js ort-wasm-simd-threaded.wasm.gz   onnxruntime-web
ort.webgpu.bundle.min.js ort-wasm-simd-threaded.asyncify.wasm.gz   the same for WebGPU, fetched when it is asked for
NAME.int8.onnx NAME.float32.onnx   models; the page begins with the first, int8 if it has passed its gate
models.json                 their specs
service-worker.js           keeps all that for use without a network
SHA256SUMS                  of every other file
"""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path

import unet_runtime
from unet_export.errors import ExportError
from unet_export.formats import onnx, web_engine
from unet_export.formats.base import Builder, Format
from unet_export.quantization import Quantization
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.spec import Precision
from unet_runtime.io import web_access

logger = logging.getLogger(__name__)

SUMS_NAME = "SHA256SUMS"

_ASSETS = Path(__file__).with_name("page")
_PAGE = Path(unet_runtime.__file__).with_name("serve") / "page.html"
_SERVICE = re.compile(r'<script id="source">.*?</script>', re.DOTALL)
_ENGINE = "ort.wasm.bundle.min.js"
_GPU_ENGINE = "ort.webgpu.bundle.min.js"
GPU_FILES = (_GPU_ENGINE, f"{web_engine.GPU_BINARY}.gz")
"""What a browser fetches when its user asks for the GPU."""
_MODELS, _WORKER = "models.json", "service-worker.js"
_PRECISIONS: tuple[Precision, ...] = ("int8", "float32", "float16-weights")
"""Precisions of the models, in the order of the page."""

_LICENSE = f"""\
{_ENGINE}, {_GPU_ENGINE} and the .wasm.gz files
are part of {web_engine.PACKAGE} {web_engine.VERSION}.

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def write_page(folder: Path, models: list[Path]) -> None:
    """Write ``folder``, with these ONNX files of one model.

    Raises:
        ExportError: a model that a browser cannot run as unet-run does, or onnxruntime-web cannot be had.
        MissingDependencyError: onnxruntime-web is not there, nor npm.
        OSError: the folder cannot be written.
    """
    engine = web_engine.web_engine()
    folder.mkdir()
    for model in models:
        (folder / model.name).write_bytes(model.read_bytes())
    for name in ("browser.js", "worker.js", "pixels.js"):
        (folder / name).write_bytes((_ASSETS / name).read_bytes())
    page = web_access.read_page(_PAGE).decode()
    page = _SERVICE.sub('<script id="source" src="browser.js"></script>', page)
    (folder / "index.html").write_text(page, encoding="utf-8", newline="\n")
    # Not ``.mjs``: servers that do not know it call it a download, and browsers run none.
    (folder / _ENGINE).write_bytes(engine[web_engine.SCRIPT])
    (folder / _GPU_ENGINE).write_bytes(engine[web_engine.GPU_SCRIPT])
    for binary in (web_engine.BINARY, web_engine.GPU_BINARY):
        (folder / f"{binary}.gz").write_bytes(_packed(engine[binary]))
    (folder / "LICENSE.txt").write_text(_LICENSE, encoding="utf-8", newline="\n")
    _describe(folder)


@cache
def _packed(content: bytes) -> bytes:
    """With gzip, because many static servers pack nothing: 3.7 of 14 MB. No time inside: the same bytes every time."""
    return gzip.compress(content, mtime=0)


def model_files(folder: Path) -> dict[str, Path]:
    """Models below a folder, by precision, in the order of the page."""
    found = {}
    for path in sorted([*folder.rglob("*.onnx"), *folder.rglob("*.tflite")]):
        found[read_artifact(path).spec.precision] = path
    return {precision: found[precision] for precision in _PRECISIONS if precision in found}


def leave_out(folder: Path, precision: str) -> None:
    """Remove the model of a precision from a folder that ``write_page`` made. Raises OSError."""
    model_files(folder)[precision].unlink()
    _describe(folder)


def _describe(folder: Path) -> None:
    """Write what lists the other files: ``models.json``, the service worker and the sums."""
    entries = list(map(_entry, model_files(folder).values()))
    gpu = {"bytes": sum((folder / name).stat().st_size for name in GPU_FILES)}
    text = json.dumps({"models": entries, "gpu": gpu}, indent=1)
    (folder / _MODELS).write_text(text + "\n", encoding="utf-8", newline="\n")
    first = entries[0]["file"]
    sums = _sums(folder)
    listed = [name for name in sums if name == first or not (name.endswith((".onnx", ".txt")) or name in GPU_FILES)]
    version = hashlib.sha256(json.dumps(sums).encode()).hexdigest()[:16]
    lists = f"const VERSION = {json.dumps(version)}, FILES = {json.dumps(['./', *listed])};\n"
    worker = (_ASSETS / _WORKER).read_text(encoding="utf-8")
    (folder / _WORKER).write_text(lists + worker, encoding="utf-8", newline="\n")
    text = "".join(f"{digest}  {name}\n" for name, digest in _sums(folder, _WORKER).items())
    (folder / SUMS_NAME).write_text(text, encoding="utf-8", newline="\n")


def _entry(path: Path) -> dict[str, object]:
    spec = read_artifact(path).spec
    return {
        "name": spec.name,
        "version": "1",
        "precision": spec.precision,
        "engine": f"ONNX Runtime Web {web_engine.VERSION}",
        "device": "this browser",
        "file": path.name,
        "bytes": path.stat().st_size,
        "spec": asdict(spec),
    }


def _sums(folder: Path, *more: str) -> dict[str, str]:
    """SHA-256 of every file but those that list the others, and of these ``more``, by name."""
    sums = {}
    for path in sorted(folder.iterdir()):
        if path.name not in (_WORKER, SUMS_NAME) or path.name in more:
            sums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return sums


def _write(builder: Builder, path: Path, quantization: Quantization) -> None:
    fit = builder.spec.input.fit
    if fit == "crop":
        raise ExportError(
            f"format web: {builder.spec.name} has fit crop, so unet-run covers a photo with tiles, which the page does "
            "not: serve it with unet-serve, or train it on whole photos (fit stretch or letterbox)"
        )
    web_engine.web_engine()  # now, and not behind the models, which take minutes
    place = builder.folder("web")
    models = []
    for form in (onnx.FLOAT32, onnx.INT8):
        model = place / form.file_name(builder.spec)
        try:
            builder.write(form, model, form.quantization)
        except ExportError as error:
            if form is onnx.FLOAT32:
                raise
            logger.warning("%s: without an int8 model: %s", path.name, error)
        else:
            models.append(model)
    write_page(path, models)


def _check(path: Path) -> None:
    """The digests of the files, and the models' own."""
    recorded = {}
    for line in (path / SUMS_NAME).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        recorded[name] = digest
    if recorded != _sums(path, _WORKER):
        raise ExportError(f"{path}: its files are not those of {SUMS_NAME}: export again")
    if WEB.precision not in model_files(path):
        raise ExportError(f"{path}: has no float32 model: export again")


WEB = Format("web", "float32", ".web", ("chromium", "onnx"), _write, _check)

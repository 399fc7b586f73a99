"""Small photos, videos, specs and models, to be damaged."""

from __future__ import annotations

import functools
import hashlib
import io
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.helpers.paths import REPOSITORY
from unet_runtime import ModelSpec
from unet_runtime.core.artifact import append_to_onnx
from unet_runtime.core.spec import Provenance
from unet_runtime.engines.base import INT8_TFLITE

PHOTO = REPOSITORY / "runtime" / "unet_runtime" / "samples" / "chelsea.jpg"

Size = tuple[int, int]

PHOTO_SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "WEBP": ".webp",
    "TIFF": ".tif",
    "BMP": ".bmp",
    "GIF": ".gif",
    "PPM": ".ppm",
    "AVIF": ".avif",
    "JPEG2000": ".jp2",
    "HEIF": ".heic",
    "JXL": ".jxl",
}
"""Pillow's name of a format -> a suffix."""

SIZES = ((120, 80), (61, 97))


def photos(format_: str, size: Size) -> list[bytes]:
    """The same picture in the ways that a format has."""
    with Image.open(PHOTO) as opened:
        image = opened.resize(size)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned
    found = []
    for kind, options in _ways(format_, image):
        file = io.BytesIO()
        kind.save(
            file, format_, **({"exif": exif} if format_ in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}), **options
        )
        found.append(file.getvalue())
    return found


def _ways(format_: str, image: Image.Image) -> list[tuple[Image.Image, dict[str, Any]]]:
    from tests.helpers.profiles import cmyk_profile, in_cmyk, in_space, rgb_profile

    grey = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 16)
    clear = image.copy()
    clear.putalpha(image.convert("L"))
    p3 = (in_space(image, "Display P3"), {"icc_profile": rgb_profile("Display P3")})
    more: dict[str, list[tuple[Image.Image, dict[str, Any]]]] = {
        "JPEG": [
            p3,
            (in_cmyk(image), {"icc_profile": cmyk_profile()}),
            (image, {"progressive": True, "subsampling": 1}),
        ],
        "PNG": [
            p3,
            (grey, {}),
            (clear, {}),
            (image.quantize(16), {"transparency": 3}),
            (image, {"save_all": True, "append_images": [clear.convert("RGB")]}),
        ],
        "WEBP": [p3, (clear, {"lossless": True}), (image, {"save_all": True, "append_images": [image.rotate(90)]})],
        "TIFF": [
            p3,
            (grey, {"compression": "tiff_lzw"}),
            (image, {"compression": "tiff_adobe_deflate"}),
            (image, {"compression": "jpeg"}),
            (image.convert("1"), {"compression": "group4"}),
            (Image.fromarray(np.asarray(image.convert("L"), np.float32) / 255), {}),
        ],
        "BMP": [(image.convert("1"), {}), (image.quantize(16), {}), (clear, {})],
        "GIF": [
            (image.quantize(16), {"transparency": 3}),
            (image, {"save_all": True, "append_images": [image.rotate(90)]}),
        ],
        "PPM": [(image.convert("1"), {}), (grey, {})],
        "AVIF": [(clear, {}), (image, {"icc_profile": rgb_profile("Display P3")})],
        "JPEG2000": [(clear, {"irreversible": False}), (image, {"quality_layers": [20], "no_jp2": True})],
        "HEIF": [(clear, {})],
        "JXL": [(clear, {"lossless": True})],
    }
    return [(image, {}), *more[format_]]


VIDEOS: Mapping[str, tuple[str, ...]] = {
    ".mp4": ("-c:v", "libx264", "-g", "4", "-f", "lavfi", "-i", "sine=duration=1", "-c:a", "aac"),
    ".mkv": ("-c:v", "libx264", "-g", "4"),
    ".avi": ("-c:v", "mjpeg"),
    ".mov": ("-c:v", "mpeg4", "-g", "4"),
    ".webm": ("-c:v", "libvpx", "-g", "4"),
    ".ts": (
        "-c:v",
        "mpeg2video",
    ),
    ".h264": ("-c:v", "libx264", "-g", "4"),
}
"""Suffix -> how ffmpeg makes one."""

FRAMES = 12


@functools.cache
def video(suffix: str, size: Size) -> bytes:
    """Twelve frames."""
    options = VIDEOS[suffix]
    inputs = options[options.index("-f") :][:4] if "-f" in options else ()
    codecs = [word for word in options if word not in inputs]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"clip{suffix}")
        pictures = f"testsrc=size={size[0]}x{size[1]}:rate=12:duration=1"
        command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", pictures, *inputs, *codecs, "-pix_fmt"]
        pixels = "yuvj420p" if "mjpeg" in options else "yuv420p"
        subprocess.run([*command, pixels, "-shortest", str(path)], check=True, timeout=180)
        return path.read_bytes()


def spec() -> ModelSpec:
    """One with every field."""
    from tests.helpers.convolution import convolution_spec

    digest = hashlib.sha256(b"").hexdigest()
    provenance = Provenance(
        "drawn",
        "official",
        "unet-train",
        7,
        digest,
        digest,
        {"a": [1, 2.5, None]},
        {"keras": "3"},
        {"iou": {"red": 0.5}},
        {"epochs": 3},
    )
    return replace(convolution_spec(1), provenance=provenance)


@functools.cache
def model(kind: str) -> bytes:
    """A model file with its digest, of suffix ``kind``."""
    from tests.helpers.convolution import write_convolution

    if kind == "tflite":
        return INT8_TFLITE.read_bytes()
    if kind == "keras":
        return (REPOSITORY / "tests" / "data" / "tiny.keras").read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        return write_convolution(Path(folder) / "model.onnx", spec()).read_bytes()


@functools.cache
def graph() -> bytes:
    """The ONNX model without its spec."""
    return model("onnx")[: -len(append_to_onnx(b"", spec()))]

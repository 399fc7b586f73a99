"""Pictures in the formats that a name may ask for beside PNG: ``--output cut.webp``."""

from __future__ import annotations

from typing import Any, BinaryIO

from PIL import Image

from unet_runtime.core.errors import OutputError
from unet_runtime.io.kind import STAMP_KEY
from unet_runtime.io.stamps import mark

JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
WEBP = (".webp",)
TIFF = (".tif", ".tiff")

_QUALITY = 95  # of 100, JPEG and WebP
_SOFTWARE_TAG = 305


def write_picture(image: Image.Image, suffix: str, file: BinaryIO, stamp: str) -> None:
    """Write a picture as its suffix says.

    Args:
        image: JPEG takes mode RGB, WebP RGB and RGBA, TIFF these and L.
        suffix: one of ``JPEG``, ``WEBP``, ``TIFF``.
        file: takes the bytes.
        stamp: see stamps.py.

    Raises:
        OutputError: this Pillow, or the format, cannot hold such a picture.
    """
    form, settings = _settings(suffix, stamp)
    try:
        image.save(file, form, **settings)
    except (KeyError, ValueError, OSError) as error:  # built without it; more pixels than the format can count
        raise OutputError(
            f"a picture of {image.width}x{image.height} pixels cannot be written as {form} ({error}): name a .png"
        ) from error


def _settings(suffix: str, stamp: str) -> tuple[str, dict[str, Any]]:
    """(Pillow's name of the format, its options)."""
    if suffix in JPEG:
        return "JPEG", {"quality": _QUALITY, "comment": mark(stamp)}
    if suffix in TIFF:
        # Not LZW: tifffile, which scikit-image and imageio read with, needs a further package for it.
        return "TIFF", {"compression": "tiff_adobe_deflate", "software": STAMP_KEY}
    exif = Image.Exif()
    exif[_SOFTWARE_TAG] = STAMP_KEY
    return "WEBP", {"quality": _QUALITY, "exif": exif}

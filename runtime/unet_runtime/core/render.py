"""Pictures of a result: masks, overlays, cut-outs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from unet_runtime.core.spec import ModelSpec

if TYPE_CHECKING:
    import numpy.typing as npt

OVERLAY_STRENGTH = 0.5
"""Share of the class colour in an overlay's pixel."""


def mask_image(mask: npt.NDArray[np.uint8]) -> Image.Image:
    """Class ids (H, W) -> mode L image: pixel value = class id, for every program that reads greyscale."""
    return Image.fromarray(mask)


def palette_image(mask: npt.NDArray[np.uint8], spec: ModelSpec) -> Image.Image:
    """Class ids (H, W) -> mode P image: pixel value = class id, coloured as the spec says.

    Many programs (OpenCV, scikit-image, TensorFlow) read the colours of such a file, not its pixel values.
    """
    image = Image.frombytes("P", (mask.shape[1], mask.shape[0]), mask.tobytes())
    image.putpalette(palette(spec))
    return image


def palette(spec: ModelSpec) -> bytes:
    """RGB triples of the classes, by id."""
    return bytes(channel for entry in spec.classes for channel in entry.color)


def overlay(photo: Image.Image, mask: npt.NDArray[np.uint8], spec: ModelSpec) -> Image.Image:
    """RGB photo with every class but the background tinted; the background keeps the photo's pixels."""
    is_tinted = [0 if entry.role == "background" else 255 for entry in spec.classes]
    where = Image.fromarray(mask).point(is_tinted + [0] * (256 - len(is_tinted)))
    result = photo.copy()
    box = where.getbbox()  # the rest is not looked at
    if box is not None:
        left, top, right, bottom = box
        colours = palette_image(mask[top:bottom, left:right], spec).convert("RGB")
        result.paste(Image.blend(photo.crop(box), colours, OVERLAY_STRENGTH), box, where.crop(box))
    return result


def cutout(photo: Image.Image, alpha: npt.NDArray[np.uint8]) -> Image.Image:
    """RGB photo and opacity uint8 (H, W) -> RGBA.

    Where the opacity is 0 the colour is 0, too: nothing of the photo is left there. Colours of translucent pixels are
    those of the foreground alone.
    """
    pixels = np.empty((*alpha.shape, 4), np.uint8)
    top = 0
    for band in cutout_bands(photo, alpha):
        pixels[top : top + len(band)] = band
        top += len(band)
    return Image.fromarray(pixels)


def cutout_bands(photo: Image.Image, alpha: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    """As ``cutout``, a band of rows at a time, from the top down: uint8 (rows, W, 4)."""
    from unet_runtime.core.matting import EdgeColours  # what masks and overlays do not need

    return EdgeColours(photo, alpha).bands()

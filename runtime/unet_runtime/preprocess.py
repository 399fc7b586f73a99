"""Photo -> uint8 (1, height, width, 3). The only implementation: training and export use it too.

Two steps, because the photo at its own size is needed again for the overlay:

    open_photo   file   -> Pillow image, RGB, upright, 8 bit
    model_input  image  -> uint8 array as the model wants it

Pillow's BILINEAR antialiases when it reduces; OpenCV's INTER_LINEAR and tf.image.resize do not.
"""

from __future__ import annotations

import os
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from unet_runtime.errors import ImageError
from unet_runtime.spec import InputSpec

# Alpha has no meaning for the model: transparent pixels hold arbitrary colours, so they become white paper.
_BACKDROP = (255, 255, 255)

_RESAMPLE = {"bilinear": Image.Resampling.BILINEAR}


class Box(NamedTuple):
    """A rectangle in pixels of the model's input: where the photo lies in it."""

    left: int
    top: int
    width: int
    height: int


def open_photo(source: str | os.PathLike[str] | IO[bytes]) -> Image.Image:
    """Read a photo whole.

    Args:
        source: a path or a binary file object.

    Returns:
        Pillow image, mode RGB, 8 bit, turned upright as its EXIF orientation says.

    Raises:
        ImageError: not an image, truncated, unreadable, or with more pixels than Pillow's limit
            against decompression bombs.
    """
    name = source if isinstance(source, (str, os.PathLike)) else getattr(source, "name", "input")
    try:
        with Image.open(source) as image:
            image.load()
            return upright_rgb(image)
    except FileNotFoundError as error:
        raise ImageError(f"{name}: no such file, expected a photo") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}: not an image Pillow can read (JPEG, PNG, WebP, TIFF, BMP, GIF, ...)") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too many pixels ({error})") from error
    except MemoryError as error:
        raise ImageError(f"{name}: too large for this machine's memory") from error
    except ImageError:
        raise
    except Exception as error:  # on damaged files decoders raise what they stumble over: struct.error, RuntimeError...
        raise ImageError(f"{name}: damaged or truncated image ({error})") from error


def upright_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image -> mode RGB, 8 bit, upright, same picture.

    Transparent pixels are laid on white, 16-bit and 32-bit greys keep their top 8 bits of 16, and
    floating-point greys are taken as 0..1 if none is above 1, else as 0..255.

    Raises:
        ImageError: a picture without pixels.
    """
    if 0 in image.size:
        raise ImageError(f"picture of {image.size[0]}x{image.size[1]} pixels, expected at least 1x1")
    image = ImageOps.exif_transpose(image)
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_grey_to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        flat = Image.new("RGB", rgba.size, _BACKDROP)
        flat.paste(rgba, mask=rgba.getchannel("A"))
        return flat
    return image.convert("RGB")


def _grey_to_8_bit(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """(H, W) of 16 or 32-bit integers in 0..65535, or floats -> uint8 (H, W)."""
    if values.dtype.kind == "f":
        finite = np.nan_to_num(values)
        scale = 255 if finite.max(initial=0) <= 1 else 1
        result: npt.NDArray[np.uint8] = np.clip(np.rint(finite * scale), 0, 255).astype(np.uint8)
    else:
        result = (np.clip(values, 0, 65535).astype(np.uint32) >> 8).astype(np.uint8)
    return result


def photo_box(size: tuple[int, int], spec: InputSpec) -> Box:
    """Where a photo of ``size`` (width, height) lies in the model's input."""
    if spec.fit == "stretch":
        return Box(0, 0, spec.width, spec.height)
    scale = min(spec.width / size[0], spec.height / size[1])
    width = min(spec.width, max(1, round(size[0] * scale)))
    height = min(spec.height, max(1, round(size[1] * scale)))
    return Box((spec.width - width) // 2, (spec.height - height) // 2, width, height)


def model_input(image: Image.Image, spec: InputSpec) -> npt.NDArray[np.uint8]:
    """RGB photo of any size -> uint8 (1, spec.height, spec.width, 3), RGB in 0..255, NHWC."""
    box = photo_box(image.size, spec)
    pixels = np.asarray(image.resize((box.width, box.height), _RESAMPLE[spec.resample]))
    if (box.height, box.width) != (spec.height, spec.width):
        canvas = np.zeros((spec.height, spec.width, 3), np.uint8)
        canvas[box.top : box.top + box.height, box.left : box.left + box.width] = pixels
        pixels = canvas
    return pixels[np.newaxis]

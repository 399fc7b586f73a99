"""File, Pillow image or array -> Pillow image: mode RGB, 8 bit, upright."""

from __future__ import annotations

import contextlib
import io
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from unet_runtime.core.errors import ImageError

if TYPE_CHECKING:
    from PIL import ImageFile

Photo = str | os.PathLike[str] | Image.Image | npt.NDArray[np.uint8]
"""A path, a Pillow image of any mode, or uint8 (H, W, 3) RGB."""

# Alpha has no meaning for the model: transparent pixels hold arbitrary colours, so they become white paper.
_BACKDROP = (255, 255, 255)

PILLOW_LIMIT = -1
"""For ``open_photo``: the limit that Pillow has when the photo is opened."""

_ORIENTATION, _UPRIGHT = 0x0112, 1  # EXIF

_PREFIX = 16  # bytes by which Pillow's decoders recognise their format
_BAND_PIXELS = 1 << 20


def open_photo(source: str | os.PathLike[str] | IO[bytes], max_pixels: int | None = PILLOW_LIMIT) -> Image.Image:
    """Read a photo whole; the first frame where there are several.

    Args:
        source: a path or a binary file object.
        max_pixels: most pixels (width x height) that are decoded, against decompression bombs: small files that fill
            the memory. ``PILLOW_LIMIT`` takes Pillow's: an error above twice ``PIL.Image.MAX_IMAGE_PIXELS``, which is
            178,956,970 unless someone set it. None: no limit but what Pillow's decoders of WebP, GIF, ICO and
            uncompressed TIFF check by themselves.

    Returns:
        Pillow image, mode RGB, 8 bit, turned upright as its EXIF orientation says.

    Raises:
        ImageError: not an image, truncated, unreadable, or with more than ``max_pixels`` pixels.
    """
    is_path = isinstance(source, (str, os.PathLike))
    name = f"{source if is_path else getattr(source, 'name', 'input')}: "
    with _image_errors(name), contextlib.ExitStack() as stack:
        if isinstance(source, (str, os.PathLike)):
            image = _identify(stack.enter_context(Path(source).open("rb")), os.fspath(source))
        else:
            image = _identify(source, "")
        _check_pixels(image.size, max_pixels)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)  # in place: a copy would double the peak of memory
        return _rgb(image)


@contextlib.contextmanager
def _image_errors(name: str) -> Iterator[None]:
    """Make an ImageError, whose message begins with ``name``, of whatever is raised by opening and decoding."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{name}no such file, expected a photo") from error
    except (PermissionError, IsADirectoryError) as error:
        raise ImageError(f"{name}cannot be read ({error.strerror}), expected a photo") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name}not an image Pillow can read (JPEG, PNG, WebP, TIFF, BMP, GIF, ...)") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}too many pixels ({error})") from error
    except MemoryError as error:
        raise ImageError(f"{name}too large for this machine's memory") from error
    except Exception as error:  # on damaged files decoders raise what they stumble over: struct.error, RuntimeError...
        raise ImageError(f"{name}damaged or truncated image ({error})") from error


def photo_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """(width, height) of a photo as its file has it, before it is turned upright; None if it cannot be read.

    Nothing is decoded, and there is no limit of pixels.
    """
    try:
        with Path(path).open("rb") as file:
            return _identify(file, os.fspath(path)).size
    except Exception:  # decoders raise anything; open_photo says what is wrong
        return None


def _check_pixels(size: tuple[int, int], max_pixels: int | None) -> None:
    if max_pixels == PILLOW_LIMIT:
        max_pixels = None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS
    if max_pixels is not None and size[0] * size[1] > max_pixels:
        raise Image.DecompressionBombError(
            f"{size[0]}x{size[1]}, at most {max_pixels:,} are allowed: raise max_pixels if it is safe"
        )


def _identify(file: IO[bytes], name: str) -> ImageFile.ImageFile:
    """As ``Image.open``, without its check of the size.

    That check warns from half its limit on, and both the limit and the filter of warnings are the whole process's, not
    this call's (https://github.com/python-pillow/Pillow/issues/515).
    """
    try:
        file.seek(0)
    except (AttributeError, io.UnsupportedOperation):  # a pipe
        file = io.BytesIO(file.read())
    prefix = file.read(_PREFIX)
    tried: set[str] = set()
    for load_decoders in (_load_jpeg, Image.preinit, Image.init):  # few, common, all: importing them takes time
        load_decoders()
        for identifier in tuple(Image.ID):
            image = None if identifier in tried else _try_decoder(identifier, file, name, prefix)
            if image is not None:
                return image
            tried.add(identifier)
    raise UnidentifiedImageError(name)


def _load_jpeg() -> None:
    from PIL import JpegImagePlugin  # noqa: F401 - importing it registers it


def _try_decoder(identifier: str, file: IO[bytes], name: str, prefix: bytes) -> ImageFile.ImageFile | None:
    """The picture, its pixels not yet decoded, if this decoder knows the format."""
    factory, accept = Image.OPEN[identifier]
    known = accept is None or accept(prefix)
    if not known or isinstance(known, str):  # a text says which library is missing
        return None
    file.seek(0)
    try:
        return factory(file, name)
    except (SyntaxError, IndexError, TypeError, struct.error):  # Pillow's way to say "not mine"
        return None


def upright_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image -> mode RGB, 8 bit, upright, same picture; ``image`` itself where it is that already.

    Transparent pixels are laid on white, 16-bit and 32-bit greys keep their top 8 bits of 16, and
    floating-point greys are taken as 0..1 if none is above 1, else as 0..255.

    Raises:
        ImageError: a picture without pixels, or one whose file turns out to be damaged when it is decoded.
    """
    with _image_errors(f"picture of {image.width}x{image.height} pixels: "):
        _check_not_empty(image)
        image.load()  # an image that was opened is decoded only now
        turned = image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT
        return _rgb(ImageOps.exif_transpose(image) if turned else image)


def any_photo(photo: Photo) -> Image.Image:
    """Whatever a caller has for a photo -> mode RGB, 8 bit, upright.

    Raises:
        ImageError: no readable photo, or nothing of the kind.
    """
    if isinstance(photo, (str, os.PathLike)):
        return open_photo(photo)
    if isinstance(photo, Image.Image):
        return upright_rgb(photo)
    if not isinstance(photo, np.ndarray):
        raise ImageError(
            f"photo of type {type(photo).__name__}, expected a path, a Pillow image, or uint8 (height, width, 3) RGB"
        )
    if photo.ndim != 3 or photo.shape[2] != 3 or photo.dtype != np.uint8 or photo.size == 0:
        raise ImageError(f"array {photo.dtype}{photo.shape}, expected uint8 (height, width, 3) RGB")
    return Image.fromarray(photo)


def _check_not_empty(image: Image.Image) -> None:
    if 0 in image.size:
        raise ImageError(f"picture of {image.size[0]}x{image.size[1]} pixels, expected at least 1x1")


def _rgb(image: Image.Image) -> Image.Image:
    """``image`` itself where it is RGB already."""
    _check_not_empty(image)
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_grey_to_8_bit(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        # Pillow turns premultiplied grey into nothing else.
        return _on_backdrop(image.convert("LA") if image.mode == "La" else image)
    return image.convert("RGB")


def _on_backdrop(image: Image.Image) -> Image.Image:
    """In bands of rows: an RGBA copy beside photo and result would be a third of the peak of memory."""
    flat = Image.new("RGB", image.size, _BACKDROP)
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        flat.paste(band, (0, top), band.getchannel("A"))
    return flat


def _grey_to_8_bit(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """(H, W) of 16 or 32-bit integers in 0..65535, or floats -> uint8 (H, W)."""
    if values.dtype.kind == "f":
        finite = np.nan_to_num(values)
        scale = 255 if finite.max(initial=0) <= 1 else 1
        levels = np.clip(np.rint(finite * scale), 0, 255)
    else:
        levels = np.clip(values, 0, 65535).astype(np.uint32) >> 8
    result: npt.NDArray[np.uint8] = levels.astype(np.uint8)
    return result

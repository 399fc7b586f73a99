"""File, Pillow image or array -> Pillow image: sRGB (mode RGB), 8 bit, upright.

What is not plain about a photo is logged once: values that were scaled, a colour profile that cannot be used, frames
that were left out.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from unet_runtime.core import decoders
from unet_runtime.core.arrays import EXPECTED, Channels, array_image, check_channels
from unet_runtime.core.errors import ImageError
from unet_runtime.core.text import one_line

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import ImageFile

    Photo = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Image.Image | npt.NDArray[np.uint8]
    """A path, a file's content, a binary file, a Pillow image of any mode, or an array: see ``core.arrays``."""

logger = logging.getLogger(__name__)

# Alpha has no meaning for the model: transparent pixels hold arbitrary colours, so they become white paper.
_BACKDROP = (255, 255, 255)

PILLOW_LIMIT = -1
"""For ``open_photo``: the limit that Pillow has when the photo is opened."""

ALPHA = "unet_edge_alpha"
"""Key of ``Image.info`` under which a photo that has transparent pixels keeps its opacity, a picture of mode L."""

_ORIENTATION, _UPRIGHT = 0x0112, 1  # EXIF
_PHOTOMETRIC, _WHITE_IS_ZERO, _SAMPLE_FORMAT, _UNSIGNED = 262, 0, 339, 1  # TIFF

_MOST_NOTES = 4096
_OPAQUE = 255
_BAND_PIXELS = 1 << 20


def open_photo(source: str | os.PathLike[str] | IO[bytes], max_pixels: int | None = PILLOW_LIMIT) -> Image.Image:
    """Read a photo whole; the first frame where there are several.

    Args:
        source: a path or a binary file object.
        max_pixels: most pixels (width x height) that are decoded, against decompression bombs: small files that fill
            the memory. ``PILLOW_LIMIT`` takes Pillow's: an error above twice ``PIL.Image.MAX_IMAGE_PIXELS``, which is
            178,956,970 unless someone set it. None: no limit but what Pillow's decoders of WebP, GIF and uncompressed
            TIFF check by themselves.

    Returns:
        Pillow image, mode RGB, 8 bit, turned upright as its EXIF orientation says. Colours are sRGB: a colour profile
        is applied. More than 8 bits are scaled as core/levels.py says.

    Raises:
        ImageError: not an image, truncated, unreadable, a camera's raw file, or with more than ``max_pixels`` pixels.
    """
    is_path = isinstance(source, (str, os.PathLike))
    name = f"{source if is_path else getattr(source, 'name', 'input')}: "
    with _image_errors(name), contextlib.ExitStack() as stack:
        if isinstance(source, (str, os.PathLike)):
            return _decode(stack.enter_context(Path(source).open("rb")), os.fspath(source), max_pixels, name)
        return _decode(_seekable(source), "", max_pixels, name)


def _seekable(file: IO[bytes]) -> IO[bytes]:
    try:
        file.seek(0)
    except (AttributeError, io.UnsupportedOperation):  # a pipe
        return io.BytesIO(file.read())
    return file


def _decode(file: IO[bytes], path: str, max_pixels: int | None, name: str) -> Image.Image:
    check = functools.partial(_check_pixels, max_pixels=max_pixels)
    image = decoders.open_image(file, path, check)
    notes = [_frames_note(image, file, path)]
    is_deep = _is_deep(image)
    image.load()
    if is_deep:
        notes.append(_scale_deep(image, file, path))
    profile = _profile(image) or _profile_beside(image, file)
    # In place: a copy would double the peak of memory. A decoder of JPEG XL turns the picture, whatever EXIF says.
    if image.format != "JXL" or getattr(image, "jpeg", False):
        ImageOps.exif_transpose(image, in_place=True)
    rgb, more = _rgb(image, profile)
    rgb.info.pop("icc_profile", None)
    for note in (*notes, *more):
        _say(note and name + note)
    return rgb


def _frames_note(image: ImageFile.ImageFile, file: IO[bytes], path: str) -> str:
    if image.format == "MPO":  # the further pictures are other views, or a gain map, of the first
        return ""
    if image.format == "GIF":  # it looks for the next frame, and forgets the first
        image = decoders.open_image(file, path, lambda size: None)
    try:
        more = getattr(image, "is_animated", False)
    except Exception:  # what follows the first frame may be damaged
        return ""
    pages = "pages" if image.format == "TIFF" else "frames"
    return f"has several {pages}: the first one is taken" if more else ""


def _is_deep(image: ImageFile.ImageFile) -> bool:
    if image.format not in ("PNG", "TIFF") or image.mode not in ("RGB", "RGBA"):
        return False
    from unet_runtime.core import levels

    return levels.is_deep(image)


def _scale_deep(image: ImageFile.ImageFile, file: IO[bytes], path: str) -> str:
    from unet_runtime.core import levels

    if not levels.may_hold_fewer_bits(image):
        return ""
    low = decoders.open_image(file, path, lambda size: None)
    levels.read_low_bytes(low)
    low.load()
    return levels.deep_to_8_bit(image, low)


def _profile(image: Image.Image) -> bytes:
    if "icc_profile" not in image.info and "exif" not in image.info:
        return b""
    from unet_runtime.core import colour

    with contextlib.suppress(Exception):  # EXIF may hold anything
        return colour.profile_of(image)
    return b""


def _profile_beside(image: Image.Image, file: IO[bytes]) -> bytes:
    if image.format != "JPEG2000":
        return b""
    from unet_runtime.core.containers import jpeg_2000_profile

    return jpeg_2000_profile(file)


@functools.lru_cache(maxsize=_MOST_NOTES)
def _say(note: str) -> None:
    """Log a note once, however often its photo is opened."""
    if note:
        logger.warning("%s", note)


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
    except decoders.RefusedError as error:
        raise ImageError(f"{name}{error}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}too many pixels ({error})") from error
    except MemoryError as error:
        raise ImageError(f"{name}too large for this machine's memory") from error
    except Exception as error:  # on damaged files decoders raise what they stumble over: struct.error, RuntimeError...
        raise ImageError(f"{name}damaged or truncated image ({one_line(error)})") from error


def photo_size(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """(width, height) of a photo as its file has it, before it is turned upright; None if it cannot be read.

    Nothing is decoded, and there is no limit of pixels.
    """
    try:
        with Path(path).open("rb") as file:
            return decoders.image_size(file, os.fspath(path))
    except Exception:  # decoders raise anything; open_photo says what is wrong
        return None


def _check_pixels(size: tuple[int, int], max_pixels: int | None) -> None:
    if max_pixels == PILLOW_LIMIT:
        max_pixels = None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS
    if max_pixels is not None and size[0] * size[1] > max_pixels:
        raise Image.DecompressionBombError(
            f"{size[0]}x{size[1]}, at most {max_pixels:,} are allowed: raise max_pixels if it is safe"
        )


def upright_rgb(image: Image.Image) -> Image.Image:
    """Any Pillow image -> mode RGB, sRGB, 8 bit, upright, same picture; ``image`` itself where it is that already.

    Transparent pixels are laid on white. A colour profile (``image.info["icc_profile"]``) is applied. Greys of more
    than 8 bits are scaled as core/levels.py says.

    Raises:
        ImageError: a picture without pixels, or one whose file turns out to be damaged when it is decoded.
    """
    name = f"picture of {image.width}x{image.height} pixels: "
    with _image_errors(name):
        _check_not_empty(image)
        image.load()  # an image that was opened is decoded only now
        profile = _profile(image)
        turned = image.getexif().get(_ORIENTATION, _UPRIGHT) != _UPRIGHT
        upright = ImageOps.exif_transpose(image) if turned else image
        rgb, notes = _rgb(upright, profile, keep=None if turned else image)
        if rgb is not image:
            rgb.info.pop("icc_profile", None)
        for note in notes:
            _say(note and name + note)
        return rgb


def any_photo(photo: Photo, channels: Channels = "rgb") -> Image.Image:
    """Whatever a caller has for a photo -> mode RGB, 8 bit, upright.

    Args:
        photo: see ``Photo``.
        channels: order of an array's colours; anything else knows its own.

    Raises:
        ImageError: no readable photo, or nothing of the kind.
        ValueError: another order than ``rgb`` and ``bgr``.
    """
    check_channels(channels)
    if isinstance(photo, (str, os.PathLike)):
        return open_photo(photo)
    if isinstance(photo, Image.Image):
        return upright_rgb(photo)
    if isinstance(photo, np.ndarray):
        image = array_image(photo, channels)
        return image if image.mode == "RGB" else upright_rgb(image)
    if isinstance(photo, (bytes, bytearray, memoryview)):
        return open_photo(io.BytesIO(photo))
    if callable(getattr(photo, "read", None)):
        _check_binary(photo)
        return open_photo(photo)
    raise ImageError(
        f"photo of type {type(photo).__name__}, expected a path, bytes, a binary file, a Pillow image, or {EXPECTED}"
    )


def _check_binary(file: IO[bytes]) -> None:
    content = file.read(0)
    if not isinstance(content, bytes):
        if hasattr(content, "close"):  # a coroutine that nobody waits for
            content.close()
        raise ImageError(
            f"file of type {type(file).__name__}, whose read() gives {type(content).__name__}, expected a binary one: "
            'open it with mode "rb", or give its bytes'
        )


def _check_not_empty(image: Image.Image) -> None:
    if 0 in image.size:
        raise ImageError(f"picture of {image.size[0]}x{image.size[1]} pixels, expected at least 1x1")


def _rgb(image: Image.Image, profile: bytes, keep: Image.Image | None = None) -> tuple[Image.Image, list[str]]:
    """Bring an upright picture to RGB, 8 bit, sRGB; it itself where it is that already.

    Args:
        image: of any mode, decoded.
        profile: ICC; empty for sRGB.
        keep: a picture that must stay as it is.

    Returns:
        (the picture, what was done that is worth a word).
    """
    _check_not_empty(image)
    notes = []
    if image.mode.startswith("I") or image.mode == "F":
        from unet_runtime.core import levels

        # What Pillow does not apply to more than 8 bits.
        tags = getattr(image, "tag_v2", None)
        is_negative = tags is not None and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        is_unsigned = tags is not None and tags.get(_SAMPLE_FORMAT, (_UNSIGNED,)) == (_UNSIGNED,)
        image, note = levels.grey_to_8_bit(image, is_unsigned=is_unsigned)
        image = ImageOps.invert(image) if is_negative else image
        notes.append(note)
    if image.mode in ("La", "RGBa"):  # Pillow turns premultiplied grey into nothing else
        image = image.convert(image.mode.upper())
    if profile:
        image, note = _srgb(image, profile, keep)
        notes.append(note)
    if image.has_transparency_data:
        return _on_backdrop(image), notes
    return (image if image.mode == "RGB" else image.convert("RGB")), notes


def limit_opacity(opacity: npt.NDArray[np.uint8], photo: Image.Image) -> npt.NDArray[np.uint8]:
    """Lower the opacity of a cut-out, uint8 (H, W), to the photo's own, in place: what was transparent stays so."""
    alpha = photo.info.get(ALPHA)
    if isinstance(alpha, Image.Image) and alpha.size == opacity.shape[::-1]:
        np.minimum(opacity, np.asarray(alpha), out=opacity)
    return opacity


def _srgb(image: Image.Image, profile: bytes, keep: Image.Image | None) -> tuple[Image.Image, str]:
    from unet_runtime.core import colour

    if image is keep and not colour.is_srgb(profile):
        image = image.copy()
    try:
        return colour.to_srgb(image, profile), ""
    except colour.ProfileError as error:
        return image, f"its colour profile is not used, its colours are taken for sRGB ({error})"


def _on_backdrop(image: Image.Image) -> Image.Image:
    """In bands of rows: an RGBA copy beside photo and result would be a third of the peak of memory."""
    flat = Image.new("RGB", image.size, _BACKDROP)
    opacity: Image.Image | None = None
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        alpha = band.getchannel("A")
        flat.paste(band, (0, top), alpha)
        if opacity is None and alpha.getextrema()[0] != _OPAQUE:
            opacity = Image.new("L", image.size, _OPAQUE)
        if opacity is not None:
            opacity.paste(alpha, (0, top))
    if opacity is not None:
        flat.info[ALPHA] = opacity
    return flat

"""File, Pillow image or array -> Pillow image: sRGB (mode RGB), 8 bit, upright.

A JPEG may stay in its file (``StoredPhoto``): the model's input needs few of its pixels, and a mask none.

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
from typing import IO, TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from unet_runtime.core import decoders
from unet_runtime.core.arrays import EXPECTED, Channels, array_image, check_channels
from unet_runtime.core.errors import ImageError
from unet_runtime.core.text import one_line

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL import ImageFile

    _Bytes = bytes | bytearray | memoryview | IO[bytes]
    Photo: TypeAlias = str | os.PathLike[str] | _Bytes | Image.Image | npt.NDArray[np.uint8] | "StoredPhoto"
    """A path, a file's content, a binary file, a Pillow image of any mode, an array (see ``core.arrays``), or what
    ``stored_photo`` gives."""

logger = logging.getLogger(__name__)

# Alpha has no meaning for the model: transparent pixels hold arbitrary colours, so they become white paper.
_BACKDROP = (255, 255, 255)

PILLOW_LIMIT = -1
"""For ``open_photo``: the limit that Pillow has when the photo is opened."""

ALPHA = "unet_edge_alpha"
"""Key of ``Image.info`` under which a photo that has transparent pixels keeps its opacity, a picture of mode L."""

_ORIENTATION, _UPRIGHT = 0x0112, 1  # EXIF
_PHOTOMETRIC, _WHITE_IS_ZERO, _SAMPLE_FORMAT, _UNSIGNED = 262, 0, 339, 1  # TIFF

_SIDEWAYS = (5, 6, 7, 8)  # orientations that exchange width and height

_MARGIN = 3
"""How many times larger, at least, a reduced photo is than the size it is resized to. What is resized differs from the
whole photo by 0.1 of 255 levels on average: the class of one pixel in a thousand (``benchmarks/large_photos.py``)."""

_LEAST_REDUCED = 1 << 19
"""Pixels from which on it pays: a smaller photo is decoded as it is."""

_MOST_STORED = 64 << 20
"""Bytes of the largest file that is kept in memory: a photo with a film behind it."""

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
    with _opened(source) as (file, path, name):
        return _decode(file, path, max_pixels, name)


def stored_photo(
    source: str | os.PathLike[str] | IO[bytes], max_pixels: int | None = PILLOW_LIMIT
) -> Image.Image | StoredPhoto:
    """Read a photo as ``open_photo`` does, but leave a JPEG in its file until its pixels are asked for.

    Raises:
        ImageError: as ``open_photo``; of a JPEG that is damaged behind its header when it is decoded.
    """
    with _opened(source) as (file, path, name):
        return _stored(file, path, name, max_pixels) or _decode(file, path, max_pixels, name)


def stored_jpeg(
    source: str | os.PathLike[str] | IO[bytes], max_pixels: int | None = PILLOW_LIMIT
) -> StoredPhoto | None:
    """What ``stored_photo`` leaves in its file; None: what it would decode.

    Raises:
        ImageError: as ``open_photo``.
    """
    with _opened(source) as (file, path, name):
        return _stored(file, path, name, max_pixels)


def _stored(file: IO[bytes], path: str, name: str, max_pixels: int | None) -> StoredPhoto | None:
    if not decoders.is_jpeg(file) or file.seek(0, os.SEEK_END) > _MOST_STORED:
        return None
    file.seek(0)
    return StoredPhoto(file.read(), path, name, max_pixels)


class StoredPhoto:
    """A JPEG in its file, whose pixels are decoded when they are asked for, and only as many as are needed.

    JPEG's decoder gives a photo at a half, a quarter or an eighth of its size in a fraction of the time. Pillow's
    decoders of WebP, TIFF and PNG cannot.
    """

    def __init__(self, content: bytes, path: str, name: str, max_pixels: int | None) -> None:
        self._content = content
        self._path = path
        self._name = name
        self._max_pixels = max_pixels
        self._whole: Image.Image | None = None
        image = self._open()
        self._opened = [image]  # taken by the first call that decodes it
        width, height = image.size
        self._orientation = image.getexif().get(_ORIENTATION, _UPRIGHT)
        self.size: tuple[int, int] = (height, width) if self._orientation in _SIDEWAYS else (width, height)
        """(width, height) of the upright photo."""

    def whole(self) -> Image.Image:
        """All pixels, as ``open_photo`` gives them; decoded once.

        Raises:
            ImageError: the file is damaged.
        """
        if self._whole is None:
            with _image_errors(self._name):
                self._whole = _decoded(self._image(), io.BytesIO(self._content), self._path, self._name)
        return self._whole

    def resize(self, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
        """The upright photo at another size, as ``Image.resize``; decoded no larger than this needs.

        Raises:
            ImageError: the file is damaged.
        """
        width, height = self.size
        if width * height >= _LEAST_REDUCED and min(width // size[0], height // size[1]) >= 2 * _MARGIN:
            return self._reduced(size, resample)
        return self.whole().resize(size, resample)

    def _reduced(self, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
        stored = size[::-1] if self._orientation in _SIDEWAYS else size
        with _image_errors(self._name):
            image = self._image()
            draft = image.draft(None, (_MARGIN * stored[0], _MARGIN * stored[1]))
            image.load()
            rgb, notes = _rgb(image, _profile(image))
            # The last column and row may reach past the photo: they stand for up to eight of its pixels.
            part = draft[1] if draft else None
            resized = rgb.resize(stored, resample, box=part)
            resized.getexif()[_ORIENTATION] = self._orientation
            ImageOps.exif_transpose(resized, in_place=True)  # now, as there are few pixels
        for note in notes:
            _say(note and self._name + note)
        return resized

    def _image(self) -> ImageFile.ImageFile:
        """An image whose pixels nobody has decoded."""
        try:
            return self._opened.pop()  # once, whichever thread comes first
        except IndexError:
            return self._open()

    def _open(self) -> ImageFile.ImageFile:
        check = functools.partial(_check_pixels, max_pixels=self._max_pixels)
        return decoders.open_image(io.BytesIO(self._content), self._path, check)


@contextlib.contextmanager
def _opened(source: str | os.PathLike[str] | IO[bytes]) -> Iterator[tuple[IO[bytes], str, str]]:
    """(file, path, beginning of messages); the path is empty where there is none. Errors become an ``ImageError``."""
    is_path = isinstance(source, (str, os.PathLike))
    name = f"{source if is_path else getattr(source, 'name', 'input')}: "
    with _image_errors(name):
        if isinstance(source, (str, os.PathLike)):
            with open(source, "rb") as file:  # noqa: PTH123  # a path of its own takes longer than opening it
                yield file, os.fspath(source), name
        else:
            yield _seekable(source), "", name


def _seekable(file: IO[bytes]) -> IO[bytes]:
    try:
        file.seek(0)
    except (AttributeError, io.UnsupportedOperation):  # a pipe
        return io.BytesIO(file.read())
    return file


def _decode(file: IO[bytes], path: str, max_pixels: int | None, name: str) -> Image.Image:
    check = functools.partial(_check_pixels, max_pixels=max_pixels)
    return _decoded(decoders.open_image(file, path, check), file, path, name)


def _decoded(image: ImageFile.ImageFile, file: IO[bytes], path: str, name: str) -> Image.Image:
    """The pixels of an image of ``file`` that was opened."""
    notes = [_frames_note(image, file, path)]
    is_deep = _is_deep(image)
    image.load()
    if is_deep:
        notes.append(_scale_deep(image, file, path))
    profile, note = _profile_in_file(image, file)
    notes.append(note)
    # In place: a copy would double the peak of memory. A decoder of JPEG XL turns the picture, whatever EXIF says.
    if image.format != "JXL" or getattr(image, "jpeg", False):
        ImageOps.exif_transpose(image, in_place=True)
    rgb, more = _rgb(image, profile)
    _forget_profile(rgb)
    for note in (*notes, *more):
        _say(note and name + note)
    return rgb


def _frames_note(image: ImageFile.ImageFile, file: IO[bytes], path: str) -> str:
    if image.format == "MPO":  # the further pictures are other views, or a gain map, of the first
        return ""
    if decoders.PAGE in image.info:
        return f"begins with a reduced copy (thumbnail): page {image.info[decoders.PAGE]}, the photo itself, is taken"
    if image.format in ("GIF", "TIFF"):  # they look for the next frame, and forget the first
        image = decoders.open_image(file, path, lambda size: None)
    try:
        more = decoders.has_more_pages(image) if image.format == "TIFF" else getattr(image, "is_animated", False)
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
    if not {"icc_profile", "exif", "gamma"} & image.info.keys():
        return b""
    from unet_runtime.core import colour

    with contextlib.suppress(Exception):  # EXIF may hold anything
        return colour.profile_of(image)
    return b""


def _profile_in_file(image: ImageFile.ImageFile, file: IO[bytes]) -> tuple[bytes, str]:
    """(the profile that holds, what is to be said of it), also of places where Pillow does not look."""
    profile = _profile(image)
    if image.format not in ("PNG", "AVIF", "HEIF", "JPEG2000") or "icc_profile" in image.info:
        return profile, ""
    from unet_runtime.core import containers

    if image.format == "JPEG2000":
        return profile or containers.jpeg_2000_profile(file), ""
    find = containers.png_code_points if image.format == "PNG" else containers.heif_code_points
    codes = find(file)
    if codes is None:
        return profile, ""
    from unet_runtime.core import colour

    coded, is_hdr = colour.coded_profile(*codes)
    return coded, "is an HDR picture: what is brighter than its reference white is cut" if is_hdr else ""


def _forget_profile(image: Image.Image) -> None:
    """Let nobody apply again what has been applied."""
    for name in ("icc_profile", "gamma", "exif"):
        image.info.pop(name, None)


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


def photo_size(source: str | os.PathLike[str] | IO[bytes], *, upright: bool = False) -> tuple[int, int] | None:
    """(width, height) of a photo as its file has it, or ``upright``, as EXIF turns it; None if it cannot be read.

    Nothing is decoded, and there is no limit of pixels.
    """
    try:
        with _opened(source) as (file, path, _):
            if not upright:
                return decoders.image_size(file, path)
            image = decoders.open_image(file, path, lambda size: None)
            width, height = decoders.stored_size(image)
            return (height, width) if image.getexif().get(_ORIENTATION) in _SIDEWAYS else (width, height)
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
            _forget_profile(rgb)
        for note in notes:
            _say(note and name + note)
        return rgb


def any_photo(photo: Photo, channels: Channels = "rgb") -> Image.Image | StoredPhoto:
    """Whatever a caller has for a photo -> mode RGB, 8 bit, upright, or a JPEG that is still in its file.

    Args:
        photo: see ``Photo``.
        channels: order of an array's colours; anything else knows its own.

    Raises:
        ImageError: no readable photo, or nothing of the kind.
        ValueError: another order than ``rgb`` and ``bgr``.
    """
    check_channels(channels)
    if isinstance(photo, StoredPhoto):
        return photo
    if isinstance(photo, (str, os.PathLike)):
        return stored_photo(photo)
    if isinstance(photo, Image.Image):
        return upright_rgb(photo)
    if isinstance(photo, np.ndarray):
        image = array_image(photo, channels)
        return image if image.mode == "RGB" else upright_rgb(image)
    if isinstance(photo, (bytes, bytearray, memoryview)):
        return stored_photo(io.BytesIO(photo))
    if callable(getattr(photo, "read", None)):
        _check_binary(photo)
        return stored_photo(photo)
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
    if image.mode == "LAB":
        from unet_runtime.core import colour

        image, profile = colour.lab_to_srgb(image), b""
    if image.mode in ("La", "RGBa"):  # Pillow turns premultiplied grey into nothing else
        image = image.convert(image.mode.upper())
    if profile:
        image, note = _srgb(image, profile, keep)
        notes.append(note)
    if image.has_transparency_data:
        return _on_backdrop(image), notes
    return (image if image.mode == "RGB" else image.convert("RGB")), notes


def whole_photo(photo: Image.Image | StoredPhoto) -> Image.Image:
    """All pixels of a photo, decoded where they are still in its file.

    Raises:
        ImageError: the file is damaged.
    """
    return photo.whole() if isinstance(photo, StoredPhoto) else photo


def limit_opacity(opacity: npt.NDArray[np.uint8], photo: Image.Image | StoredPhoto) -> npt.NDArray[np.uint8]:
    """Lower the opacity of a cut-out, uint8 (H, W), to the photo's own, in place: what was transparent stays so."""
    alpha = None if isinstance(photo, StoredPhoto) else photo.info.get(ALPHA)  # no JPEG has any
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

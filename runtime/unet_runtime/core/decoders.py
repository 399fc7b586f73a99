"""Which decoders read photos, and what every other file is called.

Pillow asks each of its 40 decoders whether a file is theirs, whatever the file's name: one runs Ghostscript, others
decode while they open, so that no limit of pixels can hold. Here is the list of those that are meant.
"""

from __future__ import annotations

import importlib
import importlib.util
import struct
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import IO, TYPE_CHECKING, NamedTuple

from PIL import Image

from unet_runtime.core.install import pip_command

if TYPE_CHECKING:
    from PIL import ImageFile

Size = tuple[int, int]
"""(width, height)"""

_HEAD = 512
"""Bytes of a file's beginning that say what it is."""

_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})

_JXL_STARTS = (b"\xff\x0a", b"\x00\x00\x00\x0cJXL \x0d\x0a\x87\x0a")

_WIDTH, _HEIGHT, _BITS, _PLANES, _SEPARATE = 256, 257, 258, 284, 2  # TIFF

_SUBFILE_TYPE, _OLD_SUBFILE_TYPE, _CHILDREN = 254, 255, 330  # TIFF
_REDUCED, _MASK, _OLD_REDUCED = 1, 4, 2
_MOST_PAGES = 64

PAGE = "unet_edge_page"
"""Key of ``Image.info`` under which a TIFF keeps the number of the page that is taken, where it is not the first."""

_EXTRA = "heif"
"""Extra of the runtime that brings the decoders which Pillow has not."""


class RefusedError(Exception):
    """A file that is no photo, or none that can be decoded; the text says what it is and what to do."""


class Format(NamedTuple):
    """A kind of photo and the decoder that reads it."""

    name: str
    module: str
    """Has the decoder."""
    suffixes: tuple[str, ...]
    """Files of a folder that are taken for such photos."""
    factory: str = ""
    """Name of the decoder in its module; empty: what the module registers in Pillow under the format's name."""
    package: str = ""
    """On PyPI, where it is none of Pillow's own decoders."""
    feature: str = ""
    """What ``PIL.features`` calls it, where Pillow may have been built without it."""


FORMATS = (
    Format("JPEG", "PIL.JpegImagePlugin", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")),
    Format("PNG", "PIL.PngImagePlugin", (".png", ".apng")),
    Format("WEBP", "PIL.WebPImagePlugin", (".webp",)),
    Format("TIFF", "PIL.TiffImagePlugin", (".tif", ".tiff")),
    Format("BMP", "PIL.BmpImagePlugin", (".bmp",)),
    Format("GIF", "PIL.GifImagePlugin", (".gif",)),
    Format("PPM", "PIL.PpmImagePlugin", (".ppm", ".pgm", ".pnm")),
    Format("AVIF", "PIL.AvifImagePlugin", (".avif",), feature="avif"),
    Format("JPEG2000", "PIL.Jpeg2KImagePlugin", (".jp2", ".j2k", ".j2c", ".jpf", ".jpx"), feature="jpg_2000"),
    Format("HEIF", "pillow_heif", (".heic", ".heif", ".hif"), "HeifImageFile", package="pillow-heif"),
    Format("JXL", "pillow_jxl.JpegXLImagePlugin", (".jxl",), "JXLImageFile", package="pillow-jxl-plugin"),
    # Only where they are named: in a folder they lie beside the photo that was made of them.
    Format("PSD", "PIL.PsdImagePlugin", ()),
    Format("QOI", "PIL.QoiImagePlugin", ()),
    Format("TGA", "PIL.TgaImagePlugin", ()),
)

_JPEG = FORMATS[0]

NAMED_SUFFIXES = (".psd", ".qoi", ".tga")
"""Read where such a file is named on its own."""

_TITLES = {"HEIF": "HEIC", "JXL": "JPEG XL", "JPEG2000": "JPEG 2000", "WEBP": "WebP", "PPM": "PNM"}
_OTHERS = frozenset(
    {".svg", ".svgz", ".eps", ".ico", ".icns", ".xcf", ".exr", ".hdr", ".dds", ".psb", ".pcx", ".dcm", ".jxr", ".bpg"}
)

PHOTO_SUFFIXES = frozenset(suffix for known in FORMATS for suffix in known.suffixes)
"""Files of a folder that are taken for photos; a file named on its own may have any name."""


def _missing(known: Format) -> str:
    """Why photos of this format cannot be read on this machine, and what to do; empty where they can."""
    if known.package and importlib.util.find_spec(known.module.split(".")[0]) is None:
        return f"needs the package {known.package}: {pip_command(_EXTRA)}"
    if known.feature:
        from PIL import features

        if not features.check(known.feature):
            return "this build of Pillow has no decoder for it: pip install --upgrade --force-reinstall pillow"
    return ""


def left_out(suffix: str) -> tuple[str, str]:
    """(kind, reason) of pictures of a folder that are not segmented; two empty texts for all other files.

    Args:
        suffix: of a file's name, in lower case.
    """
    for known in FORMATS:
        if suffix in known.suffixes:
            reason = _missing(known)
            return (_TITLES.get(known.name, known.name), reason) if reason else ("", "")
    from unet_runtime.core import raw  # what few files need

    if suffix in raw.SUFFIXES:
        return "camera raw", raw.ADVICE
    if suffix in NAMED_SUFFIXES:
        return suffix[1:].upper(), "read only where the file itself is named"
    if suffix in _OTHERS:
        return suffix[1:].upper(), "no photo format that is read: convert them to PNG or JPEG"
    return "", ""


def open_image(file: IO[bytes], name: str, check: Callable[[Size], None]) -> ImageFile.ImageFile:
    """Find the decoder of a file by its content. What it returns is not yet decoded, with one exception: JPEG XL.

    Args:
        file: can go back to its beginning.
        name: of the file; empty where it has none.
        check: raises where a picture of this size must not be decoded; called before any decoding.

    Raises:
        RefusedError: not a photo, a camera's raw file, or no decoder is installed.
    """
    head = _head(file)
    if not head:
        raise RefusedError("is empty, expected a photo: copy or download it again")
    candidates = [_JPEG]
    if not head.startswith(_MARKS["JPEG"]):  # most photos need no closer look
        _refuse_raw(file, head, name)
        size = _header_size(file, head)
        if size is not None:
            check(size)
        candidates = _candidates(head, _suffix(name))
    reasons = []
    for known in candidates:
        image, reason = _try(known, file, name, head)
        if image is not None:
            _choose_page(image)
            _refuse_planes(image)
            check(image.size)
            return image
        reasons.append(reason)
    raise RefusedError(_what_it_is(head, [reason for reason in reasons if reason]))


def image_size(file: IO[bytes], name: str) -> Size:
    """(width, height) as ``open_image`` would find it; nothing is decoded.

    Raises:
        RefusedError: as there.
    """
    size = _header_size(file, _head(file))
    return size or stored_size(open_image(file, name, lambda size: None))


def stored_size(image: ImageFile.ImageFile) -> Size:
    """(width, height) of a picture before it is turned upright: of a TIFF, Pillow gives the size behind that."""
    tags = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    if tags is None:
        return image.size
    return int(tags.get(_WIDTH, image.width)), int(tags.get(_HEIGHT, image.height))


def is_jpeg(file: IO[bytes]) -> bool:
    """Whether a file that can go back to its beginning is a JPEG, by its first bytes."""
    return _head(file).startswith(_MARKS["JPEG"])


def _head(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(_HEAD)


def _choose_page(image: ImageFile.ImageFile) -> None:
    """Go to the page of a TIFF that is the photo: the first that is not marked as a reduced copy or a mask of another.

    Raises:
        RefusedError: the photo is in a folder of its own below a reduced copy, where Pillow does not look.
    """
    if image.format != "TIFF" or not _is_of_another(image):
        return
    has_children = _CHILDREN in getattr(image, "tag_v2", {})
    for number in _further_pages(image):
        if not _is_of_another(image):
            image.info[PAGE] = number
            return
    if has_children:
        raise RefusedError(
            "a TIFF that begins with a reduced copy (thumbnail) and keeps the photo in a SubIFD, which Pillow cannot "
            "read: save it as a plain TIFF"
        )
    image.info.clear()
    image.seek(0)


def _is_of_another(image: ImageFile.ImageFile) -> bool:
    """Whether the current page of a TIFF says that it is a reduced copy, or the mask, of another page."""
    tags = getattr(image, "tag_v2", {})
    kind = tags.get(_SUBFILE_TYPE)
    if isinstance(kind, int):
        return bool(kind & (_REDUCED | _MASK))
    return bool(tags.get(_OLD_SUBFILE_TYPE) == _OLD_REDUCED)


def has_more_pages(image: ImageFile.ImageFile) -> bool:
    """Whether a TIFF has a photo behind its first page: not only reduced copies and masks of it. Moves to that page."""
    return any(not _is_of_another(image) for _ in _further_pages(image))


def _further_pages(image: ImageFile.ImageFile) -> Iterator[int]:
    """Numbers of a TIFF's pages from 2 on; the picture is at that page."""
    for number in range(2, _MOST_PAGES):
        image.info.clear()  # of the page before
        try:
            image.seek(number - 1)
        except EOFError:
            return
        except (SyntaxError, ValueError, TypeError):  # a kind of pixels that Pillow does not know, as a mask has
            continue
        yield number


def _refuse_planes(image: ImageFile.ImageFile) -> None:
    """Refuse a TIFF of separate planes of 16 bits: where it is not compressed, Pillow takes them for 8 bits."""
    if image.format != "TIFF" or len(image.getbands()) == 1:
        return
    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANES) == _SEPARATE and max(tags.get(_BITS, (8,))) > 8 and image.tile and image.tile[0][0] == "raw":
        raise RefusedError("a TIFF of separate planes of 16 bits, which Pillow cannot read: save it interleaved")


def _suffix(name: str) -> str:
    return PurePath(name).suffix.lower()


def _refuse_raw(file: IO[bytes], head: bytes, name: str) -> None:
    from unet_runtime.core import raw  # a JPEG needs nothing of it

    suffix = _suffix(name)
    if raw.is_raw(head) or (head.startswith(_MARKS["TIFF"]) and raw.is_raw_tiff(file, suffix)):
        raise RefusedError(raw.refusal(suffix))


def _header_size(file: IO[bytes], head: bytes) -> Size | None:
    """The size that a file states at its beginning, of formats whose decoders take memory before they tell it."""
    if head.startswith(_JXL_STARTS):
        from unet_runtime.core.containers import jpeg_xl_size

        return jpeg_xl_size(file)
    if head.startswith((b"GIF87a", b"GIF89a")) and len(head) >= 10:
        width, height = struct.unpack_from("<HH", head, 6)
        return width, height
    return None


def _candidates(head: bytes, suffix: str) -> list[Format]:
    """The formats that this may be: one or none, but for those whose decoders must look further."""
    brands = _brands(head)
    chosen = []
    for known in FORMATS:
        if known.name == "HEIF":
            fits = bool(brands & _HEIF_BRANDS) and not brands & _AVIF_BRANDS
        elif known.name == "AVIF":
            fits = bool(brands & _AVIF_BRANDS)
        elif known.name == "JXL":
            fits = head.startswith(_JXL_STARTS)
        elif known.name == "TGA":  # its files do not begin with a mark: any bytes might be one
            fits = suffix in ("", ".tga")
        else:
            fits = head.startswith(_MARKS[known.name])
        if fits:
            chosen.append(known)
    return chosen


_MARKS: dict[str, tuple[bytes, ...]] = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "WEBP": (b"RIFF",),
    "TIFF": (b"II\x2a\x00", b"MM\x00\x2a", b"II\x2b\x00", b"MM\x00\x2b", b"MM\x2a\x00", b"II\x00\x2a"),
    "BMP": (b"BM",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "PPM": (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"PF", b"P0", b"Py"),
    "JPEG2000": (b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  \x0d\x0a\x87\x0a"),
    "PSD": (b"8BPS",),
    "QOI": (b"qoif",),
}


def _brands(head: bytes) -> set[bytes]:
    """The formats that an ISO media file says it follows."""
    if head[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12]}
    for position in range(16, end, 4):
        brands.add(head[position : position + 4])
    return brands


def _try(known: Format, file: IO[bytes], name: str, head: bytes) -> tuple[ImageFile.ImageFile | None, str]:
    """The picture, its pixels not yet decoded, or why this decoder does not read it."""
    title = _TITLES.get(known.name, known.name)
    missing = _missing(known)
    if missing:
        raise RefusedError(f"a photo of format {title}, which {missing}" if known.package else f"{title}: {missing}")
    try:
        module = importlib.import_module(known.module)  # waits where another thread is importing it
    except ImportError as error:
        raise RefusedError(f"{known.package or 'Pillow'} does not load ({error}): {pip_command(_EXTRA)}") from error
    factory, accept = (getattr(module, known.factory), None) if known.factory else Image.OPEN[known.name]
    if accept is not None and accept(head[:16]) is not True:
        return None, ""
    file.seek(0)
    try:
        return factory(file, name), ""
    except (SyntaxError, IndexError, TypeError, struct.error) as error:  # Pillow's way to say "not mine"
        return None, _reason(known, str(error))


def _reason(known: Format, error: str) -> str:
    """Why a decoder does not read a file that begins as one of its own; empty where any bytes may begin so."""
    if known.name == "TGA":
        return ""
    if known.name == "TIFF" and "pixel mode" in error:
        return (
            "a TIFF whose kind of pixels Pillow cannot read (colours in floats, L*a*b* in 16 bits, 64 bits, ...): "
            "convert it to RGB of 8 or 16 bits"
        )
    return f"damaged {_TITLES.get(known.name, known.name)} file, or of an unknown kind ({error})"


_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "is a PDF document"),
    (b"%!PS", "is a PostScript file"),
    (b"\xc5\xd0\xd3\xc6", "is a PostScript file"),
    (b"PK\x03\x04", "is a ZIP archive: unpack it"),
    (b"\x1f\x8b", "is a gzip archive: unpack it"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z archive: unpack it"),
    (b"Rar!", "is a RAR archive: unpack it"),
    (b"\x00\x00\x01\x00", "is an icon (ICO): convert it to PNG"),
    (b"\x00\x00\x02\x00", "is a mouse cursor (CUR): convert it to PNG"),
    (b"icns", "is an icon (ICNS): convert it to PNG"),
    (b"SIMPLE  =", "is a FITS file: convert it to 16-bit TIFF"),
    (b"\x76\x2f\x31\x01", "is an OpenEXR file: convert it to PNG or TIFF"),
    (b"#?RADIANCE", "is a Radiance HDR file: convert it to PNG or TIFF"),
    (b"\x1aE\xdf\xa3", "is a video (MKV or WebM)"),
)


def _what_it_is(head: bytes, reasons: list[str]) -> str:
    if reasons:
        return reasons[0]
    for mark, text in _KINDS:
        if head.startswith(mark):
            return f"{text}, expected a photo"
    if head[4:8] in (b"ftyp", b"moov") or head[8:12] == b"AVI ":
        return "is a video, expected a photo: a video's name ends as .mp4, .mov, .avi"
    if not head.strip(b"\0"):
        return "begins with nothing but zeros, expected a photo: its content was lost, copy it again"
    return _what_text_it_is(head) or "not an image of a kind that is read (JPEG, PNG, WebP, TIFF, BMP, GIF, ...)"


def _what_text_it_is(head: bytes) -> str:
    """What the text in a file is; empty where it is none."""
    try:
        text = head.decode("utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "ignore").strip()
    except UnicodeError:
        return ""
    start = text[:_HEAD].lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<body", "<script", "<meta", "<title")) or (
        start.startswith(("<?xml", "<!--")) and "<html" in start
    ):
        return "is an HTML page, not an image: an error or login page was saved in its place, download it again"
    if "<svg" in start:
        return "is an SVG drawing, not an image of pixels: convert it to PNG"
    if start.startswith(("<?xml", "<error")):
        return "is an XML document, not an image: an error message was saved in its place, download it again"
    if start.startswith("version https://git-lfs"):
        return "is a pointer of Git LFS, not an image: git lfs pull brings the photo"
    printable = sum(character.isprintable() or character in "\r\n\t" for character in text)
    if text and printable == len(text) and "\ufffd" not in text and b"\0" not in head[:2] and _is_utf8(head):
        return f"not an image but text, which begins with {text[:40]!r}"
    return ""


def _is_utf8(head: bytes) -> bool:
    try:
        head[:-4].decode("utf-8") if len(head) > 4 else head.decode("utf-8")
    except UnicodeError:
        return False
    return True

"""Colour profiles: a photo of any colour space -> sRGB, which is what models and viewers without profiles expect."""

from __future__ import annotations

import functools
import io
import struct
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from PIL import ImageCms

_BAND_PIXELS = 1 << 20
_MOST_BYTES = 16 << 20
"""Larger profiles are not read: those of printers take 3 MB."""

_SAME = 2
"""Levels of 255 by which a colour moves at most under a profile that is sRGB: tables and rounding move it by 1."""

_GRID = range(0, 256, 15)

_MODES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
"""Mode of a picture by the colour space of its profile."""

_ADOBE_MARK = b"R03"
_EXIF, _COLOUR_SPACE, _SRGB, _INTEROPERABILITY, _INDEX = 0x8769, 0xA001, 1, 0xA005, 1


class ProfileError(Exception):
    """A colour profile that cannot be used."""


def profile_of(image: Image.Image) -> bytes:
    """The ICC profile of a picture that was opened, not yet turned upright; empty where its colours are sRGB.

    A camera that is set to Adobe RGB embeds no profile: its EXIF says so (DCF 2.0, "R03").
    """
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        return profile
    exif = image.info.get("exif")
    if isinstance(exif, bytes) and _ADOBE_MARK in exif and _says_adobe_rgb(image):
        return adobe_rgb()
    return b""


def _says_adobe_rgb(image: Image.Image) -> bool:
    exif = image.getexif()
    index = exif.get_ifd(_INTEROPERABILITY).get(_INDEX)
    return str(index).strip("\0") == _ADOBE_MARK.decode() and exif.get_ifd(_EXIF).get(_COLOUR_SPACE) != _SRGB


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """The same colours in sRGB, 8 bit, perceptual intent; ``image`` itself where the profile is sRGB.

    A picture RGB or RGBA is changed in place, in bands; others become a new picture. Transparency stays.

    Args:
        image: decoded, 8 bit, of any mode. If it is not the caller's to change, see ``is_srgb``.
        profile: ICC.

    Raises:
        ProfileError: the profile is damaged, or for pictures of another kind; ``image`` is as it was.
    """
    space = _space(profile)
    image = _as_mode(image, _MODES[space])
    base = image.mode.removesuffix("A") if image.mode in ("LA", "RGBA") else image.mode
    if base != _MODES[space]:
        raise ProfileError(f"it is for {space.strip()}, the picture is {image.mode}")
    transform = _transform(profile, space)
    if transform is None:
        return image
    if isinstance(transform, str):
        raise ProfileError(transform)
    target = image if base == "RGB" else Image.new("RGBA" if image.mode == "LA" else "RGB", image.size)
    rows = max(1, _BAND_PIXELS // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        alpha = band.getchannel("A") if band.mode in ("LA", "RGBA") else None
        if alpha is not None:
            band = band.convert(base)
        band = transform.apply(band)
        if alpha is not None:
            band.putalpha(alpha)
        target.paste(band, (0, top))
    return target


def lab_to_srgb(image: Image.Image) -> Image.Image:
    """A picture of mode LAB (TIFF, Photoshop: CIE L*a*b* under D50) in sRGB."""
    from PIL import ImageCms

    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    return ImageCms.ImageCmsTransform(lab, srgb, "LAB", "RGB", ImageCms.Intent.PERCEPTUAL).apply(image)


def is_srgb(profile: bytes) -> bool:
    """Whether a profile's colours are those of sRGB. The pixels need not be touched, and the answer is kept."""
    try:
        return _transform(profile, _space(profile)) is None
    except ProfileError:
        return False


def _space(profile: bytes) -> str:
    if len(profile) > _MOST_BYTES:
        raise ProfileError(f"{len(profile):,} bytes, expected at most {_MOST_BYTES:,}")
    space = profile[16:20].decode("latin-1")
    if len(profile) < 132 or profile[36:40] != b"acsp" or space not in _MODES:
        raise ProfileError("damaged, or of a colour space that photos do not have")
    return space


def _as_mode(image: Image.Image, mode: str) -> Image.Image:
    """A picture whose channels a profile of this mode's colour space can describe."""
    if image.mode == "RGB" and image.has_transparency_data:  # one of its colours
        return image.convert("RGBA")
    if mode == "RGB" and image.mode in ("1", "L", "P", "PA", "LA", "RGBX", "YCbCr", "HSV"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if mode == "L" and image.mode == "1":
        return image.convert("L")
    return image


@functools.lru_cache(maxsize=32)
def _transform(profile: bytes, space: str) -> ImageCms.ImageCmsTransform | str | None:
    """None where no colour changes; a text where the profile cannot be used."""
    try:
        from PIL import ImageCms  # only photos with a profile need it
    except ImportError as error:
        return f"this Pillow has no LittleCMS ({error})"
    mode = _MODES[space]
    try:
        transform = ImageCms.ImageCmsTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(profile)),
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")),
            mode,
            "RGB",
            ImageCms.Intent.PERCEPTUAL,
        )
        probe = _probe(mode)
        seen = np.asarray(transform.apply(probe), np.int16)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        return f"damaged ({error})"
    if seen[0, -1].min() < 128 or seen[0, -1].sum() <= seen[0, 0].sum():
        return "damaged: white is dark in it"
    if mode != "CMYK" and np.abs(seen - np.asarray(probe.convert("RGB"), np.int16)).max() <= _SAME:
        return None
    return transform


def _probe(mode: str) -> Image.Image:
    """One row of colours: black is the first, white the last."""
    if mode == "L":
        return Image.frombytes("L", (256, 1), bytes(range(256)))
    axes = np.meshgrid(*[np.array(_GRID, np.uint8)] * 3, indexing="ij")
    colours = np.stack(axes, -1).reshape(1, -1, 3)
    if mode == "RGB":
        return Image.fromarray(colours)
    inks = np.concatenate([255 - colours, np.zeros_like(colours[..., :1])], -1)
    return Image.frombytes("CMYK", (inks.shape[1], 1), inks.tobytes())


@functools.cache
def adobe_rgb() -> bytes:
    """Adobe RGB (1998) as an ICC profile: primaries adapted to D50, gamma 563/256."""
    primaries = (
        (b"rXYZ", (0.60974, 0.31111, 0.01947)),
        (b"gXYZ", (0.20528, 0.62567, 0.06087)),
        (b"bXYZ", (0.14919, 0.06322, 0.74457)),
    )
    tags = [(b"wtpt", _xyz((0.9642, 1.0, 0.8249)))]
    for name, value in primaries:
        tags.append((name, _xyz(value)))
        tags.append((name[:1] + b"TRC", b"curv" + struct.pack(">IIHH", 0, 1, 563, 0)))
    table, content = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags:
        table += struct.pack(">4sII", name, start + len(content), len(data))
        content += data
    header = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(content), b"", 0x02100000, b"mntr", b"RGB ", b"XYZ ", b"", b"acsp"
    )
    header += bytes(28) + struct.pack(">3i", *map(_fixed, (0.9642, 1.0, 0.8249)))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + content


def _xyz(values: tuple[float, float, float]) -> bytes:
    return b"XYZ " + struct.pack(">I3i", 0, *map(_fixed, values))


def _fixed(value: float) -> int:
    return round(value * 65536)

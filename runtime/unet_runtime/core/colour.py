"""Colour profiles: a photo of any colour space -> sRGB, which is what models and viewers without profiles expect."""

from __future__ import annotations

import functools
import io
import struct
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt
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


Space = tuple[float, ...]
"""Chromaticities x and y of white, red, green and blue, as a PNG has them."""

_D65 = (0.3127, 0.329)
_SRGB_SPACE: Space = (*_D65, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_ADOBE_SPACE: Space = (*_D65, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_CODED_SPACES: dict[int, Space] = {
    5: (*_D65, 0.64, 0.33, 0.29, 0.6, 0.15, 0.06),
    6: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    7: (*_D65, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07),
    9: (*_D65, 0.708, 0.292, 0.17, 0.797, 0.131, 0.046),
    12: (*_D65, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06),
}
_PURE_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
_PQ, _HLG = 16, 18
_REFERENCE_WHITE = 203  # cd/m2

_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SIGNALS = np.linspace(0, 1, 1024)
_NEAR, _LEAST_GAMMA = 0.005, 0.1


class ProfileError(Exception):
    """A colour profile that cannot be used."""


def profile_of(image: Image.Image) -> bytes:
    """The ICC profile of a picture that was opened, not yet turned upright; empty where its colours are sRGB.

    A camera that is set to Adobe RGB embeds no profile: its EXIF says so (DCF 2.0, "R03"). A PNG may have a gamma and
    chromaticities instead (chunks gAMA, cHRM), which hold where there is no sRGB chunk.
    """
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        return profile
    if image.format == "PNG" and "gamma" in image.info and "srgb" not in image.info:
        return _profile_of_gamma(image.info["gamma"], image.info.get("chromaticity", _SRGB_SPACE))
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
    """Adobe RGB (1998) as an ICC profile: gamma 563/256."""
    return _rgb_profile(_ADOBE_SPACE, struct.pack(">IIHH", 0, 1, 563, 0))


def _profile_of_gamma(gamma: float, space: Space) -> bytes:
    """The profile of a PNG's gamma and chromaticities; empty where they are those of sRGB, or make no sense."""
    is_srgb_space = max(abs(one - other) for one, other in zip(space, _SRGB_SPACE, strict=True)) < _NEAR
    # 1/2.2 is how files of sRGB state their curve, which is no power.
    if (is_srgb_space and abs(gamma - 1 / 2.2) < _NEAR) or not _LEAST_GAMMA <= gamma <= 1 / _LEAST_GAMMA:
        return b""
    return _profile_of(space, _SIGNALS ** (1 / gamma))


def coded_profile(primaries: int, transfer: int) -> tuple[bytes, bool]:
    """(the profile of a picture's code points, whether it is HDR); empty where its colours are sRGB, or unknown.

    Code points of ITU-T H.273, which PNG (cICP), AVIF and HEIC (nclx) state where they have no profile. Of HDR pictures
    (PQ, HLG) reference white, 203 cd/m2 (ITU-R BT.2408), becomes white; what is brighter is cut.
    """
    space = _CODED_SPACES.get(primaries, _SRGB_SPACE)
    if transfer in _PURE_GAMMAS:
        linear = _SIGNALS ** _PURE_GAMMAS[transfer]
    elif transfer == _PQ:
        power = _SIGNALS ** (32 / 2523)
        light = np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)
        linear = light ** (8192 / 1305) * 10_000 / _REFERENCE_WHITE
    elif transfer == _HLG:
        scene = np.where(
            _SIGNALS <= 0.5, _SIGNALS**2 / 3, (np.exp((_SIGNALS - 0.55991073) / 0.17883277) + 0.28466892) / 12
        )
        linear = scene**1.2 * 1000 / _REFERENCE_WHITE
    elif space == _SRGB_SPACE:
        return b"", False
    else:
        linear = np.where(_SIGNALS <= 0.04045, _SIGNALS / 12.92, ((_SIGNALS + 0.055) / 1.055) ** 2.4)
    return _profile_of(space, linear), transfer in (_PQ, _HLG)


def _profile_of(space: Space, linear: npt.NDArray[np.float64]) -> bytes:
    """An ICC profile of chromaticities and a curve at ``_SIGNALS``; empty where they make no sense."""
    table = np.rint(np.clip(linear, 0, 1) * 65535).astype(">u2")
    try:
        return _rgb_profile(space, struct.pack(">II", 0, len(table)) + table.tobytes())
    except (np.linalg.LinAlgError, ZeroDivisionError, OverflowError, ValueError, struct.error):
        return b""


def _rgb_profile(space: Space, curve: bytes) -> bytes:
    tags = [(b"wtpt", _xyz(_D50))]
    for channel, column in zip((b"r", b"g", b"b"), _columns(space), strict=True):
        tags.append((channel + b"XYZ", _xyz(column)))
        tags.append((channel + b"TRC", b"curv" + curve))
    table, content = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags:
        table += struct.pack(">4sII", name, start + len(content), len(data))
        content += data
    header = struct.pack(
        ">I4sI4s4s4s12s4s", start + len(content), b"", 0x02100000, b"mntr", b"RGB ", b"XYZ ", b"", b"acsp"
    )
    header += bytes(28) + struct.pack(">3i", *map(_fixed, _D50))
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + content


def _columns(space: Space) -> list[list[float]]:
    """XYZ of the primaries, adapted to D50 as Bradford does."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in zip(space[::2], space[1::2], strict=True)])
    white, primaries = xyz[0], xyz[1:].T
    matrix = primaries * np.linalg.solve(primaries, white)
    scales = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
    adapted: list[list[float]] = (np.linalg.inv(_BRADFORD) @ (scales[:, np.newaxis] * (_BRADFORD @ matrix))).T.tolist()
    return adapted


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ " + struct.pack(">I3i", 0, *map(_fixed, values))


def _fixed(value: float) -> int:
    return round(value * 65536)

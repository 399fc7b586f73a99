"""ICC profiles and pictures in their colour spaces, computed here from the spaces' definitions, not with LittleCMS."""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt
from PIL import Image

D50 = (0.9642, 1.0, 0.8249)
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
"""Parameters g, a, b, c, d of ICC's parametric curve of type 3."""

Colour = tuple[float, float, float]

# name -> (columns of the matrix to XYZ at D50, transfer curve: a gamma or SRGB_CURVE)
SPACES: dict[str, tuple[tuple[Colour, Colour, Colour], float | tuple[float, ...]]] = {
    "sRGB": (((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410)), SRGB_CURVE),
    "Display P3": (
        ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)),
        SRGB_CURVE,
    ),
    "Adobe RGB": (((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)), 563 / 256),
    "ProPhoto": (((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491)), 1.8),
    "Rec. 2020": (((0.67348, 0.27903, -0.00194), (0.16567, 0.67534, 0.02998), (0.12505, 0.04561, 0.79685)), 2.4),
}


def rgb_profile(space: str) -> bytes:
    primaries, curve = SPACES[space]
    tags = [(b"desc", _text(space)), (b"cprt", _text("CC0")), (b"wtpt", _xyz(D50))]
    for channel, column in zip(b"rgb", primaries, strict=True):
        tags.append((bytes([channel]) + b"XYZ", _xyz(column)))
        tags.append((bytes([channel]) + b"TRC", _curve(curve)))
    return _profile(b"RGB ", b"XYZ ", b"mntr", tags)


def grey_profile(gamma: float) -> bytes:
    return _profile(
        b"GRAY", b"XYZ ", b"mntr", [(b"desc", _text("grey")), (b"wtpt", _xyz(D50)), (b"kTRC", _curve(gamma))]
    )


def cmyk_profile() -> bytes:
    """Inks whose amounts are the square roots of what would be naive: a table of 17 ** 4 colours in Lab."""
    from skimage.color import xyz2lab

    axis = np.linspace(0, 1, 17)
    inks = np.stack(np.meshgrid(axis, axis, axis, axis, indexing="ij"), -1).reshape(-1, 4)
    lab = xyz2lab(_to_xyz(cmyk_to_srgb(inks), "sRGB"), illuminant="D50").reshape(-1, 3)
    table = np.stack([lab[:, 0] * 2.55, lab[:, 1] + 128, lab[:, 2] + 128], -1)
    data = (
        b"mft1" + struct.pack(">IBBBB", 0, 4, 3, 17, 0) + struct.pack(">9i", *(65536, 0, 0, 0, 65536, 0, 0, 0, 65536))
    )
    data += bytes(range(256)) * 4 + np.clip(np.rint(table), 0, 255).astype(np.uint8).tobytes() + bytes(range(256)) * 3
    tags = [(b"desc", _text("inks")), (b"wtpt", _xyz(D50)), (b"A2B0", data)]
    return _profile(b"CMYK", b"Lab ", b"prtr", tags)


def cmyk_to_srgb(inks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(..., 4) in 0..1 -> sRGB (..., 3) in 0..1, as ``cmyk_profile`` means it."""
    spread = inks**2
    return (1 - spread[..., :3]) * (1 - spread[..., 3:])


def in_cmyk(picture: Image.Image) -> Image.Image:
    """An sRGB picture in the inks of ``cmyk_profile``, without black."""
    pixels = np.asarray(picture, np.float64) / 255
    inks = np.concatenate([np.sqrt(1 - pixels), np.zeros_like(pixels[..., :1])], -1)
    return Image.frombytes("CMYK", picture.size, np.rint(inks * 255).astype(np.uint8).tobytes())


def in_space(picture: Image.Image, space: str) -> Image.Image:
    """An sRGB picture's colours in another RGB space."""
    xyz = _to_xyz(np.asarray(picture, np.float64) / 255, "sRGB")
    linear = xyz @ np.linalg.inv(np.array(SPACES[space][0]))
    return Image.fromarray(np.rint(np.clip(_encoded(linear, space), 0, 1) * 255).astype(np.uint8))


def _to_xyz(rgb: npt.NDArray[np.float64], space: str) -> npt.NDArray[np.float64]:
    primaries, curve = SPACES[space]
    if isinstance(curve, float):
        linear = rgb**curve
    else:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    result: npt.NDArray[np.float64] = linear @ np.array(primaries)
    return result


def _encoded(linear: npt.NDArray[np.float64], space: str) -> npt.NDArray[np.float64]:
    curve = SPACES[space][1]
    linear = np.maximum(linear, 0)
    result: npt.NDArray[np.float64]
    if isinstance(curve, float):
        result = linear ** (1 / curve)
    else:
        result = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return result


def _profile(space: bytes, connection: bytes, device: bytes, tags: list[tuple[bytes, bytes]]) -> bytes:
    table, content = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags:
        data += bytes(-len(data) % 4)
        table += struct.pack(">4sII", name, start + len(content), len(data))
        content += data
    size = 128 + len(table) + len(content)
    header = struct.pack(">I4sI4s4s4s12s4s", size, b"", 0x02400000, device, space, connection, b"", b"acsp")
    header += bytes(28) + struct.pack(">3i", *map(_fixed, D50))
    return header.ljust(128, b"\0") + table + content


def _xyz(values: Colour) -> bytes:
    return b"XYZ " + struct.pack(">I3i", 0, *map(_fixed, values))


def _curve(curve: float | tuple[float, ...]) -> bytes:
    if isinstance(curve, float):
        return b"curv" + struct.pack(">IIH", 0, 1, round(curve * 256))
    return b"para" + struct.pack(">IHH5i", 0, 3, 0, *map(_fixed, curve))


def _text(text: str) -> bytes:
    content = text.encode("ascii") + b"\0"
    return b"desc" + struct.pack(">II", 0, len(content)) + content + bytes(8 + 3 + 67)


def _fixed(value: float) -> int:
    return round(value * 65536)

"""Draw one animal on one ground, with its trimap: the pictures of ``synthetic``.

An animal is a list of outlines in its own units (x right, y down, about -1..1). Each is turned and scaled
into the picture, its tone painted, and fur of one texture laid over all of them. Everything is drawn at
twice the size and reduced, so that edges are as soft as a photo's.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Rng = np.random.Generator
Points = npt.NDArray[np.floating]
"""(n, 2): x, y."""
Pixels = npt.NDArray[np.floating]
"""(h, w, 3): RGB in 0..255."""
Color = tuple[int, int, int]

PET, BACKGROUND, BORDER = 1, 2, 3
"""Values of a trimap."""

_OVERSAMPLING = 2
_BORDER = 1 / 64
"""Half the border band's width, as a share of the picture's shorter side."""

_FURS: tuple[Color, ...] = (
    (46, 42, 40), (232, 226, 216), (206, 128, 62), (134, 134, 140), (116, 78, 50), (224, 194, 148), (78, 52, 40),
)
_EYES: tuple[Color, ...] = ((196, 164, 48), (90, 150, 70), (60, 40, 26), (84, 128, 176))


class Outline(NamedTuple):
    """One part of an animal."""

    points: Points
    tone: float = 1.0
    """Brightness of the fur: what is farther away is darker."""
    color: Color | None = None
    """In place of fur: eyes, nose, inside of an ear."""


def draw(rng: Rng, width: int, height: int, cat: bool) -> tuple[Image.Image, Image.Image]:
    """A picture, RGB (width, height), and its trimap, mode L: 1 pet, 2 background, 3 the band between."""
    size = (width * _OVERSAMPLING, height * _OVERSAMPLING)
    pose = _POSES[rng.integers(len(_POSES))]
    outlines = _placed(rng, pose(rng, cat), size)
    tone, shape = Image.new("L", size, 128), Image.new("L", size)
    for outline in outlines:
        if outline.color is None:
            ImageDraw.Draw(tone).polygon(_flat(outline.points), fill=int(128 * outline.tone))
            ImageDraw.Draw(shape).polygon(_flat(outline.points), fill=255)
    soft = np.asarray(tone.filter(ImageFilter.GaussianBlur(size[1] / 90)), np.float64)[..., np.newaxis] / 128
    picture = _image(_ground(rng, size, outlines))
    picture.paste(_image(_fur(rng, size) * soft), mask=shape)
    for outline in outlines:
        if outline.color is not None:
            ImageDraw.Draw(picture).polygon(_flat(outline.points), fill=outline.color)
    small = np.asarray(picture.resize((width, height), Image.Resampling.BOX), np.float64)
    grain = rng.normal(0, rng.uniform(2, 7), small.shape)
    return _image(small + grain), _trimap(shape.resize((width, height), Image.Resampling.BOX))


def _trimap(shape: Image.Image) -> Image.Image:
    pet = shape.point(lambda value: 255 if value >= 128 else 0)
    width = 2 * max(1, round(min(shape.size) * _BORDER)) + 1
    outer = np.asarray(pet.filter(ImageFilter.MaxFilter(width))) > 0
    inner = np.asarray(pet.filter(ImageFilter.MinFilter(width))) > 0
    return Image.fromarray(np.where(inner, PET, np.where(outer, BORDER, BACKGROUND)).astype(np.uint8))


def _placed(rng: Rng, outlines: Sequence[Outline], size: tuple[int, int]) -> list[Outline]:
    """Turned, mirrored, scaled and moved into a picture of ``size``; the animal may leave it a little."""
    angle = np.radians(rng.uniform(-9, 9))
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    turn[:, 0] *= rng.choice((-1, 1))
    turned = [outline.points @ turn for outline in outlines]
    everything = np.concatenate(turned)
    low, high = everything.min(axis=0), everything.max(axis=0)
    frame = np.array(size)
    scale = (frame / (high - low)).min() * rng.uniform(0.6, 1.08)
    free = frame - (high - low) * scale
    offset = free * rng.uniform(0.1, 0.9, 2) - low * scale
    return [outline._replace(points=points * scale + offset) for outline, points in zip(outlines, turned, strict=True)]


# --- Outlines --------------------------------------------------------------------------------------


def _ellipse(x: float, y: float, rx: float, ry: float, tilt: float = 0.0) -> Points:
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    points = np.stack([rx * np.cos(turns), ry * np.sin(turns)], axis=1)
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    return np.asarray(points @ turn + (x, y), np.float64)


def _limb(bones: Sequence[tuple[float, float]], start: float, end: float) -> Points:
    """A bent strip along a curve through ``bones`` (a Bezier curve), from half-width ``start`` to ``end``."""
    t = np.linspace(0, 1, 24)[:, np.newaxis]
    curve = [np.tile(np.array(bone, np.float64), (len(t), 1)) for bone in bones]
    while len(curve) > 1:  # de Casteljau
        curve = [a * (1 - t) + b * t for a, b in pairwise(curve)]
    along = np.gradient(curve[0], axis=0)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    half = start + (end - start) * t
    return np.concatenate([curve[0] + across * half, (curve[0] - across * half)[::-1]])


def _head(rng: Rng, x: float, y: float, r: float, cat: bool) -> list[Outline]:
    """A head seen from the front, about ``r`` wide each way."""
    eyes = _EYES[rng.integers(len(_EYES))]
    pink, dark = (206, 150, 144), (30, 24, 24)
    parts: list[Outline] = []
    for side in (-1, 1):
        if cat:
            ear = np.array([(0.9, -0.3), (0.72, -1.2), (0.15, -0.75)]) * (side * r, r) + (x, y)
            parts.append(Outline(ear, 0.9))
            parts.append(Outline((ear - ear.mean(axis=0)) * 0.5 + ear.mean(axis=0), color=pink))
    parts.append(Outline(_ellipse(x, y, r, r * rng.uniform(0.82, 0.95)), 1.05))
    muzzle = 0.42 if cat else 0.52
    parts.append(Outline(_ellipse(x, y + 0.38 * r, muzzle * r, 0.36 * r), 1.25))
    for side in (-1, 1):
        if not cat:
            parts.append(Outline(_ellipse(x + side * 0.95 * r, y, 0.26 * r, 0.72 * r, side * 0.3), 0.72))
        parts.append(Outline(_ellipse(x + side * 0.4 * r, y - 0.12 * r, 0.17 * r, 0.15 * r), color=eyes))
        parts.append(Outline(_ellipse(x + side * 0.4 * r, y - 0.12 * r, 0.08 * r, 0.13 * r), color=dark))
    parts.append(Outline(_ellipse(x, y + 0.24 * r, 0.14 * r, 0.1 * r), color=pink if cat else dark))
    mouth = _limb([(x - 0.22 * r, y + 0.5 * r), (x, y + 0.62 * r), (x + 0.22 * r, y + 0.5 * r)], 0.03 * r, 0.03 * r)
    return [*parts, Outline(mouth, color=dark)]


def _standing(rng: Rng, cat: bool) -> list[Outline]:
    step, tail, plump = rng.uniform(-0.16, 0.16), rng.uniform(-0.9, 0.1), rng.uniform(0.3, 0.42)
    far = [Outline(_limb([(x, 0.1), (x - step, 0.5), (x - step, 0.92)], 0.14, 0.08), 0.62) for x in (-0.5, 0.42)]
    near = [Outline(_limb([(x, 0.1), (x + step, 0.5), (x + step, 0.98)], 0.17, 0.09), 0.95) for x in (-0.42, 0.5)]
    return [
        *far,
        Outline(_limb([(-0.6, -0.1), (-1.0, -0.1), (-1.1, tail)], 0.09, 0.05), 0.85),
        Outline(_ellipse(0, 0, 0.75, plump), 1.0),
        Outline(_ellipse(-0.42, 0.02, 0.34, plump + 0.02), 1.05),
        *near,
        Outline(_limb([(0.45, 0), (0.6, -0.2), (0.75, -0.4)], 0.3, 0.2), 0.95),
        *_head(rng, 0.82, -0.52, rng.uniform(0.3, 0.38), cat),
    ]


def _sitting(rng: Rng, cat: bool) -> list[Outline]:
    spread, tail = rng.uniform(0.12, 0.18), rng.uniform(0.1, 0.6)
    return [
        Outline(_limb([(0.3, 0.85), (0.9, 1.0), (0.85, tail)], 0.1, 0.06), 0.75),
        Outline(_ellipse(0, 0.35, 0.45, 0.62), 0.95),
        *(Outline(_ellipse(side * 0.36, 0.76, 0.25, 0.24), 0.85) for side in (-1, 1)),
        *(Outline(_limb([(side * spread, 0.2), (side * spread, 0.96)], 0.14, 0.11), 1.08) for side in (-1, 1)),
        *_head(rng, rng.uniform(-0.08, 0.08), -0.42, rng.uniform(0.38, 0.48), cat),
    ]


def _lying(rng: Rng, cat: bool) -> list[Outline]:
    return [
        Outline(_limb([(-0.75, 0.35), (-1.3, 0.35), (-1.1, rng.uniform(0.0, 0.6))], 0.1, 0.06), 0.8),
        Outline(_ellipse(-0.1, 0.26, 0.85, rng.uniform(0.28, 0.36)), 1.0),
        Outline(_ellipse(-0.5, 0.3, 0.36, 0.28), 0.88),
        Outline(_limb([(0.3, 0.5), (0.8, 0.62), (1.1, 0.52)], 0.12, 0.09), 0.92),
        Outline(_limb([(0.4, 0.45), (0.7, 0.55), (0.98, 0.62)], 0.12, 0.09), 1.08),
        *_head(rng, 0.6, rng.uniform(-0.15, 0.05), rng.uniform(0.32, 0.4), cat),
    ]


def _portrait(rng: Rng, cat: bool) -> list[Outline]:
    lean = rng.uniform(-0.15, 0.15)
    return [
        Outline(_ellipse(lean, 1.2, 1.05, 0.62), 0.85),
        Outline(_limb([(lean, 1.1), (0, 0.3)], 0.55, 0.42), 0.9),
        *_head(rng, 0, 0, 0.66, cat),
    ]


_POSES: tuple[Callable[[Rng, bool], list[Outline]], ...] = (_standing, _sitting, _lying, _portrait)

# --- Textures --------------------------------------------------------------------------------------


def _noise(rng: Rng, size: tuple[int, int], across: float, down: float) -> Pixels:
    """Smooth noise, (h, w, 1) in 0..1, with about so many bumps across and down."""
    grid = rng.random((max(2, int(down)), max(2, int(across)))).astype(np.float32)
    smooth = Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(smooth, np.float64), 0, 1)[..., np.newaxis]


def _fur(rng: Rng, size: tuple[int, int]) -> Pixels:
    chosen = rng.choice(len(_FURS), 2, replace=False)
    first, second = (np.array(_FURS[index]) + rng.normal(0, 8, 3) for index in chosen)
    across = np.linspace(0, 1, size[0])[np.newaxis, :, np.newaxis]
    blobs = _noise(rng, size, 7, 7)
    kind = rng.integers(4)
    share: Pixels
    if kind == 0:  # one colour
        share = 0.25 * blobs
    elif kind == 1:  # tabby
        share = 0.8 * (np.sin((across * rng.uniform(14, 24) + blobs) * 2 * np.pi) > 0.35)
    elif kind == 2:  # patches
        share = np.clip((blobs - 0.5) * 14 + 0.5, 0, 1)
    else:  # spots
        share = 0.9 * (_noise(rng, size, 22, 22) > 0.66)
    strands = _noise(rng, size, size[0] / 3, size[1] / 9)
    light = np.linspace(1.15, 0.8, size[1])[:, np.newaxis, np.newaxis]
    return (first * (1 - share) + second * share) * (0.8 + 0.4 * strands) * light


def _ground(rng: Rng, size: tuple[int, int], outlines: Sequence[Outline]) -> Pixels:
    first, second = _paint(rng), _paint(rng)
    across = np.linspace(0, 1, size[0])[np.newaxis, :, np.newaxis]
    down = np.linspace(0, 1, size[1])[:, np.newaxis, np.newaxis]
    kind = rng.integers(4)
    share: Pixels
    if kind == 0:  # sky or wall over grass or floor
        share = np.clip((down - rng.uniform(0.35, 0.65)) * 40, 0, 1) * np.ones_like(across)
    elif kind == 1:  # boards, wallpaper
        share = 0.5 * (np.sin((across * rng.uniform(-9, 9) + down * rng.uniform(-9, 9)) * 2 * np.pi) > 0.0)
    elif kind == 2:  # tiles
        count = rng.integers(4, 9)
        share = 0.6 * ((np.floor(across * count) + np.floor(down * count)) % 2)
    else:  # out of focus
        share = _noise(rng, size, 5, 5)
    picture = _image(first * (1 - share) + second * share)
    for _ in range(rng.integers(0, 5)):
        _clutter(rng, picture)
    _shadow(picture, outlines)
    texture = 0.8 + 0.15 * _noise(rng, size, size[0] / 8, size[1] / 8) + 0.2 * _noise(rng, size, 4, 4)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2.5))), np.float64) * texture


def _clutter(rng: Rng, picture: Image.Image) -> None:
    """A cushion, a box, a plant: something that is no animal."""
    x, y = rng.uniform(0, picture.width), rng.uniform(0, picture.height)
    radii = rng.uniform(0.04, 0.2, 2) * picture.width
    shape = _ellipse(x, y, radii[0], radii[1], rng.uniform(0, np.pi))
    corners = (40, 5, 10)[rng.integers(3)]  # every n-th point of the ellipse: an ellipse, a polygon, a box
    points = shape if corners == 40 else shape[::corners]
    ImageDraw.Draw(picture).polygon(_flat(points), fill=tuple(int(value) for value in _paint(rng)))


def _shadow(picture: Image.Image, outlines: Sequence[Outline]) -> None:
    everything = np.concatenate([outline.points for outline in outlines])
    (left, _), (right, bottom) = everything.min(axis=0), everything.max(axis=0)
    mask = Image.new("L", picture.size)
    half = (right - left) / 2
    flat = _ellipse(left + half, bottom - half * 0.06, half, half * 0.16)
    ImageDraw.Draw(mask).polygon(_flat(flat), fill=110)
    picture.paste((20, 18, 16), mask=mask.filter(ImageFilter.GaussianBlur(max(1.0, float(half) * 0.05))))


def _paint(rng: Rng) -> Points:
    """A colour of a room or a garden: RGB in 0..255."""
    return np.array(colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.35, 0.95))) * 255


def _flat(points: Points) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in points]


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))

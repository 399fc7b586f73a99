"""Draw one animal on a background, with its trimap: the pictures of ``synthetic``.

An animal is a list of ellipses and triangles in units of its own (x right, y down, about -1..1), turned and scaled into
the picture and covered with one fur. All of it is drawn at twice the size and reduced, which softens the edges.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw, ImageFilter

Floats = npt.NDArray[np.float64]

PET, BACKGROUND, BORDER = 1, 2, 3
"""Values of a trimap."""

_OVERSAMPLING = 2
_BORDER = 1 / 64
"""Half the width of the border band, as a share of the picture's shorter side."""

_ROUND, _TRIANGLE = 40, 3
"""Corners of a shape."""

_FURS = ("#2e2a28", "#e8e2d8", "#ce803e", "#86868c", "#744e32", "#e0c294")
_EYES = ("#c4a430", "#5a9646", "#3c281a", "#5480b0")
_DARK, _PINK = "#1e1818", "#ce9690"

# Ellipses: centre x and y, radius x and y, tilt (degrees), brightness of the fur (what is farther away is darker).
_STANDING = (
    (-0.48, 0.50, 0.11, 0.46, 4, 0.62),  # far legs
    (0.45, 0.50, 0.11, 0.46, -4, 0.62),
    (-0.80, -0.35, 0.08, 0.42, -25, 0.85),  # tail
    (0.00, 0.00, 0.78, 0.36, 0, 1.00),  # body
    (-0.42, 0.50, 0.14, 0.52, -4, 0.95),  # near legs
    (0.52, 0.50, 0.14, 0.52, 4, 0.95),
    (0.62, -0.22, 0.28, 0.40, -35, 0.95),  # neck
)
_SITTING = (
    (0.65, 0.70, 0.38, 0.09, 25, 0.75),  # tail
    (0.00, 0.35, 0.45, 0.62, 0, 0.95),  # body
    (-0.36, 0.76, 0.25, 0.24, 0, 0.85),  # haunches
    (0.36, 0.76, 0.25, 0.24, 0, 0.85),
    (-0.15, 0.56, 0.13, 0.42, 0, 1.08),  # front legs
    (0.15, 0.56, 0.13, 0.42, 0, 1.08),
)
_LYING = (
    (-1.00, 0.30, 0.40, 0.09, 20, 0.80),  # tail
    (-0.10, 0.26, 0.85, 0.32, 0, 1.00),  # body
    (-0.50, 0.30, 0.36, 0.28, 0, 0.88),  # haunch
    (0.75, 0.54, 0.40, 0.11, 0, 0.92),  # paws
    (0.68, 0.60, 0.36, 0.11, -8, 1.08),
)
_PORTRAIT = (
    (0.00, 1.20, 1.05, 0.62, 0, 0.85),  # shoulders
    (0.00, 0.70, 0.48, 0.50, 0, 0.90),  # neck
)
_POSES = (
    (_STANDING, (0.82, -0.52, 0.34)),
    (_SITTING, (0.0, -0.42, 0.43)),
    (_LYING, (0.6, -0.05, 0.36)),
    (_PORTRAIT, (0.0, 0.0, 0.66)),
)
"""The body's ellipses; the head's centre x and y, and its radius."""


class Shape(NamedTuple):
    """One part of an animal."""

    points: Floats
    """(corners, 2): x, y."""
    brightness: float = 1.0
    color: str = ""
    """Colour in place of fur: eyes, nose, inside of an ear."""


def draw(rng: np.random.Generator, width: int, height: int, cat: bool) -> tuple[Image.Image, Image.Image]:
    """A picture, RGB (width, height), and its trimap, mode L: 1 pet, 2 background, 3 the band between."""
    size = (width * _OVERSAMPLING, height * _OVERSAMPLING)
    brightness, pet = Image.new("L", size, 128), Image.new("L", size)
    features = Image.new("RGBA", size)
    for shape in _fit_into(rng, size, _animal(rng, cat)):
        corners = shape.points.ravel().tolist()
        if shape.color:
            ImageDraw.Draw(features).polygon(corners, fill=shape.color)
        else:
            ImageDraw.Draw(brightness).polygon(corners, fill=int(128 * shape.brightness))
            ImageDraw.Draw(pet).polygon(corners, fill=255)
    light = np.asarray(brightness.filter(ImageFilter.GaussianBlur(size[1] / 90)), np.float64)[..., np.newaxis] / 128
    picture = _image(_background(rng, size))
    picture.paste(_image(_fur(rng, size) * light), mask=pet)
    picture.paste(features, mask=features)
    small = np.asarray(picture.resize((width, height), Image.Resampling.BOX), np.float64)
    grain = rng.normal(0, rng.uniform(2, 7), small.shape)
    return _image(small + grain), _trimap(pet.resize((width, height), Image.Resampling.BOX))


def _trimap(pet: Image.Image) -> Image.Image:
    inside = pet.point(lambda value: 255 if value >= 128 else 0)
    width = 2 * max(1, round(min(pet.size) * _BORDER)) + 1
    values = np.full((pet.height, pet.width), BORDER, np.uint8)
    values[np.asarray(inside.filter(ImageFilter.MaxFilter(width))) == 0] = BACKGROUND
    values[np.asarray(inside.filter(ImageFilter.MinFilter(width))) == 255] = PET
    return Image.fromarray(values)


# --- Outlines --------------------------------------------------------------------------------------


def _animal(rng: np.random.Generator, cat: bool) -> list[Shape]:
    """Body and head in a pose drawn at random."""
    body, (head_x, head_y, radius) = _POSES[rng.integers(len(_POSES))]
    shapes = []
    for x, y, rx, ry, tilt, brightness in body:
        width, height = rng.uniform(0.9, 1.1, 2)
        shapes.append(Shape(_polygon(x, y, rx * width, ry * height, tilt + rng.uniform(-6, 6)), brightness))
    for shape in _head(rng, cat):
        shapes.append(shape._replace(points=shape.points * radius * rng.uniform(0.9, 1.1) + (head_x, head_y)))
    return shapes


def _head(rng: np.random.Generator, cat: bool) -> list[Shape]:
    """A head seen from the front, of radius 1 around (0, 0)."""
    eyes, nose = rng.choice(_EYES), _PINK if cat else _DARK
    face = [Shape(_polygon(0, 0, 1, rng.uniform(0.82, 0.95)), 1.05), Shape(_polygon(0, 0.38, 0.5, 0.36), 1.25)]
    ears = []
    for side in (-1, 1):
        if cat:
            ears.append(Shape(_polygon(side * 0.6, -0.7, 0.55, 0.45, side * 25 - 90, _TRIANGLE), 0.9))
            ears.append(Shape(_polygon(side * 0.6, -0.7, 0.28, 0.22, side * 25 - 90, _TRIANGLE), color=_PINK))
        else:
            face.append(Shape(_polygon(side * 0.95, 0, 0.26, 0.72, side * -17), 0.72))
        face.append(Shape(_polygon(side * 0.4, -0.12, 0.17, 0.15), color=eyes))
        face.append(Shape(_polygon(side * 0.4, -0.12, 0.08, 0.13), color=_DARK))
    return [*ears, *face, Shape(_polygon(0, 0.24, 0.14, 0.1), color=nose)]


def _polygon(x: float, y: float, rx: float, ry: float, tilt: float = 0.0, corners: int = _ROUND) -> Floats:
    """``corners`` points, (corners, 2), of an ellipse turned clockwise by ``tilt`` degrees."""
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    points = np.stack([rx * np.cos(angles), ry * np.sin(angles)], axis=1)
    return points @ _rotation(tilt) + (x, y)


def _rotation(degrees: float) -> Floats:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cosine, sine], [-sine, cosine]])


def _fit_into(rng: np.random.Generator, size: tuple[int, int], shapes: Sequence[Shape]) -> list[Shape]:
    """The shapes turned, mirrored, scaled and moved into a picture of ``size``; the animal may leave it a little."""
    turn = _rotation(rng.uniform(-9, 9)) * (rng.choice((-1, 1)), 1)
    everything = np.concatenate([shape.points for shape in shapes]) @ turn
    low, high = everything.min(axis=0), everything.max(axis=0)
    scale = (size / (high - low)).min() * rng.uniform(0.75, 1.08)
    offset = (size - (high - low) * scale) * rng.uniform(0.1, 0.9, 2) - low * scale
    return [shape._replace(points=shape.points @ turn * scale + offset) for shape in shapes]


# --- Textures --------------------------------------------------------------------------------------


def _noise(rng: np.random.Generator, size: tuple[int, int], across: float, down: float) -> Floats:
    """Smooth noise, (h, w, 1) in 0..1, with about so many bumps across and down."""
    grid = rng.random((max(2, int(down)), max(2, int(across)))).astype(np.float32)
    smooth = Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(smooth, np.float64), 0, 1)[..., np.newaxis]


def _fur(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """RGB (h, w, 3) in 0..255: plain, striped, or with patches or spots of a second colour."""
    first, second = map(ImageColor.getrgb, rng.choice(_FURS, 2, replace=False))
    across = np.linspace(0, 1, size[0])[np.newaxis, :, np.newaxis]
    bumps = _noise(rng, size, 7, 7)
    stripes = np.sin((across * rng.uniform(14, 24) + bumps) * 2 * np.pi) > 0.35
    shares = (0.25 * bumps, stripes, bumps > 0.5, _noise(rng, size, 22, 22) > 0.66)
    strands = 0.8 + 0.4 * _noise(rng, size, size[0] / 3, size[1] / 9)
    return _mixed(first, second, shares[rng.integers(4)]) * strands


def _background(rng: np.random.Generator, size: tuple[int, int]) -> Floats:
    """RGB (h, w, 3) in 0..255: a horizon, stripes, tiles or blur of two colours, with things that are no animals."""
    across = np.linspace(0, 1, size[0])[np.newaxis, :, np.newaxis]
    down = np.linspace(0, 1, size[1])[:, np.newaxis, np.newaxis]
    horizon = (down > rng.uniform(0.35, 0.65)) & (across >= 0)
    stripes = np.sin((across * rng.uniform(-9, 9) + down * rng.uniform(-9, 9)) * 2 * np.pi) > 0
    count = rng.integers(4, 9)
    tiles = (np.floor(across * count) + np.floor(down * count)) % 2
    shares = (horizon, 0.5 * stripes, 0.6 * tiles, _noise(rng, size, 5, 5))
    picture = _image(_mixed(_paint(rng), _paint(rng), shares[rng.integers(4)]))
    for _ in range(rng.integers(4)):
        x, y = rng.uniform((0, 0), size)
        rx, ry = rng.uniform(0.04, 0.2, 2) * size[0]
        shape = _polygon(x, y, rx, ry, rng.uniform(0, 360), rng.choice((_ROUND, 8, 4)))
        ImageDraw.Draw(picture).polygon(shape.ravel().tolist(), fill=tuple(map(int, _paint(rng))))
    texture = 0.8 + 0.15 * _noise(rng, size, size[0] / 8, size[1] / 8) + 0.2 * _noise(rng, size, 4, 4)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2.5))), np.float64) * texture


def _mixed(first: Sequence[float], second: Sequence[float], share: npt.ArrayLike) -> Floats:
    """Two RGB colours -> (h, w, 3), ``share`` (h, w, 1; 0..1) of it the second."""
    part = np.asarray(share, np.float64)
    return np.array(first) * (1 - part) + np.array(second) * part


def _paint(rng: np.random.Generator) -> Sequence[float]:
    """A colour of a room or a garden: RGB in 0..255."""
    return [255 * part for part in colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.6), rng.uniform(0.35, 0.95))]


def _image(pixels: Floats) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))

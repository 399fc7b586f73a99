"""Pictures of where an integer file's masks differ from the float model's."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from unet_runtime.core.errors import OutputError
from unet_runtime.core.render import palette_image
from unet_runtime.core.spec import ModelSpec

WORST = 5
"""Photos shown, those with the lowest agreement."""

POSITIONS_NAME, WORST_NAME = "differences.png", "worst-photos.png"

_SIDE = 240
"""Pixels that the longer side of a picture is grown to, at least, by whole factors: masks stay sharp."""

_SMOOTH = 5
"""Pixels, odd: side of the square that a position is averaged over."""

_GAP, _TEXT, _LINE = 10, 15, 22
_INK, _PAPER = (30, 30, 30), (255, 255, 255)
_DIFFERENT = (255, 0, 110)
_RAMP = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))
"""From dark to light, evenly: the colour map "inferno" at its quarters."""


def heat_maps(
    images: npt.NDArray[np.uint8],
    reference: npt.NDArray[np.uint8],
    quantized: npt.NDArray[np.uint8],
    spec: ModelSpec,
    folder: Path,
    *,
    names: Sequence[str] = (),
    worst: int = WORST,
) -> list[Path]:
    """Write two PNG files: how often masks differ at each pixel position, and the photos where they differ most.

    Args:
        images: photos as fed, uint8 (n, h, w, 3), RGB in 0..255.
        reference: class ids of the float model, uint8 (n, h', w'), h' and w' at most h and w.
        quantized: class ids of the integer file, likewise.
        spec: of the model; its classes' colours.
        folder: made if need be.
        names: of the photos; their numbers by default.
        worst: photos to show.

    Returns:
        The paths of the two.

    Raises:
        ValueError: no photo, or arrays that do not belong together.
        OutputError: a file cannot be written.
    """
    _check(images, reference, quantized)
    names = names or [f"photo {index}" for index in range(len(images))]
    differ = reference != quantized  # (n, h', w')
    photos = _without_margin(images, reference.shape[1:])
    shares = differ.mean(axis=(1, 2))
    rows = [
        (
            f"{names[index]}: {shares[index]:.2%} of pixels differ",
            _row(photos[index], reference[index], quantized[index], spec),
        )
        for index in np.argsort(-shares, kind="stable")[:worst]
    ]
    pictures = ((POSITIONS_NAME, _positions(differ)), (WORST_NAME, _sheet(rows, spec)))
    return [_write(picture, folder / name) for name, picture in pictures]


def _check(images: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8], quantized: npt.NDArray[np.uint8]) -> None:
    fits = images.ndim == 4 and reference.ndim == 3 and reference.shape == quantized.shape
    if not fits or len(images) == 0 or len(images) != len(reference):
        raise ValueError(
            f"photos {images.shape} with masks {reference.shape} and {quantized.shape}, expected (n, h, w, 3) and "
            "twice (n, h', w') with n above 0"
        )


def _without_margin(images: npt.NDArray[np.uint8], size: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """What the masks are of: unpadded convolutions answer for the middle only."""
    top, left = ((images.shape[axis + 1] - size[axis]) // 2 for axis in (0, 1))
    return images[:, top : top + size[0], left : left + size[1]]


def _positions(differ: npt.NDArray[np.bool_]) -> Image.Image:
    """A map of the share of photos that differ at each position, with its scale."""
    share = _smoothed(differ.mean(axis=0))  # (h', w')
    most = float(share.max()) or 1.0
    heat = _grown(Image.fromarray(_colours(share / most)), 2 * _SIDE)
    scale = Image.fromarray(_colours(np.linspace(1, 0, heat.height)[:, np.newaxis].repeat(_LINE, axis=1)))
    lines = (
        f"Pixels whose class differs: {differ.mean():.3%} of all",
        f"in {len(differ)} photos. Share of photos at each position, mean of {_SMOOTH}x{_SMOOTH} pixels:",
    )
    top = _GAP + _LINE * len(lines)
    sheet = Image.new("RGB", (heat.width + _LINE + 80 + 3 * _GAP, top + heat.height + _GAP), _PAPER)
    for number, line in enumerate(lines):
        _write_text(sheet, (_GAP, _GAP // 2 + _LINE * number), line)
    sheet.paste(heat, (_GAP, top))
    left = heat.width + 2 * _GAP
    sheet.paste(scale, (left, top))
    _write_text(sheet, (left + _LINE + _GAP, top), f"{most:.2%}")
    _write_text(sheet, (left + _LINE + _GAP, top + heat.height - _LINE), "0%")
    return sheet


def _smoothed(share: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of a hundred photos a single position says nothing; its neighbourhood does."""
    padded = np.pad(share, _SMOOTH // 2, mode="edge")
    means: npt.NDArray[np.float64] = np.lib.stride_tricks.sliding_window_view(padded, (_SMOOTH, _SMOOTH)).mean((2, 3))
    return means


def _colours(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """0..1 -> RGB along the ramp."""
    stops = np.linspace(0, 1, len(_RAMP))
    channels = [np.interp(values, stops, [colour[channel] for colour in _RAMP]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def _row(
    photo: npt.NDArray[np.uint8], expected: npt.NDArray[np.uint8], actual: npt.NDArray[np.uint8], spec: ModelSpec
) -> list[Image.Image]:
    """Photo, both masks, and the photo in grey with the differing pixels bright."""
    grey = Image.fromarray(photo).convert("L").convert("RGB").point(lambda value: value // 2)
    marked = np.asarray(grey).copy()
    marked[expected != actual] = _DIFFERENT
    masks = [palette_image(mask, spec).convert("RGB") for mask in (expected, actual)]
    return [_grown(picture, _SIDE) for picture in (Image.fromarray(photo), *masks, Image.fromarray(marked))]


def _sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]], spec: ModelSpec) -> Image.Image:
    width, height = rows[0][1][0].size
    heads = ("photo", "float mask", "integer mask", "where they differ")
    top = 2 * _LINE + 2 * _GAP
    step = _LINE + height + _GAP
    sheet = Image.new("RGB", (_GAP + len(heads) * (width + _GAP), top + len(rows) * step), _PAPER)
    _key(sheet, spec)
    for column, head in enumerate(heads):
        _write_text(sheet, (_GAP + column * (width + _GAP), _LINE + _GAP), head)
    for number, (label, pictures) in enumerate(rows):
        _write_text(sheet, (_GAP, top + number * step), label)
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (_GAP + column * (width + _GAP), top + number * step + _LINE))
    return sheet


def _key(sheet: Image.Image, spec: ModelSpec) -> None:
    """The classes' colours, along the top."""
    draw, left = ImageDraw.Draw(sheet), _GAP
    for entry in spec.classes:
        draw.rectangle((left, _GAP // 2 + 3, left + _TEXT, _GAP // 2 + 3 + _TEXT), fill=entry.color)
        _write_text(sheet, (left + _TEXT + 6, _GAP // 2), entry.name)
        left += _TEXT + 6 + round(_font().getlength(entry.name)) + 2 * _GAP


def _grown(picture: Image.Image, side: int) -> Image.Image:
    factor = max(1, -(-side // max(picture.size)))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def _write_text(sheet: Image.Image, place: tuple[int, int], text: str) -> None:
    ImageDraw.Draw(sheet).text(place, text, fill=_INK, font=_font())


def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(_TEXT)


def _write(picture: Image.Image, path: Path) -> Path:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part.png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            picture.save(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}): choose another --output") from error
    return path

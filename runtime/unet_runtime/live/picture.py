"""Live pictures: a frame drawn with its prediction, and the status written on it.

As ``render`` draws photos, but with OpenCV and softer edges: fast enough for a camera, on one core.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from unet_runtime.core import masks
from unet_runtime.core.geometry import place
from unet_runtime.core.render import OVERLAY_STRENGTH
from unet_runtime.core.spec import ClassSpec, ModelSpec
from unet_runtime.io.video.opencv import load_opencv
from unet_runtime.live.view import Status

BACKGROUNDS = ("overlay", "cutout", "blur")
"""How the background is shown; key b takes the next one."""

Frame = npt.NDArray[np.uint8]
"""(H, W, 3) RGB."""

_PURPOSE = "the live picture"  # in the message where OpenCV is missing
_SQUARE = 16  # pixels, of the chequerboard that stands for transparency
_GREYS = (206, 240)
_BAND_PIXELS = 1 << 15  # pixels tinted at a time: few enough for the processor's cache
_OPACITY_SIDE = 480  # pixels

_BLUR_ROWS = 120  # the background is blurred at this height: what is blurred needs no pixels
_BLUR_SIGMA = 4.0  # pixels of those

_BACKDROP, _INK, _ALERT = (12, 14, 18, 176), (255, 255, 255, 255), (255, 209, 102, 255)


def compose(frame: Frame, probabilities: npt.NDArray[np.float32], spec: ModelSpec, background: str) -> Frame:
    """A frame with its foreground marked.

    Args:
        frame: uint8 (H, W, 3) RGB.
        probabilities: float32 (h, w, C), the model's output for it.
        spec: of the model.
        background: ``overlay`` (classes tinted), ``cutout`` (the foreground on a chequerboard) or ``blur``.

    Returns:
        uint8 (H, W, 3) RGB, a new array.
    """
    if background == "overlay":
        return _overlay(frame, probabilities, spec)
    opacity = _opacity(frame, probabilities, spec)
    behind = _chequerboard(*frame.shape[:2]) if background == "cutout" else _blurred(frame, opacity)
    return np.array(Image.composite(Image.fromarray(frame), Image.fromarray(behind), Image.fromarray(opacity)))


def _overlay(frame: Frame, probabilities: npt.NDArray[np.float32], spec: ModelSpec) -> Frame:
    """Classes but the background tinted as ``render.overlay`` tints them, their edges antialiased."""
    cv2 = load_opencv(_PURPOSE)
    size = (frame.shape[1], frame.shape[0])
    planes = masks.photo_planes(probabilities, place(size, spec), spec)  # (C, h, w)
    enlarged = {}  # only the classes that are in the picture: each one costs time
    for index in np.unique(planes.argmax(axis=0)):
        enlarged[spec.classes[index]] = cv2.resize(planes[index], size)  # (H, W)
    result = np.empty_like(frame)
    rows = max(1, _BAND_PIXELS // size[0])
    for top in range(0, size[1], rows):
        band = slice(top, top + rows)
        _tint(frame[band], {entry: plane[band] for entry, plane in enlarged.items()}, result[band])
    return result


def _tint(frame: Frame, probabilities: Mapping[ClassSpec, npt.NDArray[np.float32]], result: Frame) -> None:
    """Write ``frame`` (H, W, 3) into ``result``, tinted in each class's colour by its probability (H, W)."""
    # The fourth power draws an edge some pixels wide where the most probable class changes, and only there.
    weights = {entry: np.square(np.square(plane)) for entry, plane in probabilities.items()}
    scale = np.float32(OVERLAY_STRENGTH) / np.maximum(sum(weights.values()), np.float32(1e-12))
    kept = np.ones(frame.shape[:2], np.float32)
    tinted = []
    for entry, weight in weights.items():
        if entry.role != "background":
            tinted.append((entry.color, weight * scale))
            kept -= tinted[-1][1]
    for channel in range(3):  # one at a time: three interleaved cost five times as much
        values = frame[..., channel] * kept
        for color, share in tinted:
            values += share * np.float32(color[channel])
        values += np.float32(0.5)  # the conversion to integers cuts
        result[..., channel] = values


def _opacity(frame: Frame, probabilities: npt.NDArray[np.float32], spec: ModelSpec) -> npt.NDArray[np.uint8]:
    """``masks.opacity``, made at no more pixels than a model's output is worth, and enlarged."""
    height, width = frame.shape[:2]
    scale = min(1.0, _OPACITY_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    planes = masks.photo_planes(probabilities, place((width, height), spec), spec)
    opacity = masks.opacity(planes, size, spec)
    result: npt.NDArray[np.uint8] = load_opencv(_PURPOSE).resize(opacity, (width, height))
    return result


@lru_cache(maxsize=2)
def _chequerboard(height: int, width: int) -> Frame:
    rows, columns = np.ogrid[:height, :width]
    is_light = (rows // _SQUARE + columns // _SQUARE) % 2
    grey = np.array(_GREYS, np.uint8)[is_light]
    return np.repeat(grey[..., np.newaxis], 3, axis=2)


def _blurred(frame: Frame, opacity: npt.NDArray[np.uint8]) -> Frame:
    """The frame out of focus, made of background pixels alone: no halo of the foreground surrounds it."""
    cv2 = load_opencv(_PURPOSE)
    height, width = frame.shape[:2]
    rows = min(height, _BLUR_ROWS)
    size = (max(1, round(width * rows / height)), rows)
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    # Never 0: where a whole neighbourhood is foreground there must be a colour too.
    share = (1.001 - cv2.resize(opacity, size, interpolation=cv2.INTER_AREA) / np.float32(255)).astype(np.float32)
    colours = cv2.GaussianBlur(small * share[..., np.newaxis], (0, 0), _BLUR_SIGMA)
    colours /= cv2.GaussianBlur(share, (0, 0), _BLUR_SIGMA)[..., np.newaxis]
    result: Frame = cv2.resize(cv2.convertScaleAbs(colours), (width, height))
    return result


def with_status(picture: Frame, status: Status) -> Frame:
    """A copy of ``picture`` with the numbers of ``status`` in its upper left corner, and the message at its foot."""
    image = Image.fromarray(picture)
    height = max(11, round(picture.shape[0] / 28))
    _draw_label(image, status_line(status), height, _INK, at_foot=False)
    if status.message:
        _draw_label(image, status.message, height, _ALERT, at_foot=True)
    return np.array(image)


def status_line(status: Status) -> str:
    """``29.8 fps   42 ms   3 dropped``."""
    rate = f"{status.frame_rate:.1f}" if math.isfinite(status.frame_rate) else "-"
    latency = f"{status.latency:.0f}" if math.isfinite(status.latency) else "-"
    return f"{rate} fps   {latency} ms   {status.dropped} dropped"


def _draw_label(image: Image.Image, text: str, height: int, ink: tuple[int, int, int, int], *, at_foot: bool) -> None:
    """Draw a line of text on a dark label; one too long for the picture is cut."""
    font, gap = _font(height), height // 2
    while len(text) > 1 and font.getlength(text) > image.width - 4 * gap:
        text = text[: -2 if text.endswith("…") else -1].rstrip() + "…"
    label = (round(font.getlength(text)) + 2 * gap, round(height * 1.3) + gap)
    left = (image.width - label[0]) // 2 if at_foot else gap
    top = image.height - label[1] - gap if at_foot else gap
    box = (left, top, left + label[0], top + label[1])
    part = image.crop(box).convert("RGBA")
    layer = Image.new("RGBA", label)
    draw = ImageDraw.Draw(layer)
    draw.rounded_rectangle((0, 0, label[0] - 1, label[1] - 1), radius=gap, fill=_BACKDROP)
    draw.text((gap, label[1] / 2), text, fill=ink, font=font, anchor="lm")
    image.paste(Image.alpha_composite(part, layer).convert("RGB"), box)


@lru_cache(maxsize=4)
def _font(height: int) -> Any:
    return ImageFont.load_default(height)

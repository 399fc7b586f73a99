"""Mask, overlay and cut-out: PNG files of a photo, written a band of rows at a time, and frames of a video.

A mask's pixel value is the class id. The mask is greyscale, which every reader takes as it is; of the palette form many
readers give the colours. A video has no exact values, so its masks are coloured, both of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from PIL import Image

from unet_runtime.core import render
from unet_runtime.core.resample import bands
from unet_runtime.core.runs import LARGE, Runs
from unet_runtime.core.segmentation import Result
from unet_runtime.io.formats import JPEG, TIFF, WEBP
from unet_runtime.io.kind import STAMP_KEY, Checkpoint, Kind, Metadata
from unet_runtime.io.png import write_png

if TYPE_CHECKING:
    import numpy.typing as npt

    Pixels = npt.NDArray[np.uint8]
    """(rows, W, channels)."""

GREEN = (0, 177, 64)
"""RGB behind the cut-outs of a video, which has no transparency: the studio screen that editing programs remove."""


def _mask_bands(result: Result) -> Iterator[Pixels | Runs]:
    if result.size[0] * result.size[1] >= LARGE:
        yield from result.mask_runs()
        return
    for top, bottom in bands(result.size):
        yield result.mask[top:bottom, :, np.newaxis]


def _mask_picture(result: Result) -> Image.Image:
    return render.mask_image(result.mask)


def _mask_frame(result: Result) -> Pixels:
    return np.asarray(render.palette_image(result.mask, result.spec).convert("RGB"))


def _overlay_bands(result: Result) -> Iterator[Pixels]:
    for top, bottom in bands(result.size):
        rows = result.photo.crop((0, top, result.photo.width, bottom))
        yield np.asarray(render.overlay(rows, result.mask[top:bottom], result.spec))


def _overlay_picture(result: Result) -> Image.Image:
    return render.overlay(result.photo, result.mask, result.spec)


def _overlay_frame(result: Result) -> Pixels:
    return np.asarray(_overlay_picture(result))


def _cutout_bands(result: Result) -> Iterator[Pixels]:
    return render.cutout_bands(result.photo, result.opacity)


def _cutout_picture(result: Result) -> Image.Image:
    return render.cutout(result.photo, result.opacity)


def _cutout_frame(result: Result) -> Pixels:
    screen = Image.new("RGB", result.size, GREEN)
    cutout = _cutout_picture(result)
    screen.paste(cutout, mask=cutout)
    return np.asarray(screen)


def _picture(
    suffix: str,
    bands_of: Callable[[Result], Iterator[Pixels | Runs]],
    frame: Callable[[Result], Pixels],
    picture: Callable[[Result], Image.Image] | None = None,
    other_suffixes: tuple[str, ...] = (),
    *,
    has_palette: bool = False,
) -> Kind:
    """A kind of PNG file.

    Args:
        suffix: of the file.
        bands_of: gives the pixels, a band of rows at a time, from the top down: RGB, RGBA or class ids, these as pixels
            or as runs.
        frame: as ``Kind.frame``.
        picture: as ``Kind.picture``.
        other_suffixes: as ``Kind.other_suffixes``.
        has_palette: whether class ids get the classes' colours.
    """

    def write(result: Result, file: BinaryIO, metadata: Metadata, checkpoint: Checkpoint) -> None:
        def checked() -> Iterator[Pixels | Runs]:
            for band in bands_of(result):
                checkpoint()
                yield band

        palette = render.palette(result.spec) if has_palette else b""
        write_png(file, result.size, checked(), palette=palette, text={STAMP_KEY: metadata.stamp})

    return Kind(suffix, write, frame, picture, other_suffixes)


MASK = _picture(".mask.png", _mask_bands, _mask_frame, _mask_picture, TIFF)
PALETTE = _picture(".palette.png", _mask_bands, _mask_frame, has_palette=True)
OVERLAY = _picture(".overlay.png", _overlay_bands, _overlay_frame, _overlay_picture, (*JPEG, *WEBP, *TIFF))
CUTOUT = _picture(".cutout.png", _cutout_bands, _cutout_frame, _cutout_picture, (*WEBP, *TIFF))

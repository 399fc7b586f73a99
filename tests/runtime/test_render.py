"""Pictures for people, against what each pixel must be."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tests.helpers.colours import colour_spec
from unet_runtime.core import render

MASK = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
PHOTO = Image.fromarray(np.full((2, 3, 3), 100, np.uint8))


def test_the_palette_shows_the_classes_colours() -> None:
    image = render.palette_image(MASK, colour_spec())
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), MASK)
    assert render.palette(colour_spec()) == bytes([255, 0, 0, 0, 255, 0, 0, 0, 255])


def test_an_overlay_tints_every_class_but_the_background_by_half() -> None:
    overlay = np.asarray(render.overlay(PHOTO, MASK, colour_spec())).astype(int)
    assert np.abs(overlay[0, 0] - (177, 50, 50)).max() <= 1
    assert np.abs(overlay[0, 2] - (50, 50, 177)).max() <= 1
    assert (overlay[MASK == 1] == 100).all()


def test_a_cutout_takes_the_opacity_and_keeps_the_photo_where_there_is_any() -> None:
    alpha = np.arange(6, dtype=np.uint8).reshape(2, 3) * 50
    cutout = np.asarray(render.cutout(PHOTO, alpha))
    assert np.array_equal(cutout[..., 3], alpha)
    assert (cutout[alpha > 0, :3] == 100).all()
    assert not cutout[alpha == 0].any()
    assert PHOTO.mode == "RGB"  # not changed in place

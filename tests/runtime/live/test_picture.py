"""Live pictures: beside the ones that ``render`` draws of photos, and looked at where they differ on purpose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.colours import colour_spec
from unet_runtime import Segmenter
from unet_runtime.core import masks, render
from unet_runtime.core.geometry import place
from unet_runtime.core.segmentation import Segmentation
from unet_runtime.core.spec import ClassSpec, ModelSpec, OutputSpec
from unet_runtime.live.picture import BACKGROUNDS, compose, status_line, with_status
from unet_runtime.live.view import Status


@pytest.fixture(scope="module")
def seen(sample_photo: Path) -> Segmentation:
    """The sample photo at a camera's size, and what the bundled model says of it."""
    photo = Image.open(sample_photo).convert("RGB").resize((640, 480))
    return Segmenter(backend="onnx")(photo)


def halves_spec(size: int = 32) -> tuple[ModelSpec, np.ndarray]:
    """Left half red (foreground), right half green (background), certain."""
    probabilities = np.zeros((size, size, 3), np.float32)
    probabilities[:, : size // 2, 0] = probabilities[:, size // 2 :, 1] = 1
    return colour_spec(size), probabilities


def test_an_overlay_has_the_colours_of_a_photos_overlay_wherever_the_model_is_certain(seen: Segmentation) -> None:
    drawn = compose(np.asarray(seen.photo), seen.probabilities, seen.spec, "overlay").astype(int)
    bands = [band for _, band in seen.probability_bands()]
    certain = np.concatenate(bands).max(axis=2) > 0.97
    assert certain.mean() > 0.3
    assert abs(drawn - np.asarray(seen.overlay()))[certain].max() <= 2


def test_an_overlays_outline_runs_where_the_masks_does_and_is_antialiased() -> None:
    spec, probabilities = halves_spec()
    frame = np.full((480, 640, 3), 100, np.uint8)
    row = compose(frame, probabilities, spec, "overlay")[240].astype(int)
    edge = np.flatnonzero((row[:, 0] > 102) & (row[:, 0] < 175))
    assert 4 <= len(edge) <= 20, "neither a step nor a haze"
    assert edge.mean() == pytest.approx(319.5, abs=1)
    assert row[0].tolist() == [178, 50, 50]
    assert row[-1].tolist() == [100, 100, 100]


@pytest.mark.parametrize("background", BACKGROUNDS)
@pytest.mark.parametrize("size", [(640, 480), (480, 640), (33, 7), (1, 1), (1, 300)])
def test_a_letterboxed_model_is_drawn_where_its_picture_lies(background: str, size: tuple[int, int]) -> None:
    spec = colour_spec(64, fit="letterbox")
    probabilities = np.random.default_rng(1).dirichlet([0.05] * 3, (64, 64)).astype(np.float32)
    frame = np.full((size[1], size[0], 3), 60, np.uint8)
    drawn = compose(frame, probabilities, spec, background)
    assert (drawn.shape, drawn.dtype) == (frame.shape, np.uint8)
    assert (frame == 60).all(), "the frame is the caller's"
    if background == "overlay" and min(size) > 64:  # reduced, OpenCV does not antialias as Pillow does
        colour = np.array([[158, 30, 30], [60, 60, 60], [30, 30, 158]])
        nearest = abs(drawn[:, :, None].astype(int) - colour).sum(axis=3).argmin(axis=2)
        assert (
            nearest == masks.class_mask(masks.photo_planes(probabilities, place(size, spec), spec), size)
        ).mean() > 0.97


def test_a_sigmoid_models_probabilities_are_drawn_as_shares() -> None:
    spec, probabilities = halves_spec()
    spec = replace(spec, output=OutputSpec(32, 32, activation="sigmoid"))
    frame = np.full((64, 64, 3), 100, np.uint8)
    faint = compose(frame, probabilities * np.float32(0.01), spec, "overlay")
    assert (faint == compose(frame, probabilities, spec, "overlay")).all()


def test_of_many_classes_each_has_its_colour() -> None:
    classes = tuple(ClassSpec(f"c{index}", (index, 255 - index, 128), "foreground") for index in range(255))
    spec = replace(colour_spec(16), classes=(*classes, ClassSpec("rest", (0, 0, 0), "background")))
    probabilities = np.zeros((16, 16, 256), np.float32)
    np.put_along_axis(probabilities, np.arange(256).reshape(16, 16, 1), 1, axis=2)
    frame = np.zeros((160, 160, 3), np.uint8)
    centres = compose(frame, probabilities, spec, "overlay")[5::10, 5::10].reshape(256, 3).astype(int)
    expected = np.array([[index / 2, (255 - index) / 2, 64] for index in range(255)] + [[0, 0, 0]])
    assert abs(centres - expected).max() <= 1


def test_a_cutout_keeps_the_foreground_and_lays_the_rest_on_a_chequerboard() -> None:
    spec, probabilities = halves_spec()
    frame = np.random.default_rng(2).integers(0, 255, (480, 640, 3), np.uint8)
    drawn = compose(frame, probabilities, spec, "cutout")
    assert abs(drawn[:, :280].astype(int) - frame[:, :280]).max() <= 1
    greys, counts = np.unique(drawn[:, 360:], return_counts=True)
    assert set(greys[counts > 1000]) == {206, 240}
    assert abs(drawn[:, 360:].astype(int) - np.where(drawn[:, 360:] > 223, 240, 206)).max() <= 1


def test_a_blur_leaves_the_foreground_sharp_and_does_not_smear_it_around() -> None:
    spec, probabilities = halves_spec()
    frame = np.zeros((480, 640, 3), np.uint8)
    frame[:, :320] = (255, 0, 0)
    frame[:, 320:, 1] = np.random.default_rng(3).integers(0, 2, (480, 320)) * 200
    drawn = compose(frame, probabilities, spec, "blur").astype(int)
    assert (drawn[:, :300] == frame[:, :300]).all()
    assert drawn[:, 340:, 1].std() < 15 < frame[:, 340:, 1].std()
    assert drawn[:, 340:, 0].max() <= 12, "the red beside it does not shine"


@pytest.mark.parametrize("value", [0, 128, 255])
def test_the_status_is_legible_on_any_background(value: int) -> None:
    picture = np.full((480, 640, 3), value, np.uint8)
    drawn = with_status(picture, Status(29.84, 41.6, 3, "camera lost")).astype(int)
    for part in (drawn[:40, :240], drawn[440:, 240:400]):
        assert part.max() > 250, "bright letters"
        label = part[(part.max(axis=2) < 120)]
        assert len(label) > 1000, "on a dark label"
    assert (drawn[60:430] == value).all()
    assert (picture == value).all()


def test_a_message_too_long_for_the_picture_is_cut_and_one_in_any_language_is_drawn() -> None:
    picture = np.full((120, 160, 3), 255, np.uint8)
    drawn = with_status(picture, Status(message="saved ä/ö/日本/" + "x" * 400))
    assert (drawn[:, [0, -1]] == 255).all()
    assert (drawn[100:] < 100).any()
    assert with_status(picture[:1, :1], Status(message="too small")).shape == (1, 1, 3)


def test_a_figure_that_is_not_known_yet_is_a_dash() -> None:
    assert status_line(Status(29.84, 41.6, 3)) == "29.8 fps   42 ms   3 dropped"
    assert status_line(Status(float("nan"), float("inf"), 0)) == "- fps   - ms   0 dropped"


def test_the_mask_of_a_photo_and_the_live_picture_agree(seen: Segmentation) -> None:
    """Pixel by pixel: which class's colour is nearest."""
    frame = np.full((480, 640, 3), 128, np.uint8)
    drawn = compose(frame, seen.probabilities, seen.spec, "overlay").astype(int)
    flat = render.overlay(Image.fromarray(frame), seen.mask, seen.spec)
    assert (abs(drawn - np.asarray(flat)).max(axis=2) < 40).mean() > 0.95

"""Smoothing over synthetic sequences: noise is calmed, movement leaves nothing behind, a cut begins anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from tests.helpers.colours import colour_spec
from unet_runtime.core.spec import InputSpec, OutputSpec
from unet_runtime.io.video.smooth import Smoother

SIZE = 64
SPEC = colour_spec(SIZE)

Image = npt.NDArray[np.uint8]
Answer = npt.NDArray[np.float32]


def scene(left: int, noise: np.random.Generator, side: int = 24, behind: int = 60) -> Image:
    """A bright square on a dark ground, with a camera's noise: uint8 (1, 64, 64, 3)."""
    image = np.full((1, SIZE, SIZE, 3), float(behind))
    image[:, 20 : 20 + side, left : left + side] = 200
    return np.clip(image + noise.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


def answer(left: int, noise: np.random.Generator, side: int = 24) -> Answer:
    """Foreground where the square is, unsure of its edge: float32 (64, 64, 2)."""
    foreground = np.full((SIZE, SIZE), 0.1)
    foreground[20 : 20 + side, left : left + side] = 0.9
    edge = np.zeros((SIZE, SIZE), bool)
    edge[16 : 24 + side, left - 4 : left + side + 4] = True
    edge[24 : 16 + side, left + 4 : left + side - 4] = False
    foreground[edge] = 0.5
    foreground = np.clip(foreground + noise.normal(0, 0.1, foreground.shape), 0, 1)
    return np.stack([foreground, 1 - foreground], axis=-1).astype(np.float32)


def flicker(answers: list[Answer]) -> float:
    """Share of pixels whose class changes from one frame to the next."""
    classes = np.stack([a.argmax(axis=-1) for a in answers])
    return float((classes[1:] != classes[:-1]).mean())


def still(frames: int, seed: int = 1) -> Iterator[tuple[Image, Answer]]:
    noise = np.random.default_rng(seed)
    return ((scene(20, noise), answer(20, noise)) for _ in range(frames))


def test_a_still_picture_flickers_less_the_stronger_the_smoothing() -> None:
    measured = []
    for strength in (0, 0.5, 0.8):
        smoother = Smoother(strength, SPEC)
        measured.append(flicker([smoother(image, raw) for image, raw in still(30)]))
    assert measured[0] > 0.05  # there is something to calm
    assert measured[1] < 0.75 * measured[0]
    assert measured[2] < 0.5 * measured[0]


def test_strength_0_and_the_first_frame_are_the_models_answer() -> None:
    image, raw = next(still(1))
    assert Smoother(0, SPEC)(image, raw) is raw
    assert Smoother(0.9, SPEC)(image, raw) is raw


def test_the_models_answer_is_not_changed_in_place() -> None:
    smoother = Smoother(0.8, SPEC)
    for image, raw in still(5):
        before = raw.copy()
        smoother(image, raw)
        assert np.array_equal(raw, before)


def test_a_moving_thing_leaves_no_ghost() -> None:
    noise = np.random.default_rng(2)
    smoother = Smoother(0.9, SPEC)
    for left in range(4, 40, 3):  # 3 pixels a frame: a plain average of 0.9 would trail it for 20 frames
        smoothed = smoother(scene(left, noise), answer(left, noise))
    behind = smoothed[24:40, : left - 8, 0]  # where it came from
    assert (behind > 0.5).mean() < 0.01
    plain = 0.9**4 * 0.9  # what a plain average would still say of a place left 4 frames ago
    assert behind[:, -4:].mean() < plain / 2


def test_a_slow_change_is_noticed_when_it_has_added_up() -> None:
    noise = np.random.default_rng(3)
    smoother = Smoother(0.95, SPEC)
    for step in range(80):  # the square fades away, one level of grey and a half a frame
        image = scene(20, noise)
        image[:, 20:44, 20:44] = np.clip(200 - 1.75 * step + noise.normal(0, 5, (1, 24, 24, 3)), 60, 255)
        gone = step > 60
        smoothed = smoother(image, answer(20, noise) if not gone else answer(20, noise)[..., ::-1])
    assert smoothed[26:38, 26:38, 0].mean() < 0.3  # its answer is the new one


def test_a_cut_begins_anew() -> None:
    noise = np.random.default_rng(4)
    smoother = Smoother(0.95, SPEC)
    for image, raw in still(10):
        smoother(image, raw)
    assert smoother.resets == 0
    raw = answer(8, noise, side=40)
    smoothed = smoother(scene(8, noise, side=40, behind=140), raw)
    assert smoother.resets == 1
    assert np.array_equal(smoothed, raw)


@pytest.mark.parametrize(("margin", "side"), [(10, SIZE - 20), (0, SIZE // 2)])
def test_a_model_with_a_margin_or_a_coarser_output(margin: int, side: int) -> None:
    spec = replace(SPEC, input=InputSpec(SIZE, SIZE, margin=margin), output=OutputSpec(side, side))
    smoother = Smoother(0.8, spec)
    noise = np.random.default_rng(5)
    for _ in range(3):
        raw = noise.random((side, side, 3), np.float32)
        smoothed = smoother(scene(20, noise), raw)
        assert smoothed.shape == raw.shape
        assert smoothed.dtype == np.float32
    assert not np.allclose(smoothed, raw)


def test_probabilities_stay_probabilities() -> None:
    smoother = Smoother(0.7, SPEC)
    for image, raw in still(10):
        smoothed = smoother(image, raw)
        assert smoothed.min() >= 0
        assert np.allclose(smoothed.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("strength", [-0.1, 1, 2])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match="expected 0 or more and less than 1"):
        Smoother(strength, SPEC)

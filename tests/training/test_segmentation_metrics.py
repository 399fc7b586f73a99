"""Metrics against values worked out by hand or by brute force."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.helpers.colours import colour_spec
from unet_runtime.core.spec import OutputSpec
from unet_training.segmentation_metrics import (
    BOUNDARY_TOLERANCE,
    binary_iou,
    boundary_f1,
    calibration,
    confidence_bins,
    cross_entropy,
    measure,
    summarize,
)


def test_boundary_f1_beside_what_is_not_labelled() -> None:
    """An outline is where both sides are labelled; what was predicted where nothing is known is no fault."""
    truth = _square(40)
    known = np.ones_like(truth)
    band = np.zeros_like(truth)
    band[:, 80:] = True
    known &= ~band
    assert boundary_f1(truth, truth | band, known) == 1
    assert boundary_f1(truth, truth & ~band, known) == 1
    assert boundary_f1(truth, np.zeros_like(truth), known) == 0
    ring = ndimage.binary_dilation(truth, iterations=3) & ~ndimage.binary_erosion(truth, iterations=3)
    assert math.isnan(boundary_f1(truth, truth, ~ring))  # a border that is ignored: nothing is known of the outline


def test_ignored_pixels_are_not_measured() -> None:
    spec = colour_spec(4)
    truth = np.full((4, 4), 255, np.uint8)
    truth[:2] = 1
    answer = np.zeros((4, 4, 3), np.float32)
    answer[:2, :, 1] = answer[2:, :, 0] = 1
    result = summarize(measure(answer, truth, truth, spec), spec)
    assert (result.pixel_accuracy, result.mean_iou, result.own_size_mean_iou) == (1, 1, 1)
    assert result.loss == pytest.approx(0, abs=1e-5)
    nothing = summarize(measure(answer, np.full((4, 4), 255, np.uint8), None, spec), spec)
    assert math.isnan(nothing.mean_iou)
    assert math.isnan(nothing.loss)


def test_binary_iou_takes_classes_together() -> None:
    matrix = np.array([[4, 1, 1], [2, 10, 1], [1, 1, 3]])
    assert binary_iou(matrix, (0, 2)) == 9 / 14  # 24 pixels less the 10 that both call background
    assert binary_iou(matrix, (0,)) == 4 / 9
    assert math.isnan(binary_iou(np.diag([0, 5, 0]), (0, 2)))


def test_cross_entropy_is_clipped_as_keras_clips() -> None:
    probabilities = np.array([[0.5, 0.5], [1, 0], [0.25, 0.75]], np.float32)
    expected = -math.log(0.5) - math.log(1e-7) - math.log(0.75)
    assert cross_entropy(probabilities, np.array([0, 1, 1], np.uint8)) == pytest.approx(expected, abs=1e-6)


def test_calibration_error() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.37, 0.63], [0.37, 0.63]], np.float32)
    bins = confidence_bins(probabilities, np.array([0, 1, 1, 1], np.uint8))
    error, rows = calibration(bins)
    assert error == pytest.approx(0.5 * (0.9 - 0.5) + 0.5 * (1 - 0.63))
    filled = {index: (row.pixels, row.confidence, row.accuracy) for index, row in enumerate(rows) if row.pixels}
    assert filled == {9: (2, pytest.approx(0.63), 1.0), 13: (2, pytest.approx(0.9), 0.5)}
    assert all(row.low < row.confidence <= row.high for row in rows if row.pixels)
    assert math.isnan(rows[0].accuracy)


def test_certainty_and_none_at_all_have_a_bin() -> None:
    bins = confidence_bins(np.array([[1, 0], [0, 0]], np.float32), np.array([0, 0], np.uint8))
    assert bins[0].tolist() == [1, *[0] * 13, 1]


def test_a_sigmoid_model_is_measured_by_its_classes_shares() -> None:
    """Its largest probability is no confidence: 0.9 against 0.6 and 0.3 is an even chance."""
    spec = replace(colour_spec(4), output=OutputSpec(4, 4, activation="sigmoid"))
    answer = np.tile(np.array([0.9, 0.6, 0.3], np.float32), (4, 4, 1))
    truth = np.zeros((4, 4), np.uint8)
    truth[2:] = 1
    sums = measure(answer, truth, truth, spec)
    error, rows = calibration(sums.bins)
    assert error == pytest.approx(0, abs=1e-6)
    assert [(row.pixels, row.confidence) for row in rows if row.pixels] == [(16, pytest.approx(1 / 2))]
    assert summarize(sums, spec).loss == pytest.approx(-(math.log(1 / 2) + math.log(1 / 3)) / 2, abs=1e-5)
    smaller = measure(answer / 64, truth, truth, spec)
    assert summarize(smaller, spec).loss == pytest.approx(summarize(sums, spec).loss, abs=1e-5)
    assert smaller.bins[1].sum() == pytest.approx(sums.bins[1].sum(), abs=1e-5)


def _square(left: int) -> np.ndarray:
    """20x20 at (left, 40) of a picture of 160x160, where the tolerance is 1.7 pixels: an outline of 76."""
    region = np.zeros((160, 160), bool)
    region[40:60, left : left + 20] = True
    return region


@pytest.mark.parametrize(
    ("left", "expected"),
    [
        (40, 1.0),
        (41, 1.0),  # everything is one pixel off
        # Top and bottom: 19 of 20 each. Right side: the two pixels beside them. Left side: none.
        (42, 40 / 76),
        (100, 0.0),
    ],
)
def test_boundary_f1_of_a_square_that_moved(left: int, expected: float) -> None:
    assert boundary_f1(_square(40), _square(left)) == pytest.approx(expected)


def test_the_edge_of_the_picture_is_no_boundary() -> None:
    half, quarter = np.zeros((160, 160), bool), np.zeros((160, 160), bool)
    half[:, :80] = True  # outline: column 79, 160 pixels
    quarter[:80, :80] = True  # outline: 80 of column 79 and 79 of row 79; 81 of them near column 79, and back
    assert boundary_f1(half, quarter) == pytest.approx(2 * 81 / (160 + 159))


def test_boundary_f1_without_an_outline() -> None:
    nothing = np.zeros((160, 160), bool)
    assert boundary_f1(_square(40), nothing) == boundary_f1(nothing, _square(40)) == 0
    assert math.isnan(boundary_f1(nothing, nothing))
    assert math.isnan(boundary_f1(~nothing, nothing))
    assert math.isnan(boundary_f1(_square(40), _square(40), visible=nothing))


def test_boundary_f1_sees_the_photo_s_part_alone() -> None:
    truth, mask, visible = (np.zeros((160, 160), bool) for _ in range(3))
    mask[:, :80] = True
    visible[40:120] = True
    truth = mask & visible
    assert boundary_f1(truth, mask, visible) == 1
    assert boundary_f1(truth, mask) < 1


@pytest.mark.parametrize("shape", [(160, 160), (300, 400), (20, 30)])
def test_boundary_f1_is_the_definition(shape: tuple[int, int]) -> None:
    """Against every distance between two outlines, on blobs."""
    rng = np.random.default_rng(3)
    field, other = (
        np.asarray(Image.fromarray(rng.random((5, 5), np.float32)).resize(shape[::-1], Image.Resampling.BICUBIC))
        for _ in range(2)
    )
    truth, mask = field > 0.6, field + 0.1 * (other - 0.5) > 0.6

    def outline(region: np.ndarray) -> np.ndarray:
        around = np.pad(region, 1, mode="edge")
        points = [
            (y, x)
            for y, x in np.argwhere(region)
            if not (around[y, x + 1] and around[y + 2, x + 1] and around[y + 1, x] and around[y + 1, x + 2])
        ]
        return np.array(points)

    a, b = outline(truth), outline(mask)
    near = np.hypot(*(a[:, np.newaxis] - b).transpose(2, 0, 1)) < BOUNDARY_TOLERANCE * math.hypot(*shape)
    recall, precision = near.any(axis=1).mean(), near.any(axis=0).mean()
    assert 0 < recall < 1
    assert boundary_f1(truth, mask) == pytest.approx(2 * precision * recall / (precision + recall))

"""The pictures show where masks differ, and on which photos most."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from unet_export.diagnosis.heat_maps import (
    DIFFERENT,
    POSITIONS_NAME,
    WORST_NAME,
    difference_map,
    heat_maps,
    marked,
)
from unet_runtime.core.errors import OutputError
from unet_runtime.core.spec import ModelSpec, OutputSpec

COUNT, SIZE = 6, 48
NAMES = [f"photo {index}" for index in range(COUNT)]


@pytest.fixture
def masks() -> tuple[Any, Any]:
    """Equal, but for a corner of every photo and half of the fourth."""
    reference = np.ones((COUNT, SIZE, SIZE), np.uint8)
    quantized = reference.copy()
    quantized[:, :8, :8] = 2
    quantized[3, SIZE // 2 :] = 0
    return reference, quantized


def pixels(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def count(picture: Any, colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(axis=-1).sum())


def test_a_position_has_the_share_of_photos_that_differ_there(masks: tuple[Any, Any]) -> None:
    shares = difference_map(masks[0] != masks[1])
    assert shares.shape == (SIZE, SIZE)
    assert (shares[3, 3], shares[40, 30], shares[12, 30]) == pytest.approx((1, 1 / COUNT, 0))
    assert 0 < shares[8, 3] < 1  # the mean of a neighbourhood


def test_two_pictures_are_written_with_what_differs_in_colour(
    masks: tuple[Any, Any], images: Any, spec: ModelSpec, tmp_path: Path
) -> None:
    positions, worst = heat_maps(NAMES, images[:COUNT], *masks, spec, tmp_path / "new")
    assert [positions, worst] == [tmp_path / "new" / POSITIONS_NAME, tmp_path / "new" / WORST_NAME]
    dark, bright = (count(pixels(positions), colormaps["inferno"](end, bytes=True)[:3]) for end in (0.0, 1.0))
    assert dark > bright > 100  # the ends of the colour map: nothing differs, all photos differ
    picture = pixels(worst)
    assert count(picture, DIFFERENT) > 100
    for entry in spec.classes:
        assert count(picture, entry.color) > 100


def test_only_the_worst_photos_are_shown(
    masks: tuple[Any, Any], images: Any, spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    for worst in (1, 3, 99):
        monkeypatch.setattr("unet_export.diagnosis.heat_maps.WORST", worst)
        shown.append(pixels(heat_maps(NAMES, images[:COUNT], *masks, spec, tmp_path / f"{worst}")[1]))
    one, three, most = shown
    assert len(one) < len(three) < len(most)
    # Half of the worst photo differs, of the others an eighth of that.
    assert count(one, DIFFERENT) > 0.6 * count(three, DIFFERENT)


def test_masks_of_the_middle_are_shown_with_the_middle(images: Any, spec: ModelSpec, tmp_path: Path) -> None:
    middle = np.zeros((COUNT, SIZE - 8, SIZE - 8), np.uint8)
    spec = replace(spec, input=replace(spec.input, margin=4), output=OutputSpec(SIZE - 8, SIZE - 8))
    _, worst = heat_maps(NAMES, images[:COUNT], middle, 1 - middle, spec, tmp_path)
    assert count(pixels(worst), DIFFERENT) > 1000


def test_what_differs_is_marked_in_the_photo(images: Any) -> None:
    differ = np.zeros((SIZE, SIZE), bool)
    differ[0, 0] = True
    picture = marked(images[0], differ)
    assert tuple(picture[0, 0]) == DIFFERENT
    np.testing.assert_array_equal(picture[1, 1], images[0, 1, 1].mean() // 2)


def test_a_folder_that_cannot_be_made_is_named(
    masks: tuple[Any, Any], images: Any, spec: ModelSpec, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        heat_maps(NAMES, images[:COUNT], *masks, spec, tmp_path / "file")

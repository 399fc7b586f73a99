"""The pictures show where masks differ, and on which photos most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unet_export.diagnosis.heat_maps import POSITIONS_NAME, WORST_NAME, heat_maps
from unet_runtime.core.errors import OutputError
from unet_runtime.core.spec import ModelSpec

COUNT, SIZE = 6, 48
MARK = (255, 0, 110)


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


def test_the_map_is_bright_where_every_photo_differs(
    masks: tuple[Any, Any], images: Any, spec: ModelSpec, tmp_path: Path
) -> None:
    positions, _ = heat_maps(images[:COUNT], *masks, spec, tmp_path / "new")
    assert positions == tmp_path / "new" / POSITIONS_NAME
    picture = pixels(positions)
    top = next(y for y in range(len(picture)) if (picture[y, 12] != 255).any() and (picture[y, 450] == (0, 0, 4)).all())
    factor = 480 // SIZE
    corner, half, rest = (picture[top + y * factor, 10 + x * factor].sum() for y, x in ((3, 3), (40, 30), (12, 30)))
    assert corner > half > rest
    assert rest == 4  # nothing there: the ramp's darkest


def test_the_worst_photo_comes_first_with_its_difference_marked(
    masks: tuple[Any, Any], images: Any, spec: ModelSpec, tmp_path: Path
) -> None:
    few, many = (
        pixels(heat_maps(images[:COUNT], *masks, spec, tmp_path / f"{worst}", worst=worst)[1]) for worst in (1, 3)
    )
    assert len(many) > 2 * len(few)
    np.testing.assert_array_equal(many[: len(few) - 10], few[:-10])  # the same first row
    factor = 240 // SIZE
    marked = (few == MARK).all(axis=-1).sum()
    assert marked == (SIZE * SIZE // 2 + 64) * factor**2
    for entry in spec.classes:
        assert (few == entry.color).all(axis=-1).any()


def test_masks_of_the_middle_are_shown_with_the_middle(images: Any, spec: ModelSpec, tmp_path: Path) -> None:
    middle = np.zeros((COUNT, SIZE - 8, SIZE - 8), np.uint8)
    _, worst = heat_maps(images[:COUNT], middle, 1 - middle, spec, tmp_path, worst=1)
    assert worst.name == WORST_NAME
    factor = 240 // (SIZE - 8)
    photo = images[0, 4:-4, 4:-4].repeat(factor, axis=0).repeat(factor, axis=1)
    np.testing.assert_array_equal(pixels(worst)[-10 - len(photo) : -10, 10 : 10 + len(photo)], photo)


def test_what_cannot_be_drawn_is_refused(masks: tuple[Any, Any], images: Any, spec: ModelSpec, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"photos \(5, 48, 48, 3\) with masks \(6, 48, 48\)"):
        heat_maps(images[: COUNT - 1], *masks, spec, tmp_path)
    with pytest.raises(ValueError, match="n above 0"):
        heat_maps(images[:0], masks[0][:0], masks[1][:0], spec, tmp_path)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        heat_maps(images[:COUNT], *masks, spec, tmp_path / "file")

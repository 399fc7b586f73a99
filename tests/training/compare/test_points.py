"""The names of what is compared."""

from __future__ import annotations

import pytest

from unet_training.compare.points import FAMILY, Point, parse
from unet_training.errors import RecipeError
from unet_training.models import ARCHITECTURES


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("unet", Point("unet")),
        ("edge-fast:24", Point("edge-fast", 24)),
        ("dense:12:3", Point("dense", 12, 3)),
        ("unet2015:8:3@212", Point("unet2015", 8, 3, 212)),
        ("ladder@96", Point("ladder", size=96)),
    ],
)
def test_a_point_is_read_and_written_alike(text: str, point: Point) -> None:
    assert parse(text) == point
    assert point.label == text


@pytest.mark.parametrize("text", ["", "net:8", "unet:", "unet:8:", "unet:0", "unet:8:0", "unet@0", "unet:a", "unet:8@"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="expected"):
        parse(text)


def test_folders_are_plain_and_differ() -> None:
    folders = [parse(text).folder for text in FAMILY]
    assert len({*folders}) == len(FAMILY) >= 8
    assert all(character.isalnum() or character == "-" for folder in folders for character in folder)


def test_without_names_every_architecture_is_compared() -> None:
    assert {parse(text).architecture for text in FAMILY} == {*ARCHITECTURES}

"""Photos and masks by name."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.layouts import drawn_animals, ids
from unet_runtime.core.datasets import open_dataset
from unet_runtime.core.datasets.pairing import SAME_NAME, WITHOUT_MASK, WITHOUT_PHOTO, photos_below


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    ids(tmp_path / "real", drawn_animals(4))
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("images", "masks", "classes.yaml"):
        (linked / name).symlink_to(tmp_path / "real" / name)
    assert len(open_dataset(linked).samples) == 4
    (tmp_path / "real" / "images" / "again").symlink_to(tmp_path / "real" / "images")
    assert len(open_dataset(linked).samples) == 4


def test_hidden_files_and_other_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("a.jpg", "._a.jpg", ".b.jpg", "c.txt", "D.JPG", ".hidden/e.jpg", "deep/er/f.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(photos_below(tmp_path).by_name) == ["D", "a", "deep/er/f"]


def test_what_does_not_fit_together_is_named(tmp_path: Path) -> None:
    animals = drawn_animals(5)
    ids(tmp_path, animals)
    (tmp_path / "train.txt").unlink()
    (tmp_path / "test.txt").unlink()
    animals[0].photo.save(tmp_path / "images" / "animal00.jpg")
    (tmp_path / "masks" / "animal01.png").rename(tmp_path / "masks" / "animal01_mask.png")
    (tmp_path / "masks" / "animal02.png").rename(tmp_path / "masks" / "other.png")
    dataset = open_dataset(tmp_path)
    assert [sample.name for sample in dataset.samples] == ["animal00", "animal01", "animal03", "animal04"]
    assert sorted(dataset.problems) == sorted(
        [(SAME_NAME, "animal00.png"), (WITHOUT_MASK, "animal02"), (WITHOUT_PHOTO, "other")]
    )

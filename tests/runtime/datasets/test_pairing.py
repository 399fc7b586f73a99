"""Photos and masks by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.layouts import drawn_animals, ids
from unet_runtime.core.datasets import open_dataset, open_labels
from unet_runtime.core.datasets.pairing import SAME_NAME, WITHOUT_MASK, WITHOUT_PHOTO, photos_below
from unet_runtime.core.errors import SourceError


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


def write_pairs(root: Path, photo: str, mask: str) -> Path:
    """Three photos and masks, whose paths have a number each."""
    for number in range(3):
        picture, labels = root / photo.format(number), root / mask.format(number)
        picture.parent.mkdir(parents=True, exist_ok=True)
        labels.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6), (10 * number, 0, 0)).save(picture)
        drawn = Image.new("L", (8, 6))
        drawn.paste(255, (number, 0, 5, 6))
        drawn.save(labels)
    return root


@pytest.mark.parametrize(
    ("photo", "mask"),
    [
        ("Images/a b{}.JPG", "Masks/a b{}.PNG"),
        ("image/ISIC_{:07}.jpg", "Ground Truth/ISIC_{:07}_Segmentation.png"),
        ("images/image_{}.jpg", "masks/mask_{}.png"),
        ("images/img{}.jpg", "masks/gt{:04}.png"),
        ("imgs/{}_image.jpg", "labels/{}_label.png"),
        ("a{}.jpg", "a{}_mask.png"),
        ("patient{}/scan.tif", "patient{}/scan_mask.tif"),
        ("{}_mask.jpg", "{}_mask_mask.png"),
    ],
)
def test_names_that_people_give(photo: str, mask: str, tmp_path: Path) -> None:
    dataset = open_dataset(write_pairs(tmp_path, photo, mask))
    assert dataset.problems == ()
    assert dataset.class_names == ("background", "foreground")
    for number, sample in enumerate(dataset.samples):
        assert sample.photo == tmp_path / photo.format(number)
        assert open_labels(sample).sum() == 6 * (5 - number)


def test_numbers_that_two_photos_share_pair_neither(tmp_path: Path) -> None:
    write_pairs(tmp_path, "images/image_{}.jpg", "masks/mask_{}.png")
    (tmp_path / "images" / "photo_1.jpg").write_bytes((tmp_path / "images" / "image_1.jpg").read_bytes())
    dataset = open_dataset(tmp_path)
    assert [sample.name for sample in dataset.samples] == ["image_0", "image_2"]
    assert sorted(problem.name for problem in dataset.problems) == ["image_1", "mask_1", "photo_1"]


def test_masks_of_other_photos(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no photo has a label mask \(photos without a label mask, as cat0; .*dog0"):
        open_dataset(write_pairs(tmp_path, "images/cat{}.jpg", "masks/dog{}.png"))

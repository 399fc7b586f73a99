"""YOLO's text files of outlines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.layouts import Animal, drawn_animals, polygons, save_photo
from unet_runtime.core.datasets import IGNORED, open_dataset, open_labels, read_split
from unet_runtime.core.datasets.yolo import BOXES, BROKEN
from unet_runtime.core.errors import SourceError


def write(root: Path, animals: Sequence[Animal], photos: str = "{}/images", labels: str = "{}/labels") -> Path:
    """Outlines of cats and dogs; each ignored pixel as a box of its own."""
    for animal in animals:
        height, width = animal.labels.shape
        save_photo(animal, root / photos.format(animal.part))
        lines = []
        for index in (1, 2):
            for ring in polygons(animal.labels, index):
                points = np.array(ring).reshape(-1, 2) / (width, height)
                lines.append(f"{index - 1} " + " ".join(map(repr, points.ravel().tolist())))
        for row, column in np.argwhere(animal.labels == IGNORED).tolist():
            lines.append(f"0 {(column + 0.5) / width} {(row + 0.5) / height} {1 / width} {1 / height}")
        folder = root / labels.format(animal.part)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{animal.name}.txt").write_text("\n".join(lines) + "\n")
    (root / "data.yaml").write_text("train: train/images\nnc: 2\nnames: [cat, dog]\n")
    return root


@pytest.mark.parametrize(("photos", "labels"), [("{}/images", "{}/labels"), ("images/{}", "labels/{}")])
def test_outlines_are_drawn_and_boxes_ignored(photos: str, labels: str, tmp_path: Path) -> None:
    animals = drawn_animals()
    dataset = open_dataset(write(tmp_path, animals, photos, labels))
    assert dataset.layout == "yolo"
    assert dataset.class_names == ("background", "cat", "dog")
    assert {problem.kind for problem in dataset.problems} == {BOXES}
    for animal, sample in zip(sorted(animals, key=lambda each: (each.part, each.name)), dataset.samples, strict=True):
        assert sample.name == f"{animal.part}/{animal.name}"
        np.testing.assert_array_equal(open_labels(sample), animal.labels)
    assert len(read_split(dataset, "official", "test")) == 2


def one(root: Path, text: str | None, names: str = "{0: cat, 1: dog}") -> Path:
    """A dataset of one photo of 40x20 pixels."""
    for folder in ("images", "labels"):
        (root / "train" / folder).mkdir(parents=True)
    Image.new("RGB", (40, 20)).save(root / "train" / "images" / "a.jpg")
    Image.new("RGB", (40, 20)).save(root / "train" / "images" / "other.jpg")
    if text is not None:
        (root / "train" / "labels" / "a.txt").write_text(text)
    (root / "data.yaml").write_text(f"names: {names}\n")
    return root


def test_a_photo_without_a_text_file_is_background(tmp_path: Path) -> None:
    dataset = open_dataset(one(tmp_path, "1 0 0 1 0 1 1 0 1\n0 0 0 .5 0 .5 .5\n"))
    a, other = map(open_labels, dataset.samples)
    assert dataset.problems == ()
    assert set(np.unique(a)) == {1, 2}  # the small cat lies above the dog
    assert not other.any()


def test_a_photo_that_exif_turns_has_labels_of_the_upright_one(tmp_path: Path) -> None:
    root = one(tmp_path, "0 0 0 1 0 1 .5 0 .5\n")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(root / "train" / "images" / "a.jpg", exif=exif)
    labels = open_labels(open_dataset(root).samples[0])
    assert labels.shape == (40, 20)
    assert labels[:20].all()
    assert not labels[20:].any()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2 0 0 1 0 1 1\n", "line 1: class 2, expected one of the 2 classes from 0 to 1"),
        ("0 0 0 1 0 1 1\n0.5 0 0 1 0 1 1\n", "line 2: class 0.5, expected"),
        ("0 0 0 1 0\n\n1 0 0 1\n", "line 3: a polygon of 3 numbers, expected"),
        ("0 0 0 1 0 1\n", "a polygon of 5 numbers, expected"),
        ("0 10 10 30 10 30 20\n", "coordinates in pixels, expected parts"),
        ("0 0 0 1 0 1 nan\n", "something that is no number"),
        ("cat 0 0 1 0 1 1\n", "could not convert string to float"),
    ],
)
def test_lines_that_are_no_outlines_are_named(text: str, words: str, tmp_path: Path) -> None:
    dataset = open_dataset(one(tmp_path, text))
    (problem,) = (problem for problem in dataset.problems if problem.kind == BROKEN)
    assert problem.name.startswith("train/labels/a.txt: ")
    assert words in problem.name
    assert [sample.name for sample in dataset.samples] == ["train/other"]


@pytest.mark.parametrize("names", ["", "3", "{1: cat, 2: dog}", "[[cat]]"])
def test_a_list_of_names_that_is_none(names: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no list of names"):
        open_dataset(one(tmp_path, "0 0 0 1 0 1 1\n", names))

"""Generated pictures: the layout of the real ones, valid trimaps, the same for the same arguments."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unet_runtime.core.datasets import open_dataset, open_labels, read_split
from unet_runtime.core.errors import OutputError
from unet_training.data.synthetic import ensure_dataset


def _files(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_layout_is_the_official_one(pictures: Path) -> None:
    assert len(read_split(open_dataset(pictures), "official", "trainval")) == 24
    assert len(read_split(open_dataset(pictures), "official", "test")) == 8
    listed = [line for line in (pictures / "annotations" / "list.txt").read_text().splitlines() if line[0] != "#"]
    assert len(listed) == 32
    assert {len(line.split()) for line in listed} == {4}
    assert len(list((pictures / "images").glob("*.jpg"))) == 32


def test_trimaps_have_all_classes_and_their_photo_s_size(pictures: Path) -> None:
    for item in read_split(open_dataset(pictures), "official", "trainval"):
        labels = open_labels(item)
        with Image.open(item.photo) as photo:
            assert (photo.mode, photo.size) == ("RGB", labels.shape[::-1])
        assert set(np.unique(labels)) == {0, 1, 2}


def test_a_border_lies_between_every_pet_and_its_background(pictures: Path) -> None:
    for item in read_split(open_dataset(pictures), "official", "test"):
        labels = open_labels(item).astype(int)
        for axis in (0, 1):
            pairs = np.stack([np.delete(labels, -1, axis), np.delete(labels, 0, axis)])
            assert not ((pairs.min(axis=0) == 0) & (pairs.max(axis=0) == 1)).any()


def test_sizes_and_proportions_vary(pictures: Path) -> None:
    sizes = {open_labels(item).shape for item in read_split(open_dataset(pictures), "official", "trainval")}
    assert len(sizes) > 10
    assert all(38 <= side <= 58 for size in sizes for side in size)


def test_the_same_arguments_give_the_same_files(pictures: Path, tmp_path: Path) -> None:
    ensure_dataset(tmp_path / "again", train=24, test=8, size=48, seed=1)
    assert _files(tmp_path / "again") == _files(pictures)


def test_another_seed_gives_other_pictures_and_more_keep_the_first(pictures: Path, tmp_path: Path) -> None:
    ensure_dataset(tmp_path / "other", train=2, test=1, size=48, seed=2)
    ensure_dataset(tmp_path / "fewer", train=2, test=1, size=48, seed=1)
    name = "images/synthetic_0001.jpg"
    assert _files(tmp_path / "other")[name] != _files(pictures)[name] == _files(tmp_path / "fewer")[name]


def test_pictures_are_drawn_again_only_for_other_arguments(tmp_path: Path) -> None:
    root = tmp_path / "synthetic"
    assert ensure_dataset(root, train=3, test=1, size=32, seed=1)
    assert not ensure_dataset(root, train=3, test=1, size=32, seed=1)
    assert ensure_dataset(root, train=2, test=1, size=32, seed=1)
    assert len(list((root / "images").iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == ["synthetic"]


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="holds no generated pictures"):
        ensure_dataset(tmp_path, train=2, test=1, size=32, seed=1)
    assert _files(tmp_path) == {"notes.txt": b"mine"}


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        ensure_dataset(tmp_path / "file" / "synthetic", train=2, test=1, size=32, seed=1)

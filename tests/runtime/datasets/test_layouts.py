"""The same photos in every layout give the same arrays."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.helpers.layouts import NAMES, WRITERS, Animal, drawn_animals, oxford_animals, save_photo
from unet_runtime.core import datasets
from unet_runtime.core.datasets import (
    IGNORED,
    Dataset,
    Layout,
    Options,
    Sample,
    layouts,
    open_dataset,
    open_labels,
    read_split,
)
from unet_runtime.core.datasets.classes import named_classes


def check_same(root: Path, animals: list[Animal]) -> None:
    """The dataset in ``root`` holds exactly these photos and labels."""
    dataset = open_dataset(root)
    assert dataset.class_names == NAMES
    assert [entry.role for entry in dataset.classes] == ["background", "foreground", "foreground"]
    by_name = {animal.name: animal for animal in animals}
    assert len(dataset.samples) == len(animals)
    assert dataset.problems == ()
    for sample in dataset.samples:
        animal = by_name[sample.name.rpartition("/")[2]]
        np.testing.assert_array_equal(open_labels(sample), animal.labels, err_msg=sample.name)
        with Image.open(sample.photo) as photo:
            np.testing.assert_array_equal(np.asarray(photo), np.asarray(animal.photo))


@pytest.mark.parametrize("writer", WRITERS)
def test_every_layout_gives_the_same_labels(writer: str, tmp_path: Path) -> None:
    animals = drawn_animals()
    WRITERS[writer](tmp_path, animals)
    dataset = open_dataset(tmp_path)
    assert dataset.layout == writer.split()[0]
    assert dataset.why
    check_same(tmp_path, animals)
    for sample in dataset.samples:  # as the benchmark sends them to its processes
        again = pickle.loads(pickle.dumps(sample))
        assert (again, hash(again)) == (sample, hash(sample))
        np.testing.assert_array_equal(open_labels(again), open_labels(sample))
    if writer == "coco compressed":  # CVAT names no parts
        assert dataset.parts == {}
        return
    for part in ("trainval", "test"):
        names = [item.name.rpartition("/")[2] for item in read_split(dataset, "official", part)]
        wanted = part.replace("trainval", "train")
        assert names == [animal.name for animal in animals if animal.part == wanted]


@pytest.mark.parametrize("writer", WRITERS)
def test_real_photos_are_the_same_in_every_layout(writer: str, pets_dir: Path, tmp_path: Path) -> None:
    animals = oxford_animals(pets_dir, 12)
    assert {1, 2} <= set(np.unique(np.stack([animal.labels for animal in animals])).tolist())
    WRITERS[writer](tmp_path, animals)
    check_same(tmp_path, animals)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_layout_can_be_named(writer: str, tmp_path: Path) -> None:
    WRITERS[writer](tmp_path, drawn_animals(3))
    name = writer.split()[0]
    assert open_dataset(tmp_path, layout=name) == open_dataset(tmp_path)
    assert name in layouts()


def test_classes_of_another_order_are_mapped_by_name(tmp_path: Path) -> None:
    animals = drawn_animals(2)
    WRITERS["voc"](tmp_path, animals)
    dataset = open_dataset(tmp_path)
    other = dataset.in_order_of(dataset.classes[::-1])
    assert other.class_names == ("dog", "cat", "background")
    for animal, sample in zip(animals, other.samples, strict=True):
        expected = np.where(animal.labels == IGNORED, IGNORED, 2 - animal.labels.astype(int))
        np.testing.assert_array_equal(open_labels(sample), expected)


def test_some_of_the_classes_are_wanted_the_others_are_background(tmp_path: Path) -> None:
    animals = drawn_animals(2)
    WRITERS["coco compressed"](tmp_path, animals)
    (tmp_path / "classes.yaml").unlink()
    dataset = open_dataset(tmp_path, classes="background,dog:#00ff00")
    assert dataset.class_names == ("background", "dog")
    assert dataset.classes[1].color == (0, 255, 0)
    for animal, sample in zip(animals, dataset.samples, strict=True):
        np.testing.assert_array_equal(open_labels(sample), animal.labels == 2)


def test_a_new_layout_is_one_module_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/architecture.md says what an extension costs."""
    animals = drawn_animals(2)
    for animal in animals:
        save_photo(animal, tmp_path)
    labels = {animal.name: animal.labels for animal in animals}

    class Known(NamedTuple):
        path: Path
        coding: str = "known"

        def read(self) -> np.ndarray:
            return labels[self.path.stem]

    def read(root: Path, options: Options, why: str) -> Dataset:
        samples = tuple(Sample(path.stem, path, Known(path)) for path in sorted(root.glob("*.png")))
        return Dataset(root, "mine", why, named_classes(NAMES), samples)

    module = types.ModuleType("unet_runtime.core.datasets.mine")
    module.LAYOUT = Layout("mine", "mine", "*.png", lambda root: "pictures" * any(root.glob("*.png")), read)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(datasets, "_MODULES", (*datasets._MODULES, "mine"))
    layouts.cache_clear()
    try:
        check_same(tmp_path, animals)
    finally:
        layouts.cache_clear()

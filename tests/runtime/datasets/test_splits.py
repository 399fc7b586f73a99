"""Which photos are held out: parts of the data, random ones, folds, and groups that stay together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from unet_runtime.core.datasets import Dataset, Part, Sample, automatic_split, check_split, grouped, read_split
from unet_runtime.core.datasets.oxford_pets import CLASSES, Trimap
from unet_runtime.core.datasets.parts import part_of, read_lists
from unet_runtime.core.errors import SourceError


def dataset(names: Sequence[str], **parts: tuple[str, ...]) -> Dataset:
    samples = tuple(Sample(name, Path(name), Trimap(Path(name))) for name in sorted(names))
    return Dataset(Path("data"), "folders", "named", CLASSES, samples, parts)


def names(data: Dataset, split: str, part: Part) -> list[str]:
    return [sample.name for sample in read_split(data, split, part)]


FRAMES = [f"video{video:02}_frame{frame}" for video in range(40) for frame in range(5)]


def test_each_photo_is_in_the_test_part_of_one_fold_and_the_folds_are_about_equal() -> None:
    data = dataset([f"p{index}" for index in range(500)])
    tested: list[str] = []
    for fold in range(1, 6):
        split = f"fold:{fold}/5"
        test = names(data, split, "test")
        assert 70 < len(test) < 130
        assert sorted(test + names(data, split, "trainval")) == [sample.name for sample in data.samples]
        tested += test
    assert sorted(tested) == [sample.name for sample in data.samples]


def test_a_fold_is_the_documented_one() -> None:
    """Fixed for ever: models carry its name."""
    listed = [f"p{index}" for index in range(30)]
    expected = [name for name in listed if int(hashlib.sha256(f"fold {name}".encode()).hexdigest(), 16) % 3 == 1]
    assert names(dataset(listed), "fold:2/3", "test") == sorted(expected)


@pytest.mark.parametrize("base", ["random:1", "fold:2/4"])
@pytest.mark.parametrize("pattern", ["video[0-9]+", "^(.*)_frame"])
def test_photos_of_a_group_stay_together(base: str, pattern: str) -> None:
    split = grouped(base, pattern)
    assert split == f"{base} by {pattern}"
    test = {name.partition("_")[0] for name in names(dataset(FRAMES), split, "test")}
    trainval = {name.partition("_")[0] for name in names(dataset(FRAMES), split, "trainval")}
    assert test
    assert trainval
    assert not test & trainval


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ("fold:0/5", "expected official"),
        ("fold:6/5", "K from 1 to N"),
        ("fold:1/1", "N of 2 or more"),
        ("fold:3", "expected official"),
        ("official by x", "are grouped in random:SEED and fold:K/N alone"),
        ("random:1 by (", "no regular expression"),
        ("auto", "expected official"),
    ],
)
def test_what_names_no_split(split: str, words: str) -> None:
    with pytest.raises(SourceError) as caught:
        check_split(split)
    assert words in str(caught.value)


def test_a_pattern_that_finds_nothing_names_the_photo() -> None:
    with pytest.raises(SourceError, match=r"'patient' of --group-by finds nothing in the name 'video00_frame0'"):
        read_split(dataset(FRAMES), "random:1 by patient", "test")


def test_an_empty_part_is_named() -> None:
    with pytest.raises(SourceError, match="the test part of the fold:1/2 split names no photo"):
        read_split(dataset(["p4", "p5"]), "fold:1/2", "test")


@pytest.mark.parametrize(
    ("parts", "trainval", "test", "split"),
    [
        ({"train": ("a",), "val": ("b",), "test": ("c",)}, ["a", "b"], ["c"], "official"),
        ({"train": ("a",), "val": ("b",)}, ["a"], ["b"], "official"),
        ({"train": ("a",), "val": ("b",), "trainval": ("a", "b")}, ["a"], ["b"], "official"),  # VOC's lists
        ({"trainval": ("a", "b"), "test": ("c",)}, ["a", "b"], ["c"], "official"),
        ({"train": ("a", "a"), "test": ("c", "gone")}, ["a"], ["c"], "official"),
        ({"train": ("a",)}, ["a"], None, "random:3"),  # of three photos random:1 holds none out
        ({}, None, None, "random:3"),
    ],
)
def test_the_data_s_own_parts(
    parts: dict[str, tuple[str, ...]], trainval: list[str] | None, test: list[str] | None, split: str
) -> None:
    data = dataset("abc", **parts)
    assert automatic_split(data) == split
    for part, expected in (("trainval", trainval), ("test", test)):
        if expected is None:
            with pytest.raises(SourceError, match=r"--split random:1"):
                names(data, "official", part)  # type: ignore[arg-type]
        else:
            assert names(data, "official", part) == expected  # type: ignore[arg-type]


def test_the_article_s_split_is_of_one_dataset() -> None:
    with pytest.raises(SourceError, match="Oxford-IIIT Pet alone"):
        read_split(dataset("abc"), "article", "test")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("train2017", "train"),
        ("instances_val2017", "val"),
        ("Valid", "val"),
        ("test", "test"),
        ("images", ""),
        ("trainer", ""),
        ("latest", ""),
    ],
)
def test_what_a_name_says(name: str, part: str) -> None:
    assert part_of(name) == part


def test_lists_name_photos_with_or_without_folder_and_suffix(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("# comment\n\na 1 1\nimages/b.jpg\n.\\x\\c.v2.png\n")
    (tmp_path / "valid.txt").write_text("gone\nd\n")
    (tmp_path / "notes.txt").write_text("a\n")
    assert read_lists(tmp_path, ["a", "b", "c.v2", "d"]) == {"train": ("a", "b", "c.v2"), "val": ("d",)}
    (tmp_path / "test.txt").write_text("e\nf\n")
    with pytest.raises(SourceError, match=r"test\.txt: names 2 photos as 'e', none of them is in this dataset"):
        read_lists(tmp_path, ["a"])


def test_a_sample_is_small_and_comparable(tmp_path: Path) -> None:
    Image.new("L", (2, 2), 1).save(tmp_path / "a.png")
    one, other = (Sample("a", tmp_path, Trimap(tmp_path / "a.png")) for _ in range(2))
    assert one == other
    assert len({one, other}) == 1


def test_few_photos_have_both_parts() -> None:
    for count in (*range(2, 12), 20, 40):
        data = dataset([f"animal{index:02}" for index in range(count)])
        split = automatic_split(data)
        assert 0.1 <= len(names(data, split, "test")) / count <= 0.5
        assert names(data, split, "trainval")

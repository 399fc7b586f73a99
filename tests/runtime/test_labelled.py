"""Photos with trimaps, and IoU by hand."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unet_runtime import ImageError, SourceError
from unet_runtime.core.datasets import check_split, evenly, open_dataset, open_labels, read_split
from unet_runtime.core.datasets.oxford_pets import Trimap
from unet_runtime.core.geometry import model_input, model_labels
from unet_runtime.core.metrics import IGNORED, confusion, iou
from unet_runtime.core.spec import InputSpec


def write_layout(root: Path, names: list[str], test: list[str]) -> None:
    (root / "images").mkdir(parents=True)
    (root / "annotations" / "trimaps").mkdir(parents=True)
    for name in names:
        Image.new("RGB", (4, 4)).save(root / "images" / f"{name}.jpg")
        Image.new("L", (4, 4), 1).save(root / "annotations" / "trimaps" / f"{name}.png")
    trainval = [name for name in names if name not in test]
    (root / "annotations" / "trainval.txt").write_text("".join(f"{name} 1 1 1\n" for name in trainval))
    (root / "annotations" / "test.txt").write_text("#comment\n\n" + "".join(f"{name} 1 1 1\n" for name in test))


def test_splits(tmp_path: Path) -> None:
    names = [f"Cat_{index}" for index in range(10)]
    write_layout(tmp_path, names, test=names[::3])
    (tmp_path / "annotations" / "trimaps" / "._Cat_1.png").write_bytes(b"litter")
    assert [item.name for item in read_split(open_dataset(tmp_path), "official", "test")] == names[::3]
    train, test = (read_split(open_dataset(tmp_path), "article", part) for part in ("trainval", "test"))
    # Seed 1337 shuffles ten to 0 3 7 2 1 6 4 5 8 9 (CPython 3.2 and later); of fewer than 2,000 half are held out.
    assert [item.name for item in train] == [f"Cat_{index}" for index in (0, 1, 2, 3, 7)]
    assert [item.name for item in test] == [f"Cat_{index}" for index in (4, 5, 6, 8, 9)]
    assert all(item.photo.is_file() and item.labels.path.is_file() for item in train + test)


@pytest.mark.parametrize(
    ("split", "part", "message"),
    [
        ("official", "train", "part 'train'"),
        ("random", "test", "split 'random'"),
        ("official", "test", "test part is missing"),
    ],
)
def test_no_split(split: str, part: str, message: str, tmp_path: Path) -> None:
    write_layout(tmp_path, ["a", "b"], test=[])
    with pytest.raises(SourceError, match=message):
        read_split(open_dataset(tmp_path), split, part)


def test_empty_article_split(tmp_path: Path) -> None:
    write_layout(tmp_path, ["a"], test=["a"])
    with pytest.raises(SourceError, match="names no photo"):
        read_split(open_dataset(tmp_path), "article", "test")


def _names(root: Path, split: str, part: str) -> list[str]:
    return [item.name for item in read_split(open_dataset(root), split, part)]


def write_empty(root: Path, names: list[str]) -> None:
    """Files that only have names."""
    for folder, suffix in ((root / "images", "jpg"), (root / "annotations" / "trimaps", "png")):
        folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / f"{name}.{suffix}").touch()


def test_a_random_split_holds_a_fifth_out(tmp_path: Path) -> None:
    names = [f"p{index:04}" for index in range(2000)]
    write_empty(tmp_path, names)
    trainval, test = (_names(tmp_path, "random:7", part) for part in ("trainval", "test"))
    assert sorted(trainval + test) == names
    assert (trainval, test) == (sorted(trainval), sorted(test))
    assert 0.17 < len(test) / len(names) < 0.23  # three standard deviations
    other = _names(tmp_path, "random:8", "test")
    assert 40 < len(set(test) & set(other)) < 130  # as two independent draws: a fifth of a fifth


def test_a_random_split_is_the_documented_one(tmp_path: Path) -> None:
    """Fixed for ever: models carry its name. By the rule of docs/model-spec.md, and by what it gave when written."""
    names = [f"Cat_{index}" for index in range(20)]
    write_empty(tmp_path, names)
    expected = [n for n in names if int(hashlib.sha256(f"7 {n}".encode()).hexdigest(), 16) % 5 == 0]
    assert _names(tmp_path, "random:7", "test") == sorted(expected) == ["Cat_0", "Cat_11", "Cat_3", "Cat_9"]


def test_a_photo_keeps_its_part_whatever_comes_and_goes(tmp_path: Path) -> None:
    names = [f"p{index:04}" for index in range(300)]
    write_empty(tmp_path, names)
    before = {part: set(_names(tmp_path, "random:1", part)) for part in ("trainval", "test")}
    added = [f"a{index}" for index in range(50)]
    write_empty(tmp_path, added)
    for name in names[::3]:
        (tmp_path / "images" / f"{name}.jpg").unlink()
    (tmp_path / "annotations" / "trimaps" / f"{names[1]}.png").unlink()
    after = {part: set(_names(tmp_path, "random:1", part)) for part in ("trainval", "test")}
    gone = {*names[::3], names[1]}
    assert {part: photos - set(added) for part, photos in after.items()} == {
        part: photos - gone for part, photos in before.items()
    }
    assert after["trainval"] & set(added)
    assert after["test"] & set(added)


def test_a_random_split_needs_no_lists_and_ignores_litter(tmp_path: Path) -> None:
    write_empty(tmp_path, [f"._p{index}" for index in range(50)])
    for part in ("trainval", "test"):
        with pytest.raises(SourceError, match="no photo has labels"):
            read_split(open_dataset(tmp_path), "random:0", part)


def test_a_name_that_is_no_unicode_has_a_part(tmp_path: Path) -> None:
    names = [f"n\udcff{index}" for index in range(30)]  # as Python reads the byte 0xff
    try:
        write_empty(tmp_path, names)
    except OSError:
        pytest.skip("this file system wants Unicode names")
    assert sorted(_names(tmp_path, "random:0", "trainval") + _names(tmp_path, "random:0", "test")) == sorted(names)


@pytest.mark.parametrize("split", ["official", "article", "random:0", "random:7", "random:123456789012345678901"])
def test_a_split_s_name(split: str) -> None:
    assert check_split(split) == split


@pytest.mark.parametrize(
    "split",
    [
        "",
        "random",
        "random:",
        "random:x",
        "random:-1",
        "random:+1",
        "random: 1",
        "random:1 ",
        "random:1\n",
        "random:1.0",
        "random:01",
        "random:1_0",
        "random:\u0663",
        "Random:1",
        "article:1",
        "official:",
    ],
)
def test_what_names_no_split(split: str, tmp_path: Path) -> None:
    write_layout(tmp_path, ["a"], test=["a"])
    for refuse in (check_split, lambda name: read_split(open_dataset(tmp_path), name, "test")):
        with pytest.raises(SourceError) as caught:
            refuse(split)
        assert str(caught.value).startswith(f"split {split!r}: expected official, article, random:SEED or fold:K/N")


def test_evenly(tmp_path: Path) -> None:
    write_layout(tmp_path, [f"{index:03d}" for index in range(100)], test=[])
    photos = read_split(open_dataset(tmp_path), "official", "trainval")
    assert [item.name for item in evenly(photos, 4)] == ["000", "025", "050", "075"]
    assert evenly(photos, 100) == evenly(photos, 999) == photos


@pytest.mark.parametrize("values", [[0, 1], [1, 4], [255, 1]])
def test_trimap_values(values: list[int], tmp_path: Path) -> None:
    Image.fromarray(np.array([values], np.uint8)).save(tmp_path / "t.png")
    with pytest.raises(ImageError, match=r"expected 1\.\.3"):
        Trimap(tmp_path / "t.png").read()


def test_trimap_unreadable(tmp_path: Path) -> None:
    (tmp_path / "t.png").write_bytes(b"no png")
    for name in ("t.png", "absent.png"):
        with pytest.raises(ImageError, match=name):
            Trimap(tmp_path / name).read()


def test_labels_are_never_mixed() -> None:
    labels = np.where(np.arange(90).reshape(9, 10) % 2, 2, 0).astype(np.uint8)
    assert set(np.unique(model_labels(labels, InputSpec(32, 32)))) == {0, 2}
    boxed = model_labels(np.zeros((10, 20), np.uint8), InputSpec(32, 32, fit="letterbox"))
    assert (boxed[:8] == IGNORED).all()
    assert (boxed[8:24] == 0).all()
    assert (boxed[24:] == IGNORED).all()


def test_labels_lie_where_the_photo_lies_and_are_mirrored_with_it() -> None:
    labels = np.random.default_rng(0).integers(0, 3, (20, 20)).astype(np.uint8)
    spec = InputSpec(32, 32, margin=6)
    photo = Image.fromarray(np.repeat(labels[..., np.newaxis], 3, axis=-1))
    assert np.array_equal(model_labels(labels, spec), model_input(photo, spec)[0, ..., 0])
    assert np.array_equal(model_labels(labels, spec)[spec.valid], labels)


def test_iou_by_hand() -> None:
    truth = np.array([[0, 0, 1, 1, IGNORED]], np.uint8)
    mask = np.array([[0, 1, 1, 1, 2]], np.uint8)
    matrix = confusion([truth], [mask], 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    result = iou(matrix)
    assert result[:2].tolist() == pytest.approx([1 / 2, 2 / 3])
    assert np.isnan(result[2])


def test_real_photos(pets_dir: Path) -> None:
    test = read_split(open_dataset(pets_dir), "official", "test")
    assert not {item.name for item in test} & {
        item.name for item in read_split(open_dataset(pets_dir), "official", "trainval")
    }
    for item in evenly(test, 16):
        with Image.open(item.photo) as photo:
            assert photo.size == open_labels(item).shape[::-1]

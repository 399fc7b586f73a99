"""``unet-train check``: each oddity made on generated pictures and named; the real dataset where PETS_DIR has it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.trained import unet_train
from unet_runtime.core.datasets import open_dataset, read_split
from unet_runtime.core.spec import InputSpec
from unet_runtime.core.text import printable
from unet_training.data.check import check_dataset
from unet_training.data.dataset import load
from unet_training.errors import DatasetError


@pytest.fixture
def data(pictures: Path, tmp_path: Path) -> Path:
    """24 pictures in trainval.txt, 8 in test.txt, without an oddity."""
    return Path(shutil.copytree(pictures, tmp_path / "data"))


def _photo(data: Path, number: int) -> Path:
    return data / "images" / f"synthetic_{number:04}.jpg"


def _trimap(data: Path, number: int) -> Path:
    return data / "annotations" / "trimaps" / f"synthetic_{number:04}.png"


def _values(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with Image.open(path) as image:
        Image.fromarray(change(np.asarray(image)).astype(np.uint8)).save(path)


def _as_png(data: Path) -> None:
    with Image.open(_photo(data, 1)) as image:
        image.save(_photo(data, 1), format="PNG")


def _litter(data: Path) -> None:
    for path in (_photo(data, 1), _trimap(data, 1)):
        path.with_name("._" + path.name).write_bytes(b"\0\5\x16\7")


def _unlist(data: Path) -> None:
    path = data / "annotations" / "trainval.txt"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))


def _leak(data: Path) -> None:
    with (data / "annotations" / "test.txt").open("a") as lines:
        lines.write("synthetic_0001 1 1 1\n")


def _list_nothing(data: Path) -> None:
    with (data / "annotations" / "trainval.txt").open("ab") as lines:
        lines.write(b"nobody 1 1 1\nno\xffname 1 1 1\nno\0name 1 1 1\n")


FIRST = "synthetic_0001"

ODDITIES: list[tuple[Callable[[Path], object], dict[str, tuple[str, ...]], int]] = [
    # what is done to the data, what is found, usable photos left of 24
    (_as_png, {"not_jpeg": (f"{FIRST} (PNG)",)}, 24),
    (_litter, {"litter": (f"._{FIRST}.jpg", f"._{FIRST}.png")}, 24),
    (lambda data: (data / "images" / "a.mat").touch(), {"other_files": ("a.mat",)}, 24),
    (lambda data: _trimap(data, 1).unlink(), {"incomplete": (FIRST,), "without_trimap": (FIRST,)}, 23),
    (lambda data: _photo(data, 1).unlink(), {"incomplete": (FIRST,), "without_photo": (FIRST,)}, 23),
    (_list_nothing, {"incomplete": ("nobody", "no\ufffdname"), "unreadable": ("no\0name",)}, 24),
    (_unlist, {"unlisted": (FIRST,)}, 23),
    (lambda data: Image.new("L", (9, 9), 1).save(_trimap(data, 1)), {"sizes": (FIRST,)}, 23),
    (lambda data: _values(_trimap(data, 1), lambda values: values + 1), {"values": (FIRST,)}, 23),
    (lambda data: _values(_trimap(data, 1), lambda values: values.clip(2)), {"without_pet": (FIRST,)}, 24),
    (lambda data: _photo(data, 1).write_bytes(_photo(data, 1).read_bytes()[:400]), {"unreadable": (FIRST,)}, 23),
    (lambda data: _trimap(data, 1).write_text("no picture"), {"unreadable": (FIRST,)}, 23),
    (
        lambda data: [shutil.copy(path(data, 1), path(data, 30)) for path in (_photo, _trimap)],
        {"duplicates": (f"synthetic_0030 = {FIRST}",)},
        24,
    ),
]


@pytest.mark.parametrize(("spoil", "found", "usable"), ODDITIES)
def test_an_oddity_is_named_and_does_not_stop_training(
    data: Path, spoil: Callable[[Path], object], found: dict[str, tuple[str, ...]], usable: int
) -> None:
    spoil(data)
    ended = unet_train("check", data, "--json", data / "new" / "report.json")
    assert (ended.code, ended.err) == (0, "")
    report = json.loads((data / "new" / "report.json").read_text())
    assert report["usable"]["official trainval"] == usable
    assert {name: tuple(value) for name, value in report.items() if isinstance(value, list) and value} == found
    for names in found.values():
        assert any(
            line.startswith(f"{len(names):6}  ") and printable(names[0]) in line for line in ended.out.splitlines()
        )


@pytest.mark.parametrize("spoil", [spoil for spoil, _, _ in ODDITIES])
def test_usable_is_what_training_loads(data: Path, spoil: Callable[[Path], object]) -> None:
    spoil(data)
    usable = check_dataset(data).usable
    for label, count in usable.items():
        photos = read_split(open_dataset(data), *label.split())
        loaded = load(photos, InputSpec(16, 16))
        assert (len(loaded), len(loaded.problems)) == (count, len(photos) - count)


def test_a_dataset_without_oddities_has_none(data: Path) -> None:
    report = check_dataset(data)
    assert (any(report.names.values()), report.errors()) == (False, [])
    assert (report.pairs, report.formats) == (32, {"JPEG": 32})
    assert report.usable == {
        "official trainval": 24,
        "official test": 8,
        "article trainval": 16,
        "article test": 16,
    }


def test_at_most_five_names_are_shown(data: Path) -> None:
    for number in range(1, 8):
        _photo(data, number).write_text("no picture")
    ended = unet_train("check", data)
    assert "     7  unreadable photos or trimaps: left out (synthetic_0001, " in ended.out
    assert "synthetic_0005, ...)" in ended.out
    assert "synthetic_0006" not in ended.out


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_leak, "1 photos are both trained on and tested on: synthetic_0001"),
        (lambda data: (data / "annotations" / "test.txt").unlink(), "annotations/test.txt is missing or empty"),
        (
            lambda data: [_photo(data, number).unlink() for number in range(25, 33)],
            "no usable photo in the official test part",
        ),
        (lambda data: shutil.rmtree(data / "images"), "images: cannot be listed (No such file or directory)"),
    ],
)
def test_what_stops_training_is_exit_1(data: Path, spoil: Callable[[Path], object], words: str) -> None:
    spoil(data)
    ended = unet_train("check", data)
    assert ended.code == 1
    assert ended.err.startswith("error: ")
    assert words in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_folder_that_is_no_dataset_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"expected images/ and annotations/trimaps/"):
        check_dataset(tmp_path)


def test_the_real_dataset_can_be_trained_on(pets_dir: Path) -> None:
    report = check_dataset(pets_dir)
    assert report.errors() == []
    assert report.usable["official trainval"] > 3600
    assert report.usable["official test"] > 2900
    assert report.usable["article test"] > 990  # a few of the official photos have oddities

"""``unet-train check``: each oddity made on generated pictures and named; the real dataset where PETS_DIR has it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.layouts import NAMES, WRITERS, drawn_animals, ids, rgb, some_pets
from tests.helpers.trained import unet_train
from unet_runtime.core.datasets import IGNORED, open_dataset, read_split
from unet_runtime.core.spec import InputSpec
from unet_runtime.core.text import printable
from unet_training.check import check_dataset
from unet_training.data.dataset import load


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


def _recoded(data: Path) -> None:
    """The same picture in other bytes: a comment is added to the JPEG file."""
    content = _photo(data, 1).read_bytes()
    _photo(data, 30).write_bytes(content[:2] + b"\xff\xfe\0\x06copy" + content[2:])
    shutil.copy(_trimap(data, 1), _trimap(data, 30))


ODDITIES: list[tuple[Callable[[Path], object], dict[str, tuple[str, ...]], int]] = [
    # what is done to the data, what is found, usable photos left of 24
    (_as_png, {"other_format": (f"{FIRST} (PNG)",)}, 24),
    (_litter, {}, 24),
    (lambda data: _trimap(data, 1).unlink(), {"incomplete": (FIRST,)}, 23),
    (lambda data: _photo(data, 1).unlink(), {"incomplete": (FIRST,)}, 23),
    (_list_nothing, {"incomplete": ("nobody", "no\ufffdname"), "unreadable": ("no\0name",)}, 24),
    (_unlist, {"unlisted": (FIRST,)}, 23),
    (lambda data: Image.new("L", (9, 9), 1).save(_trimap(data, 1)), {"sizes": (FIRST,)}, 23),
    (lambda data: _values(_trimap(data, 1), lambda values: values + 1), {"trimaps": (FIRST,)}, 23),
    (lambda data: _values(_trimap(data, 1), lambda values: values * 0 + 2), {"empty": (FIRST,)}, 24),
    (lambda data: _photo(data, 1).write_bytes(_photo(data, 1).read_bytes()[:400]), {"unreadable": (FIRST,)}, 23),
    (lambda data: _trimap(data, 1).write_text("no picture"), {"unreadable": (FIRST,)}, 23),
    (_recoded, {"duplicates": (f"synthetic_0030 = {FIRST}",)}, 24),
]


@pytest.mark.parametrize(("spoil", "found", "usable"), ODDITIES)
def test_an_oddity_is_named_and_does_not_stop_training(
    data: Path, spoil: Callable[[Path], object], found: dict[str, tuple[str, ...]], usable: int
) -> None:
    spoil(data)
    ended = unet_train("check", data, "--no-html", "--json", data / "new" / "report.json")
    assert (ended.code, ended.err) == (0, "")
    report = json.loads((data / "new" / "report.json").read_text())
    assert report["usable"]["trainval"] == usable
    assert {name: tuple(value) for name, value in report["oddities"].items() if value} == found
    for names in found.values():
        assert any(
            line.startswith(f"{len(names):6}  ") and printable(names[0]) in line for line in ended.out.splitlines()
        )


@pytest.mark.parametrize("spoil", [spoil for spoil, _, _ in ODDITIES])
def test_usable_is_what_training_loads(data: Path, spoil: Callable[[Path], object]) -> None:
    spoil(data)
    dataset = open_dataset(data)
    for part, count in check_dataset(dataset).usable.items():
        photos = read_split(dataset, "official", part)  # type: ignore[arg-type]
        loaded = load(photos, InputSpec(16, 16))
        assert (len(loaded), len(loaded.problems)) == (count, len(photos) - count)


def test_a_dataset_without_oddities_has_none(data: Path) -> None:
    report = check_dataset(open_dataset(data))
    assert (any(report.names.values()), report.errors()) == (False, [])
    assert (len(report.dataset.samples), report.formats) == (32, {"JPEG": 32})
    assert (report.split, report.usable) == ("official", {"trainval": 24, "test": 8})
    assert [entry.name for entry in report.classes] == ["pet", "background", "border"]
    assert sum(entry.share for entry in report.classes) == pytest.approx(1)
    assert all(entry.photos == 32 for entry in report.classes)
    assert check_dataset(open_dataset(data), "article").usable == {"trainval": 16, "test": 16}


def test_at_most_five_names_are_shown(data: Path) -> None:
    for number in range(1, 8):
        _photo(data, number).write_text("no picture")
    ended = unet_train("check", data, "--no-html")
    assert "     7  unreadable photos or labels: left out (synthetic_0001, " in ended.out
    assert "synthetic_0005, ...)" in ended.out
    assert "synthetic_0006" not in ended.out
    assert ended.code == 1
    assert "7 of 32 photos cannot be used" in ended.err


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_leak, "1 photos are both trained on and tested on: synthetic_0001"),
        (
            lambda data: [_photo(data, number).unlink() for number in range(25, 33)],
            "no usable photo in the test part of the official split",
        ),
        (lambda data: shutil.rmtree(data / "images"), "data: holds annotations/, synthetic.json, expected one of"),
    ],
)
def test_what_stops_training_is_exit_1(data: Path, spoil: Callable[[Path], object], words: str) -> None:
    spoil(data)
    ended = unet_train("check", data, "--no-html")
    assert ended.code == 1
    assert ended.err.startswith("error: ")
    assert words in ended.err
    assert len(ended.err.splitlines()) == 1


def test_a_page_is_written_again_and_what_others_made_stays(data: Path, tmp_path: Path) -> None:
    page, results = tmp_path / "page.html", tmp_path / "check.json"
    words = ("check", data, "--html", page, "--json", results)
    assert [unet_train(*words).code for _ in range(2)] == [0, 0]
    for path, content in ((page, "<!DOCTYPE html>\n<p>my own page on unet-edge"), (results, '{"shapes": []}')):
        whole = path.read_bytes()
        path.write_text(content)
        ended = unet_train(*words)
        assert (ended.code, f"{path.name}: exists, and was not made by unet-train" in ended.err) == (1, True)
        assert path.read_text() == content
        assert unet_train(*words, "--overwrite").code == 0
        assert path.read_bytes() == whole


def test_labels_are_not_replaced_whatever_is_said(tmp_path: Path) -> None:
    WRITERS["coco polygons"](tmp_path / "data", drawn_animals())
    labels = next((tmp_path / "data").rglob("*.json"))
    before = labels.read_bytes()
    ended = unet_train("check", tmp_path / "data", "--no-html", "--json", labels, "--overwrite")
    assert (ended.code, "is read in this run" in ended.err) == (1, True)
    assert labels.read_bytes() == before


@pytest.mark.parametrize("writer", ["folders ids", "voc cvat", "coco polygons", "labelme", "roboflow", "cityscapes"])
def test_every_layout_is_checked(writer: str, tmp_path: Path) -> None:
    animals = drawn_animals()
    WRITERS[writer](tmp_path / "data", animals)
    ended = unet_train("check", tmp_path / "data", "--html", tmp_path / "page.html", "--json")
    assert ended.code == 0
    report = json.loads(ended.out)
    assert (report["layout"], report["photos"], report["errors"]) == (writer.split()[0], 6, [])
    assert [entry["name"] for entry in report["classes"]] == list(NAMES)
    labels = np.stack([animal.labels for animal in animals])
    for index, entry in enumerate(report["classes"]):
        assert entry["pixels"] == np.count_nonzero(labels == index)
    assert report["ignored"] == pytest.approx(np.mean(labels == IGNORED))
    page = (tmp_path / "page.html").read_text()
    assert page.count("<img ") == 6
    assert "dog" in page


def test_the_page_shows_what_it_must_not_run(tmp_path: Path) -> None:
    ids(tmp_path / "data", drawn_animals(4))
    (tmp_path / "data" / "classes.yaml").write_text("classes: ['<script>', cat, dog]")
    assert unet_train("check", tmp_path / "data", "-o", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert "&lt;script&gt;" in page
    assert "<script" not in page


def test_values_that_no_class_has_are_named_with_file_and_count(tmp_path: Path) -> None:
    ids(tmp_path, drawn_animals())
    path = tmp_path / "masks" / "animal03.png"
    _values(path, lambda values: np.where(values == 1, 7, np.where(values == 2, 9, values)))
    with Image.open(path) as image:
        values, counts = np.unique(np.asarray(image), return_counts=True)
    pixels = dict(zip(values.tolist(), counts.tolist(), strict=True))
    ended = unet_train("check", tmp_path, "--no-html")
    assert ended.code == 1
    for value in (7, 9):
        assert (
            f"value {value} has no class: {pixels[value]:,} pixels in 1 masks, the first {path}: name the class "
            f"(--classes, classes.yaml), or leave it out (--ignore {value})"
        ) in ended.err
    assert unet_train("check", tmp_path, "--no-html", "--ignore", "7,9").code == 0


def test_a_class_file_is_begun_and_read_again(tmp_path: Path) -> None:
    rgb(tmp_path, drawn_animals())
    (tmp_path / "classes.yaml").unlink()
    before = open_dataset(tmp_path)
    assert not before.named
    assert unet_train("check", tmp_path, "--no-html", "--write-classes").code == 0
    after = open_dataset(tmp_path)
    assert after.named
    assert (after.classes, after.values) == (before.classes, before.values)
    ended = unet_train("check", tmp_path, "--no-html", "--write-classes")
    assert ended.code == 1
    assert "classes.yaml: is there already" in ended.err


def test_the_real_dataset_can_be_trained_on(pets_dir: Path, tmp_path: Path) -> None:
    step = 1 if os.environ.get("SLOW_TESTS") else 10
    report = check_dataset(open_dataset(some_pets(pets_dir, tmp_path / "pets", step)))
    assert report.errors() == []
    assert report.usable["trainval"] > 3600 // step
    assert report.usable["test"] > 2700 // step

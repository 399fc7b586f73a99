"""Datasets of one's own: what is wrong with them is said before training begins; what is right trains."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.layouts import WRITERS, Animal, coco_polygons, drawn_animals, ids, labelme, rgb, roboflow, voc
from tests.helpers.trained import unet_train
from unet_runtime.core.artifact import read_artifact
from unet_runtime.core.datasets import IGNORED, automatic_split, open_dataset, open_for_model, open_labels
from unet_runtime.core.errors import UnetRuntimeError
from unet_runtime.core.spec import InputSpec
from unet_training.data.dataset import load, split_dataset

INPUT = InputSpec(16, 16)


def read_as_training(root: Path) -> None:
    """All that training does with a dataset before its first step, with a default command."""
    dataset = open_dataset(root)
    split = split_dataset(dataset, automatic_split(dataset), 200, 1)
    for photos in (split.train, split.validation, split.test):
        data = load(photos, INPUT)
        assert set(np.unique(data.masks)) <= {*range(len(dataset.classes)), IGNORED}


def as_jpeg(root: Path) -> None:
    for path in (root / "masks").iterdir():
        with Image.open(path) as image:
            Image.fromarray((np.asarray(image) % 255 * 100).astype(np.uint8)).save(path.with_suffix(".jpg"))
        path.unlink()


def as_overlays(root: Path) -> None:
    rng = np.random.default_rng(0)
    for path in (root / "masks").iterdir():
        Image.fromarray(rng.integers(0, 255, (90, 90, 3)).astype(np.uint8)).save(path)


def change_json(path: Path, change: Callable[[dict[str, list[dict[str, object]]]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def with_value(path: Path, value: int) -> None:
    with Image.open(path) as image:
        pixels = np.array(image)
    pixels[0, :3] = value
    Image.fromarray(pixels).save(path)


def with_colour(path: Path) -> None:
    with Image.open(path) as image:
        pixels = np.array(image)
    pixels[0, :3] = (1, 2, 3)
    Image.fromarray(pixels).save(path)


INSTANCES = Path("annotations") / "instances_train2017.json"

REFUSED: list[tuple[str, Callable[[Path], object], str]] = [
    # layout, what is done to it, what is said
    ("folders ids", lambda root: shutil.rmtree(root / "masks"), "expected one of the layouts"),
    (
        "folders ids",
        lambda root: with_value(root / "masks" / "animal02.png", 7),
        "masks/animal02.png: value 7 (3 pixels)",
    ),
    ("folders ids", as_jpeg, "6 label masks are JPEG files, which blur values, the first"),
    ("folders ids", as_overlays, "6 of 6 label masks have thousands of colours, the first"),
    (
        "folders rgb",
        lambda root: with_colour(root / "masks" / "animal01.png"),
        "animal01.png: colour #010203 (3 pixels)",
    ),
    ("voc cvat", lambda root: with_colour(root / "SegmentationClass" / "animal01.png"), "colour #010203 (3 pixels)"),
    ("voc cvat", lambda root: (root / "labelmap.txt").write_text("cat:128\n"), "labelmap.txt, line 1: 'cat:128'"),
    ("voc", lambda root: shutil.rmtree(root / "JPEGImages"), "export the dataset with its images"),
    ("roboflow", lambda root: (root / "train" / "_classes.csv").write_text("x\ny\n"), "_classes.csv, line 2: 'y'"),
    (
        "coco polygons",
        lambda root: (root / INSTANCES).write_text('{"images": [], "annotations": 3'),
        "no readable JSON",
    ),
    (
        "coco polygons",
        lambda root: change_json(root / INSTANCES, lambda content: content.pop("categories")),
        "categories is NoneType, expected a list",
    ),
    ("folders ids", lambda root: (root / "classes.yaml").write_text("[cat]"), "1 classes (cat), expected 2"),
    ("labelme", lambda root: (root / "classes.yaml").write_text("[background, cow]"), "has no class cow, its own are"),
    (
        "folders ids",
        lambda root: (root / "train.txt").write_text("nobody\n"),
        "names 1 photos as 'nobody', none of them",
    ),
]


@pytest.mark.parametrize(("writer", "spoil", "words"), REFUSED)
def test_what_cannot_be_trained_on_is_refused_before_training(
    writer: str, spoil: Callable[[Path], object], words: str, tmp_path: Path
) -> None:
    WRITERS[writer](tmp_path, drawn_animals())
    spoil(tmp_path)
    with pytest.raises(UnetRuntimeError) as caught:
        read_as_training(tmp_path)
    assert words in str(caught.value)
    ended = unet_train("check", tmp_path, "--no-html")
    assert ended.code == 1
    assert "Traceback" not in ended.err


def break_polygon(content: dict[str, list[dict[str, object]]]) -> None:
    content["annotations"][0]["segmentation"] = [[1, 2, 3]]


LEFT_OUT: list[tuple[str, Callable[[Path], object], str]] = [
    (
        "folders ids",
        lambda root: [path.unlink() for path in sorted((root / "masks").iterdir())[:3]],
        "3 photos without a label mask: animal00, animal01, animal02",
    ),
    (
        "folders ids",
        lambda root: (root / "images" / "animal00.png").unlink(),
        "1 label masks without a photo: animal00",
    ),
    (
        "coco polygons",
        lambda root: (root / "train2017" / "animal00.png").unlink(),
        "1 photos that the JSON names and that are missing: annotations/instances_train2017.json: animal00.png",
    ),
    (
        "coco polygons",
        lambda root: change_json(root / INSTANCES, break_polygon),
        "animal00.png: annotation 1: a polygon of 3 numbers, expected x, y of three points or more",
    ),
    (
        "labelme",
        lambda root: (root / "train" / "animal01.json").write_text('{"shapes": 3, "imagePath": 1}'),
        "expected an",
    ),
    ("labelme", lambda root: (root / "train" / "animal01.png").unlink(), "1 labels whose photo is missing"),
]


@pytest.mark.parametrize(("writer", "spoil", "words"), LEFT_OUT)
def test_what_is_left_out_is_named(writer: str, spoil: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    WRITERS[writer](tmp_path, drawn_animals(9))
    spoil(tmp_path)
    dataset = open_dataset(tmp_path)
    assert any(words in line for line in dataset.problem_lines()), dataset.problem_lines()
    assert len(dataset.samples) in (6, 8)
    read_as_training(tmp_path)
    ended = unet_train("check", tmp_path, "--no-html")
    assert dataset.problems[0].kind in ended.out


# --- damaged at random ------------------------------------------------------------------------------

WRITTEN = (ids, rgb, voc, coco_polygons, labelme, roboflow)


def _cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content) + 1)])


def _flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 3, 20))):
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _swap(path: Path, rng: random.Random) -> None:
    other = rng.choice([file for file in path.parent.iterdir() if file.is_file()])
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


def _rename(path: Path, rng: random.Random) -> None:
    path.rename(
        path.with_name(rng.choice(("x" + path.name, path.stem, path.name + ".bak", path.stem.upper() + ".jpg")))
    )


def _reword(path: Path, rng: random.Random) -> None:
    """Another word, or none, where a number or a text is; of a text file."""
    text = path.read_bytes().decode("latin-1")
    places = [index for index, letter in enumerate(text) if letter in '0123456789":,[']
    if places:
        place = rng.choice(places)
        text = (
            text[:place]
            + rng.choice(("", "-1", "null", "NaN", '"', "[]", "{}", "1e999", "999999", "\0"))
            + text[place + 1 :]
        )
    path.write_bytes(text.encode("latin-1"))


def _folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


MUTATIONS = (_cut, _flip, _swap, _rename, _reword, _folder, lambda path, rng: path.unlink())


def refusal(root: Path) -> str:
    """Why a dataset is refused; empty where it is not. Any error but the project's own is a failure of the test."""
    try:
        read_as_training(root)
    except UnetRuntimeError as error:
        return str(error)
    return ""


def test_a_damaged_dataset_is_read_right_or_refused_clearly(tmp_path: Path) -> None:
    """SLOW_TESTS=1 tries a thousand."""
    animals = drawn_animals(5, (12, 10))
    for writer in WRITTEN:
        writer(tmp_path / "good" / writer.__name__, animals)
    refused = 0
    count = 1000 if os.environ.get("SLOW_TESTS") == "1" else 60
    for seed in range(count):
        rng = random.Random(seed)
        writer = rng.choice(WRITTEN)
        root = tmp_path / f"bad{seed}"
        shutil.copytree(tmp_path / "good" / writer.__name__, root)
        for _ in range(rng.choice((1, 1, 2, 5))):
            files = sorted(path for path in root.rglob("*") if path.is_file())
            rng.choice(MUTATIONS)(rng.choice(files), rng)
        message = refusal(root)
        if message:
            refused += 1
            assert str(root) in message or "photos can be used" in message, (seed, message)
        shutil.rmtree(root)
    assert 0 < refused < count


# --- trainings -------------------------------------------------------------------------------------


def _losses(root: Path, output: Path, *options: str) -> list[float]:
    ended = unet_train(
        *(
            "--data",
            root,
            "-o",
            output,
            "--preset",
            "demo",
            "--epochs",
            2,
            "--size",
            32,
            "--width",
            4,
            "--depth",
            1,
            "--batch-size",
            4,
        ),
        *("--split", "random:3", "--no-cache", *options),
    )
    assert ended.code == 0, ended.err
    history: dict[str, list[float]] = json.loads((output / "history.json").read_text())
    return history["loss"]


@pytest.mark.usefixtures("eager", "no_report")
def test_the_same_photos_train_alike_in_two_layouts(tmp_path: Path) -> None:
    """The arrays are the same in all layouts (tests/runtime/datasets), so two tell that training adds nothing."""
    animals = drawn_animals(12)
    ids(tmp_path / "one", animals)
    voc(tmp_path / "two", animals)
    one, two = (_losses(tmp_path / name, tmp_path / f"out {name}") for name in ("one", "two"))
    assert one == pytest.approx(two, rel=1e-5)
    spec = read_artifact(tmp_path / "out two" / "model.keras").spec
    assert spec.class_names == ("background", "cat", "dog")
    assert spec.provenance.split == "random:3"


@pytest.mark.usefixtures("eager", "no_report")
def test_what_was_said_of_the_labels_travels_in_the_model(tmp_path: Path) -> None:
    animals = [Animal(f"v{index // 3}_{index}", *animal[1:3]) for index, animal in enumerate(drawn_animals(18))]
    rgb(tmp_path / "data", animals)
    for name in ("classes.yaml", "splits/train.txt", "splits/test.txt"):
        (tmp_path / "data" / name).unlink()
    _losses(
        tmp_path / "data",
        tmp_path / "out",
        *("--classes", "background:#000000,cat:#800000,dog:#008000", "--ignore", "#ffffff", "--group-by", "v[0-9]+"),
    )
    spec = read_artifact(tmp_path / "out" / "model.keras").spec
    assert spec.provenance.split == "random:3 by v[0-9]+"
    dataset = open_for_model(tmp_path / "data", spec)
    np.testing.assert_array_equal(open_labels(dataset.samples[0]), animals[0].labels)
    ended = unet_train("evaluate", tmp_path / "out" / "model.keras", "--data", tmp_path / "data")
    assert ended.code == 0, ended.err
    assert "random:3 by v[0-9]+ split" in ended.out


def test_a_group_cannot_be_split_where_the_data_has_parts(tmp_path: Path) -> None:
    ended = unet_train("--data", tmp_path, "--split", "official", "--group-by", "x")
    assert ended.code == 2
    assert "grouped in random:SEED and fold:K/N alone" in ended.err

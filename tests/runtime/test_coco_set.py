"""One COCO data set of a folder: unique ids, names from the folder on, the same after --resume."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from tests.helpers.colours import colour_spec
from tests.helpers.commands import unet_run
from tests.helpers.memory import traced_peak
from unet_runtime import OutputError
from unet_runtime.io.coco_set import DataSet, names_root
from unet_runtime.io.kind import Metadata


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A folder tree of photos that differ, one that is none, and an odd name."""
    folder = tmp_path / "pets"
    (folder / "deep").mkdir(parents=True)
    generator = np.random.default_rng(3)
    for index, name in enumerate(("a.png", "b.png", "deep/a.png", "deep/c ü\n.png", "z.png")):
        small = Image.fromarray(generator.integers(0, 256, (3, 4, 3), np.uint8))
        small.resize((120 + index, 90)).save(folder / name)
    (folder / "bad.png").write_text("none")
    return folder


def check_ids(document: dict[str, list[dict[str, int]]]) -> None:
    images, annotations = document["images"], document["annotations"]
    assert [image["id"] for image in images] == list(range(1, len(images) + 1))
    assert [annotation["id"] for annotation in annotations] == list(range(1, len(annotations) + 1))
    assert {annotation["image_id"] for annotation in annotations} <= {image["id"] for image in images}
    assert [category["id"] for category in document["categories"]] == [1, 2, 3]


@pytest.mark.parametrize("contours", ["polygons", "rle"])
def test_one_data_set_of_a_folder(contours: str, pets: Path, colour_model: Path) -> None:
    arguments = ["pets", "--model", colour_model, "--save", "mask", "--contours", contours, "--coco", "new/all.json"]
    done = unet_run(*arguments, cwd=pets.parent)
    assert done.returncode == 1  # bad.png
    assert "new/all.json: 5 photos, " in done.stderr
    path = pets.parent / "new" / "all.json"
    assert [entry.name for entry in path.parent.iterdir()] == ["all.json"]
    document = json.loads(path.read_bytes())
    check_ids(document)
    names = [image["file_name"] for image in document["images"]]
    assert names == ["a.png", "b.png", "z.png", "deep/a.png", "deep/c ü\n.png"]
    data = COCO(str(path))
    assert [entry["name"] for entry in data.loadCats(data.getCatIds())] == ["red", "green", "blue"]
    seen = 0
    for image in document["images"]:
        name = Path(image["file_name"])
        with Image.open(pets.parent / "pets-segmented" / name.with_name(f"{name.stem}.mask.png")) as picture:
            mask = np.asarray(picture)
        assert (image["width"], image["height"]) == mask.shape[::-1]
        for annotation in data.loadAnns(data.getAnnIds(imgIds=image["id"])):
            assert np.array_equal(data.annToMask(annotation), mask == annotation["category_id"] - 1)
            seen += 1
    assert seen == len(document["annotations"]) > 5


@pytest.mark.parametrize("kinds", ["mask,overlay", "palette", "json", "overlay"])
def test_resume_gives_the_same_data_set(kinds: str, pets: Path, colour_model: Path) -> None:
    """From masks or JSON where there are some; else the photos are segmented again."""
    arguments = ["pets", "--model", colour_model, "--save", kinds, "--coco"]
    unet_run(*arguments, "whole.json", cwd=pets.parent)
    whole = (pets.parent / "whole.json").read_bytes()
    assert whole.count(b"file_name") == 5
    out = pets.parent / "pets-segmented"
    for path in out.glob("b.*"):
        path.unlink()
    for path in out.glob("z.mask.png"):
        path.write_bytes(path.read_bytes()[:-40])  # cut off
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("a.*")}
    done = unet_run(*arguments, "again.json", "--resume", cwd=pets.parent)
    assert (pets.parent / "again.json").read_bytes() == whole
    made = 5 if kinds == "overlay" else 2 if "mask" in kinds else 1
    assert done.stdout.count("->") == made, done.stdout + done.stderr
    if made < 5:
        assert {path: path.stat().st_mtime_ns for path in out.rglob("a.*")} == kept
        assert f"{5 - made} photos were done before" in done.stderr
    assert unet_run(*arguments, "again.json", cwd=pets.parent).returncode == 1  # bad.png alone: ours is replaced
    assert (pets.parent / "again.json").read_bytes() == whole


def test_a_run_that_stops_leaves_no_data_set(pets: Path, colour_model: Path) -> None:
    done = unet_run("pets", "--model", colour_model, "--coco", "all.json", "--on-error", "stop", cwd=pets.parent)
    assert done.returncode == 1
    assert "all.json: not written" in done.stderr
    assert sorted(path.name for path in pets.parent.iterdir()) == ["pets", "pets-segmented"]


def test_names_are_relative_to_what_all_photos_share(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert names_root([tmp_path / "a"], []) == tmp_path / "a"
    photos = [tmp_path / "a" / "x.jpg", tmp_path / "a" / "b" / "y.jpg"]
    assert names_root(photos, photos) == tmp_path / "a"
    assert names_root([tmp_path / "a", tmp_path / "c"], [*photos, tmp_path / "c" / "z.jpg"]) == tmp_path
    assert names_root([Path("-")], []) == Path("/")


def test_a_name_that_is_no_unicode(tmp_path: Path) -> None:
    data_set = DataSet(tmp_path / "all.json", colour_spec(), Metadata(), tmp_path)
    name = os.fsdecode(b"caf\xe9.jpg")
    data_set.add(tmp_path / name, data_set.entry(np.zeros((2, 2), np.uint8)))
    data_set.close()
    text = (tmp_path / "all.json").read_bytes().decode("utf-8")
    assert json.loads(text)["images"][0]["file_name"] == name


def test_many_photos_need_no_memory(tmp_path: Path) -> None:
    setup = """
import numpy as np
from tests.helpers.colours import colour_spec
from unet_runtime.io.coco_set import DataSet
from unet_runtime.io.kind import Metadata
path = Path(sys.argv[1])
mask = np.random.default_rng(1).integers(0, 3, (40, 40), np.uint8)
data_set = DataSet(path, colour_spec(), Metadata(), path.parent)
entry = data_set.entry(mask)
"""
    work = """
for index in range(3000):
    data_set.add(path.parent / f"{index}.jpg", entry)
data_set.close()
"""
    path = tmp_path / "all.json"
    assert traced_peak(setup, work, path) < 2e6
    assert path.stat().st_size > 30e6


def test_a_full_disk(pets: Path, colour_model: Path) -> None:
    """No data set, and no traceback; the other results are there."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); sys.argv[0] = 'unet-run';"
        "from unet_runtime.cli.run import main; main()"
    )
    for index in range(60):
        (pets / f"more{index}.png").write_bytes((pets / "b.png").read_bytes())
    arguments = ["pets", "--model", str(colour_model), "--save", "mask", "--coco", "all.json"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=pets.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "all.json: cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (pets.parent / "all.json").exists()
    assert len(list((pets.parent / "pets-segmented").rglob("*.mask.png"))) == 65


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"all\.json: cannot be written .*see --coco"):
        DataSet(tmp_path / "file" / "all.json", colour_spec(), Metadata(), tmp_path)


@pytest.mark.parametrize("contours", ["polygons", "rle"])
def test_datumaro_loads_it_with_labels(contours: str, pets: Path, colour_model: Path) -> None:
    datumaro = pytest.importorskip("datumaro")
    root = pets.parent / "data"
    (root / "images").mkdir(parents=True)
    arguments = ["--save", "mask", "--contours", contours, "--coco", root / "annotations" / "instances_default.json"]
    unet_run("pets", "--model", colour_model, *arguments, cwd=pets.parent)
    pets.rename(root / "images" / "default")
    loaded = datumaro.Dataset.import_from(str(root), "coco")
    labels = loaded.categories()[datumaro.AnnotationType.label]
    assert [label.name for label in labels.items] == ["red", "green", "blue"]
    found = set()
    for item in loaded:
        for annotation in item.annotations:
            found.add(labels[annotation.label].name)
    assert len(loaded) == 5
    assert found == {"red", "blue"}  # not the background

"""Which photos calibrate and which prove: never the same one, whatever its name."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.tiny import SPEC, TEST, TRAIN
from unet_export.errors import ExportError
from unet_export.photos import Photo, PhotoSets, PhotoSource, calibration_images, choose_photos, inputs
from unet_runtime.core.errors import ImageError, SourceError
from unet_runtime.core.photo import open_photo
from unet_runtime.core.spec import Provenance


def choose(source: PhotoSource, split: str = "official") -> PhotoSets:
    return choose_photos(source, replace(SPEC, provenance=Provenance(split=split)))


@pytest.fixture
def folders(data: Path, tmp_path: Path) -> tuple[Path, Path]:
    """(calibration, parity): two folders of bare photos, one with a folder inside."""
    for part in ("trainval", "test"):
        (tmp_path / part / "deeper").mkdir(parents=True)
    for path in sorted((data / "images").glob("*.jpg")):
        part = path.name.split("_")[0]
        shutil.copy(path, tmp_path / part / ("deeper" if path.stem.endswith("7") else "") / path.name)
    return tmp_path / "trainval", tmp_path / "test"


def test_a_dataset_gives_both_parts_with_truth(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    photos = choose(PhotoSource(data))
    assert (len(photos.calibration), len(photos.parity), photos.split) == (TRAIN, TEST, "official")
    assert photos.reserve == []
    assert all(photo.labels is not None and photo.labels.path.exists() for photo in photos.parity)
    assert caplog.messages == [
        f"proving on all {TEST} photos of the part: 128 were asked for",
        f"calibrating on all {TRAIN} photos of the part: 200 were asked for",
    ]


def test_folders_of_bare_photos_are_searched(folders: tuple[Path, Path]) -> None:
    calibration, parity = folders
    photos = choose(PhotoSource(calibration=calibration, parity=parity), "")
    assert (len(photos.calibration), len(photos.parity), photos.split) == (TRAIN, TEST, "")
    assert all(photo.labels is None for photo in photos.parity)
    assert "deeper/test_007.jpg" in [photo.name for photo in photos.parity]


def test_a_folder_in_the_dataset_s_layout_has_truth(folders: tuple[Path, Path], data: Path) -> None:
    calibration, _ = folders
    extra = calibration.parent / "fresh"
    (extra / "annotations" / "trimaps").mkdir(parents=True)
    (extra / "images").mkdir()
    for name in ("test_000", "test_001"):
        shutil.copy(data / "images" / f"{name}.jpg", extra / "images")
        shutil.copy(data / "annotations" / "trimaps" / f"{name}.png", extra / "annotations" / "trimaps")
    photos = choose(PhotoSource(calibration=calibration, parity=extra), "")
    assert [(photo.name, photo.labels is not None) for photo in photos.parity] == [
        ("test_000", True),
        ("test_001", True),
    ]


def test_a_photo_in_both_folders_is_refused_under_any_name(folders: tuple[Path, Path]) -> None:
    calibration, parity = folders
    shutil.copy(parity / "test_003.jpg", calibration / "holiday.jpg")
    with Image.open(parity / "test_004.jpg") as photo:
        photo.save(calibration / "the same pixels.png")
    with pytest.raises(ExportError, match=r"2 calibration photos are among .* \(holiday.jpg, the same pixels.png\)"):
        choose(PhotoSource(calibration=calibration, parity=parity), "")


def test_a_dataset_s_own_duplicate_is_left_out_and_named(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "data"
    shutil.copytree(data, root)
    shutil.copy(root / "images" / "test_003.jpg", root / "images" / "trainval_005.jpg")
    photos = choose(PhotoSource(root))
    assert len(photos.calibration) == TRAIN - 1
    assert "trainval_005" not in [photo.name for photo in photos.calibration]
    assert caplog.messages[-1] == "1 calibration photos are left out, the test part has the same pixels: trainval_005"


def test_a_dataset_whose_two_parts_are_the_same_is_refused(data: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(data, root)
    lists = root / "annotations"
    shutil.copy(lists / "trainval.txt", lists / "test.txt")
    with pytest.raises(ExportError, match=rf"all {TRAIN} photos of the training part .*--calibration"):
        choose(PhotoSource(root))


def test_the_reserve_is_of_the_same_part_and_no_repetition(data: Path) -> None:
    photos = choose(PhotoSource(data, reserve=50))
    assert not {*photos.reserve} & {*photos.calibration}
    assert not {*photos.reserve} & {*photos.parity}


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the photos that were decoded, in order."""
    names: list[str] = []

    def count(path: Path) -> Image.Image:
        names.append(path.stem)
        return open_photo(path)

    monkeypatch.setattr("unet_export.photos.open_photo", count)
    return names


def test_a_photo_is_decoded_once(data: Path, decoded: list[str]) -> None:
    photos = choose(PhotoSource(data, reserve=50))
    everything = [*photos.calibration, *photos.reserve, *photos.parity]
    assert len(decoded) == len(everything) == TRAIN + TEST
    kept = inputs(everything, SPEC.input)
    assert len(decoded) == TRAIN + TEST  # and not again
    fresh = inputs([Photo(photo.name, photo.path, None) for photo in everything], SPEC.input)
    np.testing.assert_array_equal(kept, fresh)


def test_photos_beyond_the_memory_kept_for_them_are_decoded_again(
    data: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unet_export.photos.KEPT_BYTES", TEST * SPEC.input.height * SPEC.input.width * 3)
    photos = choose(PhotoSource(data))
    decoded.clear()
    assert inputs(photos.parity, SPEC.input).shape == (TEST, SPEC.input.height, SPEC.input.width, 3)
    assert decoded == []
    inputs(photos.calibration, SPEC.input)
    assert decoded == [photo.name for photo in photos.calibration]


@pytest.mark.parametrize(
    ("source", "split", "reason"),
    [
        (PhotoSource(), "official", "name a dataset with --data, or a folder with --calibration"),
        (PhotoSource(Path("x")), "", "does not say which photos of x it was trained on: name the --split"),
    ],
)
def test_photos_that_nothing_names_are_asked_for(source: PhotoSource, split: str, reason: str) -> None:
    with pytest.raises(ExportError, match=reason):
        choose(source, split)


def test_a_folder_without_photos_is_named(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SourceError, match=r"empty: no photo in this folder"):
        choose(PhotoSource(calibration=empty, parity=folders[1]))
    with pytest.raises(SourceError, match=r"nowhere: no such folder"):
        choose(PhotoSource(calibration=tmp_path / "nowhere", parity=folders[1]))


def test_a_photo_that_cannot_be_read_is_named(folders: tuple[Path, Path]) -> None:
    calibration, parity = folders
    (calibration / "text.jpg").write_text("no picture")
    with pytest.raises(ImageError, match=r"text\.jpg"):
        choose(PhotoSource(calibration=calibration, parity=parity))


def test_photos_of_one_colour_calibrate_nothing() -> None:
    shades = np.arange(0, 200, 20, dtype=np.uint8)
    flat = np.broadcast_to(shades[:, None, None, None], (10, 8, 8, 3)).copy()
    with pytest.raises(ExportError, match="all 10 calibration photos are of one colour each"):
        calibration_images(flat)
    flat[3, 2, 2, 1] += 1
    assert calibration_images(flat).shape == flat.shape


def test_calibration_photos_hold_black_and_white(data: Path) -> None:
    photos = choose(PhotoSource(data))
    images = inputs(photos.calibration, SPEC.input).clip(20, 200)
    fit = calibration_images(images)
    assert (images.min(), images.max()) == (20, 200)  # the photos themselves are left alone
    assert (fit.min(), fit.max()) == (0, 255)
    assert (fit != images).sum() == 6


def test_classes_of_the_data_that_a_model_lacks_are_not_measured(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A model of an object and its background, on labels that have a border besides."""
    caplog.set_level(logging.INFO)
    pet, background, border = SPEC.classes
    two = replace(SPEC, classes=(background, pet), provenance=Provenance(split="official"))
    photo = choose_photos(PhotoSource(data), two).parity[0]
    assert photo.labels is not None
    assert set(np.unique(photo.labels.read())) == {0, 1, 255}
    assert any("pixels of border, no class of the model" in line for line in caplog.messages)
    with pytest.raises(SourceError, match="expected the same names"):
        choose_photos(PhotoSource(data), replace(two, classes=(background, replace(border, name="cat"))))

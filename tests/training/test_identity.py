"""What a model says of itself: only Oxford-IIIT Pet's is called after it and under its licence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.masks import write_dataset
from unet_runtime.core.datasets import Dataset, oxford_pets
from unet_training.identity import NAME, PETS_LICENSE, Identity, as_name, found_license, identify, is_pets
from unet_training.recipes import PRESETS

EDGE = PRESETS["edge"]


@pytest.fixture
def welds(tmp_path: Path) -> Dataset:
    return write_dataset(tmp_path / "weld seams", 4)


def pets(root: Path, *names: str) -> Dataset:
    paired = write_dataset(root, len(names)).samples
    samples = tuple(sample._replace(name=name) for name, sample in zip(names, paired, strict=True))
    return Dataset(root, oxford_pets.LAYOUT.name, "", oxford_pets.CLASSES, samples)


def test_own_data_gives_its_own_name_and_no_licence_that_nobody_stated(welds: Dataset, logged: list[str]) -> None:
    assert identify(welds, EDGE) == Identity("weld-seams-edge", "not stated", "weld seams")
    (warning,) = logged
    assert "say it with --data-license or --license" in warning


def test_options_win(welds: Dataset, logged: list[str]) -> None:
    found = identify(welds, EDGE, name="seams", license="MIT", data_license="CC0")
    assert found == Identity("seams", "MIT", "weld seams (CC0)")
    assert identify(welds, EDGE, data_license="CC0").license == "weights trained on weld seams, CC0"
    assert not logged


@pytest.mark.parametrize(
    ("file", "content", "licence"),
    [
        ("LICENSE", "\n# MIT License\n\nCopyright", "MIT License"),
        ("license.txt", "CC BY 4.0\n", "CC BY 4.0"),
        ("README.dataset.txt", "# welds\nProvided by a Roboflow user\nLicense: CC BY 4.0\n", "CC BY 4.0"),
        ("README.md", "**Licence**: CC0", "CC0"),
        ("README.md", "no word of it\n", ""),
        ("LICENSE", "\x1b[31mred\x00\n", "[31mred"),
        ("LICENSE", "", ""),
    ],
)
def test_the_data_s_own_files_name_its_licence(welds: Dataset, file: str, content: str, licence: str) -> None:
    (welds.root / file).write_text(content)
    assert found_license(welds.root) == licence
    assert identify(welds, EDGE).data == ("weld seams" + f" ({licence})" * bool(licence))


def test_oxford_s_photos_are_known_by_their_breeds(tmp_path: Path) -> None:
    real = pets(tmp_path / "real", "Abyssinian_1", "pug_12", "Egyptian_Mau_3")
    assert is_pets(real)
    assert identify(real, EDGE) == Identity("pets-edge", PETS_LICENSE, "Oxford-IIIT Pet")
    assert identify(real, replace(EDGE, name="pets-lite"), name="mine").name == "mine"


def test_own_photos_in_oxford_s_layout_are_not_oxford_s(tmp_path: Path) -> None:
    own = pets(tmp_path / "own", "IMG_1", "IMG_2", "pug_12")
    assert not is_pets(own)
    assert identify(own, EDGE).name == "own-edge"
    assert not is_pets(replace(own, samples=()))


def test_generated_pictures_are_no_photos_of_anybody(welds: Dataset) -> None:
    found = identify(welds, PRESETS["demo"], data_name="synthetic")
    assert found == Identity("demo", "Apache-2.0", "synthetic")


@pytest.mark.parametrize("folder", ["weld seams", "a/b:c", "...", "", "ümlaut 5", "x" * 300, "--help"])
def test_a_folder_s_name_becomes_a_model_s(welds: Dataset, folder: str) -> None:
    assert NAME.fullmatch(identify(welds, EDGE, data_name=folder or " ").name)
    assert NAME.fullmatch(as_name(folder)[:100])

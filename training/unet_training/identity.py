"""What a model says of itself: its name, its data, its licence. From options, the data's own files, or known data."""

from __future__ import annotations

import logging
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from unet_runtime.core.datasets import Dataset, oxford_pets
from unet_training.recipes import Recipe

logger = logging.getLogger(__name__)

PETS = "Oxford-IIIT Pet"
PETS_LICENSE = "Apache-2.0 (code); weights trained on Oxford-IIIT Pet, CC BY-SA 4.0, for research purposes"

SYNTHETIC = "synthetic"
SYNTHETIC_LICENSE = "Apache-2.0"

UNKNOWN_LICENSE = "not stated"

BREEDS = frozenset(
    [
        "Abyssinian",
        "Bengal",
        "Birman",
        "Bombay",
        "British_Shorthair",
        "Egyptian_Mau",
        "Maine_Coon",
        "Persian",
        "Ragdoll",
        "Russian_Blue",
        "Siamese",
        "Sphynx",
        "american_bulldog",
        "american_pit_bull_terrier",
        "basset_hound",
        "beagle",
        "boxer",
        "chihuahua",
        "english_cocker_spaniel",
        "english_setter",
        "german_shorthaired",
        "great_pyrenees",
        "havanese",
        "japanese_chin",
        "keeshond",
        "leonberger",
        "miniature_pinscher",
        "newfoundland",
        "pomeranian",
        "pug",
        "saint_bernard",
        "samoyed",
        "scottish_terrier",
        "shiba_inu",
        "staffordshire_bull_terrier",
        "wheaten_terrier",
        "yorkshire_terrier",
    ]
)
"""Breeds of Oxford-IIIT Pet, whose photos are named BREED_NUMBER."""

_KNOWN_SHARE = 0.9  # of the names: some photos may be somebody's own

_PREFIX = "pets-"
"""What the presets' names begin with, which the data's name takes the place of."""

_LICENSE_FILES = re.compile(r"(licen[cs]e|copying)(\.(txt|md))?", re.IGNORECASE)
_READMES = re.compile(r"readme.*\.(txt|md)", re.IGNORECASE)
_LICENSE_LINE = re.compile(r"\W*licen[cs]e\W*:\W*(\S.*)", re.IGNORECASE)
_MOST_BYTES = 1 << 16
_MOST_LETTERS = 200

NAME = re.compile(r"\w[\w.+-]{0,99}")
"""A model's name, which the names of exported files begin with."""


@dataclass(frozen=True)
class Identity:
    """Name of a model, its licence, and its data in words."""

    name: str
    license: str
    data: str
    """``Oxford-IIIT Pet``, or ``welds (CC BY 4.0)``."""


def identify(
    dataset: Dataset, recipe: Recipe, *, name: str = "", license: str = "", data_license: str = "", data_name: str = ""
) -> Identity:
    """What the model of this data is to say of itself; what an option gives (a text that is not empty) wins.

    A model is called after a preset, and under Oxford-IIIT Pet's licence, only where the data is that.
    """
    if data_name == SYNTHETIC:
        return Identity(name or recipe.name, license or SYNTHETIC_LICENSE, SYNTHETIC)
    if not data_license and is_pets(dataset):
        return Identity(name or recipe.name, license or PETS_LICENSE, PETS)
    folder = data_name or dataset.root.resolve().name or "data"
    data_license = data_license or found_license(dataset.root)
    if not license and data_license:
        license = f"weights trained on {folder}, {data_license}"
    if not license:
        logger.warning(
            "%s does not say under which licence it is, so the model's is %r: say it with --data-license or --license",
            dataset.root,
            UNKNOWN_LICENSE,
        )
    data = f"{folder} ({data_license})" if data_license else folder
    own_name = f"{as_name(folder)}-{recipe.name.removeprefix(_PREFIX)}"
    return Identity(name or own_name[:100], license or UNKNOWN_LICENSE, data)


def is_pets(dataset: Dataset) -> bool:
    """Whether a dataset is Oxford-IIIT Pet, or a part of it: by its layout, and by the breeds in its photos' names."""
    if dataset.layout != oxford_pets.LAYOUT.name or not dataset.samples:
        return False
    known = sum(breed_of(sample.name) in BREEDS for sample in dataset.samples)
    return known >= _KNOWN_SHARE * len(dataset.samples)


def breed_of(name: str) -> str:
    """A photo's name before its last underscore."""
    return name.rpartition("_")[0]


def as_name(text: str) -> str:
    """A text as a model's name: letters, digits and ``. + - _``."""
    return re.sub(r"[^\w.+-]+", "-", text).strip("-.+") or "data"


def found_license(root: Path) -> str:
    """The licence that a file beside the data names (LICENSE, or a README with a line ``License: ...``); else empty."""
    with suppress(OSError):
        paths = sorted(path for path in root.iterdir() if path.is_file())
        for path in paths:
            if _LICENSE_FILES.fullmatch(path.name):
                lines = filter(None, map(str.strip, _text(path).splitlines()))
                return _shown(next(lines, ""))
        for path in paths:
            found = _READMES.fullmatch(path.name) and _license_line(path)
            if found:
                return _shown(found)
    return ""


def _license_line(path: Path) -> str:
    for line in _text(path).splitlines():
        if found := _LICENSE_LINE.fullmatch(line):
            return found[1]
    return ""


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_MOST_BYTES).decode("utf-8", "replace")


def _shown(text: str) -> str:
    """A line of a file, as a spec takes it."""
    printable = "".join(letter for letter in text if letter.isprintable())
    return printable.strip("#*_ \t")[:_MOST_LETTERS]

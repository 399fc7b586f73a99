"""Photos with trimaps in the layout of Oxford-IIIT Pet, and its splits into photos to train on and to test with.

    ROOT/images/<name>.jpg
    ROOT/annotations/trimaps/<name>.png       1 pet, 2 background, 3 border
    ROOT/annotations/trainval.txt, test.txt   first word of a line: name

Training, the parity gate and benchmarks read the same photos through this one module. Class ids are the trimap's
values less one: 0 pet, 1 background, 2 border.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_runtime.core.errors import ImageError, SourceError

SPLITS = ("official", "article")
"""Splits without a seed; ``random:SEED`` is one more for each seed."""

Part = Literal["trainval", "test"]

PARTS: tuple[Part, ...] = get_args(Part)

ARTICLE_TEST_COUNT, ARTICLE_SEED = 1000, 1337
"""Photos that the article holds out, and the seed of its shuffle: a fact to repeat, not a choice."""

RANDOM_ONE_IN = 5
"""``random:SEED`` holds one photo in five out, to within chance: 1,478 +- 34 of Oxford-IIIT Pet's 7,390."""

_TRIMAP_VALUES = 3
_TRIMAP_FORMATS = ("PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG")  # any of Pillow's decoders would run otherwise


class LabelledPhoto(NamedTuple):
    """The files of one photo."""

    name: str
    photo: Path
    trimap: Path


# One spelling for each seed: a split's name travels in the model, and equal splits should have equal names.
_RANDOM = re.compile(r"random:(0|[1-9][0-9]*)", re.ASCII)


def check_split(split: str) -> str:
    """``split`` itself where it names one: ``official``, ``article`` or ``random:SEED`` (SEED 0 or more).

    Raises:
        SourceError: anything else.
    """
    if split in SPLITS or _RANDOM.fullmatch(split):
        return split
    raise SourceError(
        f"split {split!r}: expected {', '.join(SPLITS)} or random:SEED, where SEED is a whole number from 0 up in "
        "plain digits, as random:7"
    )


def read_split(root: str | os.PathLike[str], split: str, part: Part) -> list[LabelledPhoto]:
    """The photos of one part of a split, sorted by name.

    Args:
        root: folder in the layout above.
        split: ``official`` (the lists that come with the data), ``article`` (all photos that have a trimap,
            sorted by name and shuffled as the article does; the last 1,000 are the test part), or ``random:SEED``
            (each photo that has a trimap is in the test part with a chance of 1 in ``RANDOM_ONE_IN``, decided by
            seed and name).
        part: ``trainval`` or ``test``.

    Raises:
        SourceError: no such split, part, folder or list, or a part without a photo.
    """
    root = Path(root)
    check_split(split)
    if part not in PARTS:
        raise SourceError(f"part {part!r}: expected one of {', '.join(PARTS)}")
    kind, _, seed = split.partition(":")
    if kind == "official":
        names = _official_names(root, part)
    elif kind == "article":
        names = _article_names(root, part)
    else:
        names = [name for name in _paired_names(root) if _random_part(seed, name) == part]
    if not names:
        raise SourceError(
            f"{root}: the {part} part of the {split} split names no photo, expected at least one: is this the data's "
            "folder, and are there enough photos with a trimap?"
        )
    return _photos(root, names)


def paired_photos(root: str | os.PathLike[str]) -> list[LabelledPhoto]:
    """Every photo of a folder in the layout above that has a trimap, whatever the lists say; sorted by name."""
    return _photos(Path(root), _paired_names(Path(root)))


def _photos(root: Path, names: Sequence[str]) -> list[LabelledPhoto]:
    return [LabelledPhoto(name, root / "images" / f"{name}.jpg", _trimap(root, name)) for name in sorted(names)]


def _trimap(root: Path, name: str) -> Path:
    return root / "annotations" / "trimaps" / f"{name}.png"


def _official_names(root: Path, part: Part) -> list[str]:
    path = root / "annotations" / f"{part}.txt"
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}), expected Oxford-IIIT Pet's list") from error
    return [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]


def _paired_names(root: Path) -> list[str]:
    """Names of all photos that have a trimap, whatever the lists say; sorted."""
    # Files named "._*" are another system's litter, no pictures; the official archive holds such trimaps.
    names = [path.stem for path in (root / "images").glob("*.jpg") if not path.name.startswith("._")]
    return sorted(name for name in names if _trimap(root, name).is_file())


def _article_names(root: Path, part: Part) -> list[str]:
    names = _paired_names(root)
    # Python promises no permutation from version to version, but has not changed this one since 3.2; a test holds it.
    random.Random(ARTICLE_SEED).shuffle(names)
    count = min(ARTICLE_TEST_COUNT, len(names) // 2)  # a smaller dataset keeps half for training
    border = len(names) - count
    return names[:border] if part == "trainval" else names[border:]


def _random_part(seed: str, name: str) -> str:
    """The part of a photo: test where the SHA-256 of ``SEED name``, read as a number, is divisible by 5.

    A permutation from a generator would move photos from part to part when one is added or removed, and with NumPy's
    version, and a model trained before would be tested on photos it has seen. For the same reason the share is a
    chance, not a count: a cut at exactly 20 % moves with the number of photos.
    """
    # surrogatepass: a file's name need not be Unicode text, and still has a part.
    digest = hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogatepass")).digest()
    return "trainval" if int.from_bytes(digest, "big") % RANDOM_ONE_IN else "test"


_T = TypeVar("_T")


def evenly(photos: Sequence[_T], count: int) -> list[_T]:
    """``count`` photos spread over the whole sequence (so over all breeds), or all if there are fewer.

    Example:
        >>> evenly("abcdefgh", 3)
        ['a', 'c', 'f']
    """
    if count >= len(photos):
        return list(photos)
    return [photos[index * len(photos) // count] for index in range(count)]


def open_trimap(path: str | os.PathLike[str]) -> npt.NDArray[np.uint8]:
    """Class ids, uint8 (H, W), at the trimap's own size.

    Raises:
        ImageError: unreadable, or a value outside 1..3.
    """
    try:
        with Image.open(path, formats=_TRIMAP_FORMATS) as image:
            values = np.asarray(image.convert("L") if image.mode not in ("L", "P") else image)
    except Exception as error:  # as in open_photo: decoders raise anything
        raise ImageError(f"{path}: no readable trimap ({error})") from error
    low, high = int(values.min()), int(values.max())
    if low < 1 or high > _TRIMAP_VALUES:
        raise ImageError(f"{path}: trimap values {low}..{high}, expected 1..{_TRIMAP_VALUES}")
    return (values - 1).astype(np.uint8)

"""Photos and label masks that belong together by name, and the classes that such masks show."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from unet_runtime.core.datasets import classes as class_lists
from unet_runtime.core.datasets.base import IGNORED, Options, Problem, Sample, Value
from unet_runtime.core.datasets.classes import BACKGROUND, FOREGROUND
from unet_runtime.core.datasets.masks import LOSSY_SUFFIXES, Coding, Found, MaskFile, look_at, shown
from unet_runtime.core.decoders import PHOTO_SUFFIXES
from unet_runtime.core.errors import SourceError
from unet_runtime.core.spec import ClassSpec

ENDINGS = ("_mask", "_masks", "_label", "_labels", "_seg", "_segmentation", "_gt")
"""What the name of a mask may have after the photo's."""

_KINDS = frozenset(("annotation", "frame", "gt", "image", "img", "label", "mask", "photo", "seg", "segmentation"))
"""Words of a name that say what a file is, not which one."""

_PIECE = re.compile(r"[^\W\d_]+|\d+")

WITHOUT_MASK = "photos without a label mask"
WITHOUT_PHOTO = "label masks without a photo"
SAME_NAME = "files that share a name with another, which is taken"

MAX_UNNAMED = 64
"""More values or colours are no classes that someone drew."""

_EXACT_VALUES = 2
"""More values in JPEG masks are blurred ones, whether there is a class of that value or not."""


class Files(NamedTuple):
    """Files below a folder by name: path from there, without suffix."""

    by_name: dict[str, Path]
    doubled: list[Path]
    """Others of a name that is there already."""


def files_below(folder: Path, suffixes: Iterable[str]) -> Files:
    """The files of a folder and its subfolders with one of ``suffixes``, hidden ones apart; sorted by name.

    Links to folders are followed, each folder once.

    Raises:
        SourceError: the folder cannot be listed.
    """
    wanted = frozenset(suffixes)
    found: dict[str, Path] = {}
    doubled = []

    def refuse(error: OSError) -> None:
        raise SourceError(f"{error.filename}: cannot be listed ({error.strerror}), expected a folder of images")

    visited = set()
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        here = Path(place).stat()
        if (here.st_dev, here.st_ino) in visited:
            folders.clear()
            continue
        visited.add((here.st_dev, here.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(place) / name
            if name.startswith(".") or path.suffix.lower() not in wanted:
                continue
            key = path.relative_to(folder).with_suffix("").as_posix()
            if key in found:
                doubled.append(path)
            else:
                found[key] = path
    return Files(found, doubled)


def photos_below(folder: Path) -> Files:
    """The photos of a folder and its subfolders."""
    return files_below(folder, PHOTO_SUFFIXES)


class Pairs(NamedTuple):
    """Photos with their masks, and what is left."""

    found: list[tuple[str, Path, Path]]
    """Name, photo, mask."""
    problems: list[Problem]


def beside(folder: Path, mask_suffixes: Iterable[str]) -> tuple[Files, Files]:
    """Photos, and the masks that lie beside them, whose names have an ending more."""
    photos = photos_below(folder)
    masks = files_below(folder, mask_suffixes)
    is_mask = {name for name in masks.by_name if name.endswith(ENDINGS) and not _mask_of(name, masks)}
    only_photos = {name: path for name, path in photos.by_name.items() if name not in is_mask}
    only_masks = {name: path for name, path in masks.by_name.items() if name in is_mask}
    return Files(only_photos, photos.doubled), Files(only_masks, [])


def _mask_of(name: str, masks: Files) -> str:
    """The name of a photo's mask, an ending longer; empty: there is none."""
    return next((name + ending for ending in ENDINGS if name + ending in masks.by_name), "")


def pair(photos: Files, masks: Files, prefix: str = "") -> Pairs:
    """Bring photos and masks of the same name together; ``prefix`` comes before the names.

    Where no name is the same, as ``image_12`` and ``mask_12``, those of the same other words and numbers are paired.
    """
    mask_of = {}
    for name in photos.by_name:
        mask = name if name in masks.by_name else _mask_of(name, masks)
        if mask:
            mask_of[name] = mask
    if not mask_of:
        mask_of = _pairs_by_words(photos.by_name, masks.by_name)
    found = [(prefix + name, photos.by_name[name], masks.by_name[mask]) for name, mask in mask_of.items()]
    problems = [Problem(WITHOUT_MASK, prefix + name) for name in photos.by_name.keys() - mask_of.keys()]
    taken = set(mask_of.values())
    for name in masks.by_name.keys() - taken:
        problems.append(Problem(WITHOUT_PHOTO, prefix + name))
    for path in (*photos.doubled, *masks.doubled):
        problems.append(Problem(SAME_NAME, path.name))
    return Pairs(found, sorted(problems))


def _pairs_by_words(photos: Iterable[str], masks: Iterable[str]) -> dict[str, str]:
    """Photo -> mask, where no other photo and no other mask has the same words and numbers."""
    photo_of, mask_of = _one_by_words(photos), _one_by_words(masks)
    return {photo: mask_of[words] for words, photo in photo_of.items() if words in mask_of}


def _one_by_words(names: Iterable[str]) -> dict[tuple[str, ...], str]:
    """Folder, words and numbers of a name, but for words such as "mask" -> the one name that has them."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        folder, _, last = name.rpartition("/")
        pieces = [piece.lstrip("0") for piece in _PIECE.findall(last.casefold()) if piece not in _KINDS]
        if pieces:
            found.setdefault((folder, *pieces), []).append(name)
    return {words: alike[0] for words, alike in found.items() if len(alike) == 1}


def samples_of(pairs: Iterable[tuple[str, Path, Path]], coding: Coding) -> tuple[Sample, ...]:
    """The pairs as samples, sorted by name."""
    samples = [Sample(name, photo, MaskFile(mask, coding)) for name, photo, mask in pairs]
    return tuple(sorted(samples, key=lambda sample: sample.name))


class Coded(NamedTuple):
    """Classes, and how masks code them."""

    classes: tuple[ClassSpec, ...]
    coding: Coding
    values: dict[Value, int]
    """Value or colour -> class id."""
    named: bool


def coding_of(values: Mapping[Value, int], ignore: Iterable[Value], *, without_default: bool = False) -> Coding:
    """The coding of classes by value; 255 says nothing, unless it is a class."""
    ids: dict[Value, int] = {} if without_default else {IGNORED: IGNORED}
    ids |= dict(values)
    for value in ignore:
        ids[value] = IGNORED
    return Coding(ids)


def coded_by_masks(masks: Sequence[Path], options: Options, root: Path) -> Coded:
    """The classes that the user named, or those that the masks show.

    Raises:
        SourceError: masks that are none, that show one class, or values that nobody can name; the message says what to
            do.
    """
    as_told = bool(options.classes and options.values)
    if as_told and not any(path.suffix.lower() in LOSSY_SUFFIXES for path in masks):
        return Coded(options.classes, coding_of(options.values, options.ignore), dict(options.values), True)
    found = look_at(masks)
    _refuse_photos(found, len(masks), root)
    _refuse_lossy(found, root)
    if as_told:
        return Coded(options.classes, coding_of(options.values, options.ignore), dict(options.values), True)
    shown_values = _values_that_count(found, options)
    if options.classes:
        values = _values_of_named(options, shown_values, root)
        return Coded(options.classes, coding_of(values, options.ignore), values, True)
    _refuse_too_many(found, shown_values, root)
    if len(shown_values) < 2:
        what = f"the value {shown(shown_values[0])} alone" if shown_values else "no value"
        raise SourceError(
            f"{root}: {found.read} label masks show {what}, expected two classes or more: are these the masks that "
            "belong to the photos? Name the classes with --classes where this is right"
        )
    names = [_name_of(value, shown_values) for value in shown_values]
    values = {value: index for index, value in enumerate(shown_values)}
    colours = {name: value for name, value in zip(names, shown_values, strict=True) if isinstance(value, tuple)}
    return Coded(class_lists.named_classes(names, colours), coding_of(values, options.ignore), values, False)


def _values_that_count(found: Found, options: Options) -> list[Value]:
    """Numbers, or colours where most masks have colours, that are classes; rising, black first."""
    if found.colours:
        # A mask of one grey among coloured ones has the grey as its colour.
        colours = set(found.colours) | {(value, value, value) for value in found.values if value < 256}
        return sorted(colours - options.ignore)
    numbers = sorted(set(found.values) - options.ignore)
    others = [value for value in numbers if value != IGNORED]
    is_ids = len(others) > 1 and others[-1] <= 2 * len(others) + 10  # 0, 1, 2, 255; not 0, 128, 255
    return list(others) if is_ids else list(numbers)


def _values_of_named(options: Options, shown_values: Sequence[Value], root: Path) -> dict[Value, int]:
    """Values of classes that were named without: their ids; 0 and 255 of two classes; colours cannot be guessed."""
    count = len(options.classes)
    if any(isinstance(value, tuple) for value in shown_values):
        listed = ", ".join(map(shown, shown_values[:MAX_UNNAMED]))
        raise SourceError(
            f"{root}: label masks have the colours {listed}: say which class each is, as --classes "
            f"{options.classes[0].name}:{shown(shown_values[0])},... or in a classes.yaml (unet-train check "
            "--write-classes begins one)"
        )
    if count == 2 and shown_values and set(shown_values) <= {0, IGNORED}:
        return {0: 0, IGNORED: 1}
    return {index: index for index in range(count)}


def _name_of(value: Value, among: Sequence[Value]) -> str:
    if value in (0, (0, 0, 0)):
        return BACKGROUND
    if len(among) == 2 and value in (1, 255, (255, 255, 255)) and among[0] in (0, (0, 0, 0)):
        return FOREGROUND
    return f"class_{shown(value).removeprefix('#')}"


def _refuse_photos(found: Found, count: int, root: Path) -> None:
    if found.photos:
        raise SourceError(
            f"{root}: {len(found.photos)} of {count} label masks have thousands of colours, the first "
            f"{found.photos[0]}: these are photos, overlays or blurred masks, expected one value or colour for each "
            "class: export masks of class ids as PNG"
        )


def _refuse_lossy(found: Found, root: Path) -> None:
    values = len(found.colours) or len(found.values)
    if found.lossy and values > _EXACT_VALUES:
        raise SourceError(
            f"{root}: {len(found.lossy)} label masks are JPEG files, which blur values, the first {found.lossy[0]}: "
            f"{values} values are found, some of them between two classes: export the masks as PNG"
        )


def _refuse_too_many(found: Found, values: Sequence[Value], root: Path) -> None:
    if len(values) <= MAX_UNNAMED:
        return
    common, share = _most_common(found)
    raise SourceError(
        f"{root}: {found.read} label masks show {len(values)} values ({common} on {share:.1%} of the pixels), as "
        "blurred edges do: export the masks again as PNG without smoothing or resizing; or, if there are so many "
        "classes, name them in a classes.yaml"
    )


def _most_common(found: Found) -> tuple[str, float]:
    """The two most frequent values, and their share of the pixels."""
    pixels: Counter[Value] = Counter()
    for value, count in (found.colours or found.values).items():
        pixels[value] = count
    two = pixels.most_common(2)
    return ", ".join(shown(value) for value, _ in two), sum(count for _, count in two) / max(1, pixels.total())

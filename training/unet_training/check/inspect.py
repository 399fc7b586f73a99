"""Reading every photo and label of a dataset as training does, as quickly as that can be."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_runtime.core import decoders
from unet_runtime.core.cores import usable_cores
from unet_runtime.core.datasets import (
    IGNORED,
    PARTS,
    Dataset,
    Sample,
    Value,
    automatic_split,
    open_labels,
    read_split,
)
from unet_runtime.core.datasets.masks import LOSSY_SUFFIXES, UnknownClassError, shown
from unet_runtime.core.errors import ImageError, SourceError
from unet_runtime.core.photo import open_photo
from unet_training.check.report import KINDS, ClassShare, Report, Unknown
from unet_training.errors import Fault

_TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap width and height."""

_ORIENTATION = 0x0112
_SUFFIXES = {known.name: known.suffixes for known in decoders.FORMATS} | {"MPO": (".jpg", ".jpeg", ".mpo")}


class _Photo(NamedTuple):
    format: str
    size: tuple[int, int]
    """(width, height), upright."""
    digest: bytes


class _Seen(NamedTuple):
    """A sample after reading it; without a fault it has everything else."""

    fault: str
    reason: str = ""
    photo: _Photo | None = None
    counts: npt.NDArray[np.int64] | None = None
    """Pixels by class id, (256,)."""
    unknown: Mapping[Value, int] | None = None


def check_dataset(dataset: Dataset, split: str = "") -> Report:
    """Read every photo and all labels as training does.

    Args:
        dataset: as ``open_dataset`` reads it.
        split: whose parts are counted; empty: the one that training takes.
    """
    split = split or automatic_split(dataset)
    with ThreadPoolExecutor(usable_cores()) as pool:
        seen = dict(zip(dataset.samples, pool.map(_inspect, dataset.samples), strict=True))
    good = {sample.name: result for sample, result in seen.items() if not result.fault}
    parts: dict[str, set[str]] = {part: _names_of(dataset, split, part) for part in PARTS}
    oddities: dict[str, set[str]] = defaultdict(set)
    for sample, result in seen.items():
        if result.fault:
            oddities[result.fault].add(sample.name)
    for sample in dataset.samples:
        if sample.labels.path.suffix.lower() in LOSSY_SUFFIXES:
            oddities["lossy"].add(sample.name)
    _find_formats(dataset, good, oddities)
    _find_parts(dataset, parts, good, oddities)
    shares, ignored = _shares(dataset, list(good.values()))
    _find_classes(dataset, good, parts, oddities)
    return Report(
        dataset,
        split,
        usable={part: len(good.keys() & names) for part, names in parts.items()},
        formats=dict(Counter(result.photo.format for result in good.values() if result.photo)),
        sizes=_sizes(list(good.values())),
        classes=shares,
        ignored=ignored,
        unknown=_unknown(seen),
        names={key: sorted(oddities[key]) for key in KINDS},
        seen={sample.name: result.reason for sample, result in seen.items() if result.fault},
    )


def _names_of(dataset: Dataset, split: str, part: str) -> set[str]:
    try:
        return {sample.name for sample in read_split(dataset, split, part)}  # type: ignore[arg-type]
    except SourceError:
        return set()


def _inspect(sample: Sample) -> _Seen:
    try:
        photo = _read_photo(sample.photo)
        labels = open_labels(sample)
    except UnknownClassError as error:
        return _Seen("values", str(error), unknown=error.counts)
    except ImageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return _Seen(Fault.MISSING.value, str(error))
        # Labels that were read whole and refused for their values have no cause.
        is_values = error.__cause__ is None and str(error).startswith(str(sample.labels.path))
        return _Seen("trimaps" if is_values else Fault.UNREADABLE.value, str(error))
    if photo.size != labels.shape[::-1]:
        width, height = photo.size
        return _Seen(Fault.SIZES.value, f"photo of {width}x{height}, labels of {labels.shape[1]}x{labels.shape[0]}")
    counts = np.array(Image.fromarray(labels).histogram(), np.int64)
    return _Seen("", "", photo, counts)


def _read_photo(path: Path) -> _Photo:
    """Format, upright size and a digest of the pixels. A JPEG file is read whole, but not brought to its full size.

    Raises:
        ImageError: as ``open_photo``.
    """
    try:
        with path.open("rb") as file:
            image = decoders.open_image(file, str(path), lambda size: None)
            kind, size = str(image.format), image.size
            if kind != "JPEG" or image.mode not in ("RGB", "L"):
                photo = open_photo(path)
                return _Photo(kind, photo.size, hashlib.sha256(photo.tobytes()).digest())
            image.draft(image.mode, (1, 1))
            image.load()
            if "exif" in image.info and image.getexif().get(_ORIENTATION) in _TURNED:
                size = size[::-1]
            return _Photo(kind, size, hashlib.sha256(image.tobytes()).digest())
    except ImageError:
        raise
    except Exception:  # the reader that training uses says what is wrong, or reads it
        photo = open_photo(path)
        return _Photo("", photo.size, hashlib.sha256(photo.tobytes()).digest())


def _find_formats(dataset: Dataset, good: Mapping[str, _Seen], oddities: dict[str, set[str]]) -> None:
    for sample in dataset.samples:
        result = good.get(sample.name)
        if result is None or result.photo is None:
            continue
        expected = _SUFFIXES.get(result.photo.format)
        if expected and sample.photo.suffix.lower() not in expected:
            oddities["other_format"].add(f"{sample.name} ({result.photo.format})")


def _find_parts(
    dataset: Dataset, parts: Mapping[str, set[str]], good: Mapping[str, _Seen], oddities: dict[str, set[str]]
) -> None:
    oddities["leaked"] = parts["trainval"] & parts["test"]
    if dataset.parts:
        listed = {name for names in dataset.parts.values() for name in names}
        oddities["unlisted"] = {sample.name for sample in dataset.samples} - listed
    trained = {}
    for name in sorted(parts["trainval"] & good.keys()):
        trained[_digest(good[name])] = name
    for name in (parts["test"] - parts["trainval"]) & good.keys():  # a name in both is a leak, not a duplicate
        if _digest(good[name]) in trained:
            oddities["duplicates"].add(f"{name} = {trained[_digest(good[name])]}")


def _digest(result: _Seen) -> bytes:
    return b"" if result.photo is None else result.photo.digest


def _shares(dataset: Dataset, good: Sequence[_Seen]) -> tuple[tuple[ClassShare, ...], float]:
    """How often each class occurs, and the share of ignored pixels."""
    pixels = np.zeros(256, np.int64)
    photos = np.zeros(256, np.int64)
    for result in good:
        if result.counts is not None:
            pixels += result.counts
            photos += result.counts > 0
    total = int(pixels.sum())
    labelled = total - int(pixels[IGNORED])
    shares = []
    for index, entry in enumerate(dataset.classes):
        share = int(pixels[index]) / labelled if labelled else 0.0
        shares.append(ClassShare(entry.name, int(pixels[index]), share, int(photos[index])))
    return tuple(shares), int(pixels[IGNORED]) / total if total else 0.0


def _find_classes(
    dataset: Dataset, good: Mapping[str, _Seen], parts: Mapping[str, set[str]], oddities: dict[str, set[str]]
) -> None:
    foreground = [index for index, entry in enumerate(dataset.classes) if entry.role != "background"]
    shown_by: dict[int, set[str]] = defaultdict(set)
    for name, result in good.items():
        if result.counts is None:
            continue
        for index in np.flatnonzero(result.counts).tolist():
            shown_by[index].add(name)
        if foreground and not result.counts[foreground].any():
            oddities["empty"].add(name)
    for index, entry in enumerate(dataset.classes):
        if not shown_by[index]:
            oddities["absent"].add(entry.name)
        elif parts["trainval"] and not shown_by[index] & parts["trainval"]:
            oddities["untrained"].add(entry.name)


def _sizes(good: Sequence[_Seen]) -> dict[str, str]:
    sizes = sorted((result.photo.size for result in good if result.photo), key=lambda size: size[0] * size[1])
    if not sizes:
        return {}
    chosen = {"smallest": sizes[0], "median": sizes[len(sizes) // 2], "largest": sizes[-1]}
    return {name: f"{width}x{height}" for name, (width, height) in chosen.items()}


def _unknown(seen: Mapping[Sample, _Seen]) -> tuple[Unknown, ...]:
    found: dict[Value, list[tuple[int, str]]] = defaultdict(list)
    for sample, result in seen.items():
        for value, count in (result.unknown or {}).items():
            found[value].append((count, str(sample.labels.path)))
    rows = []
    for value, masks in found.items():
        rows.append(Unknown(shown(value), sum(count for count, _ in masks), len(masks), masks[0][1]))
    return tuple(sorted(rows, key=lambda row: -row.pixels))

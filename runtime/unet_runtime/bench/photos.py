"""The photos that are timed, and those whose predictions are compared with labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unet_runtime.bench.plan import Model
from unet_runtime.core.datasets import Sample, detect_layout, evenly, open_dataset, open_for_model, read_split
from unet_runtime.core.errors import ImageError, SourceError
from unet_runtime.core.photo import open_photo
from unet_runtime.io.sources import find_photos

SAMPLE = Path(__file__).parents[1] / "samples" / "chelsea.jpg"
"""Timed when no photos are given: 451x300 pixels."""


def timed_photos(folder: Path | None, count: int) -> tuple[tuple[Path, ...], list[str]]:
    """Choose at most ``count`` photos spread over a folder (None: the sample); also say why some were left out.

    Raises:
        SourceError: no such folder, or no photo in it can be read.
    """
    if folder is None:
        return (SAMPLE,), []
    readable, problems = [], []
    for path in evenly(_photos(folder), count):
        try:
            open_photo(path)
            readable.append(path)
        except ImageError as error:
            problems.append(str(error))
    if not readable:
        raise SourceError(f"{folder}: none of {len(problems)} photos can be read; the first: {problems[0]}")
    return tuple(readable), problems


def _photos(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder, expected one with photos")
    if detect_layout(folder):
        return [item.photo for item in open_dataset(folder).samples]
    return [file.path for file in find_photos([folder], None)]


def labelled_photos(model: Model, photos: Path | None, data: Path | None, count: int) -> list[Sample]:
    """Choose at most ``count`` photos with labels, spread evenly; empty where there are none.

    Args:
        model: its spec says which photos of ``data`` it was trained on; the official split where it does not.
        photos: a folder of photos; all of them are used if it is a dataset.
        data: a dataset, whose test part is used. Takes precedence over ``photos``.
        count: the largest number of photos.

    Raises:
        SourceError: ``data`` is no dataset, or has other classes than the model.
    """
    found: Sequence[Sample] = []
    if data:
        found = read_split(open_for_model(data, model.spec), model.spec.provenance.split or "official", "test")
    elif photos and detect_layout(photos):
        found = open_for_model(photos, model.spec).samples
    return evenly(found, count)

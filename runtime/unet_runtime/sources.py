"""What the user named -> the photos to segment, each with the place its results go to."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unet_runtime.errors import SourceError
from unet_runtime.sinks import RESULT_SUFFIXES

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".avif"}
)
"""Files of a folder that are taken for photos; a file named on its own may have any name."""

FOLDER_RESULTS = "-segmented"
"""Without an output folder, the results of folder ``pets`` go to ``pets-segmented`` beside it."""


@dataclass(frozen=True)
class PhotoFile:
    path: Path
    output_dir: Path
    """Folder of its results."""
    stem: str
    """Their names' first part: ``photo`` of ``photo.mask.png``."""


def find_photos(inputs: Sequence[Path], output_dir: Path | None) -> list[PhotoFile]:
    """The photos behind ``inputs`` (files and folders, searched recursively), in order, without repeats.

    Args:
        inputs: files and folders.
        output_dir: where results go; None: beside a named file, and in a mirrored tree beside a folder.

    Returns:
        One entry a photo, no two with the same place for their results: ``a.jpg`` and ``a.png`` in one
        folder give ``a.jpg.mask.png`` and ``a.png.mask.png``.

    Raises:
        SourceError: an input does not exist, a folder holds no photo, or two photos of different
            folders would write the same files.
    """
    found: dict[Path, PhotoFile] = {}
    for item in inputs:
        for photo in _folder_photos(item, output_dir) if item.is_dir() else [_named_photo(item, output_dir)]:
            found.setdefault(photo.path.resolve(), photo)
    photos = list(found.values())
    taken = Counter((photo.output_dir, photo.stem) for photo in photos)
    photos = [
        replace(photo, stem=photo.path.name) if taken[photo.output_dir, photo.stem] > 1 else photo for photo in photos
    ]
    _refuse_collisions(photos)
    return photos


def _named_photo(path: Path, output_dir: Path | None) -> PhotoFile:
    if not path.exists():
        raise SourceError(f"{path}: no such file or folder")
    return PhotoFile(path, output_dir or path.parent, path.stem)


def _folder_photos(folder: Path, output_dir: Path | None) -> list[PhotoFile]:
    named = folder if folder.name else folder.resolve()  # "." has no name to add to
    root = output_dir or named.with_name(named.name + FOLDER_RESULTS)
    photos = [
        PhotoFile(path, root / path.parent.relative_to(folder), path.stem)
        for path in _walk(folder)
        if path.suffix.lower() in PHOTO_SUFFIXES
        # Hidden files are other programs' litter ("._photo.jpg"); our own results are no photos.
        and not path.name.startswith(".") and not path.name.endswith(RESULT_SUFFIXES)
    ]  # fmt: skip
    if not photos:
        raise SourceError(f"{folder}: no photo in this folder (looked for {', '.join(sorted(PHOTO_SUFFIXES))})")
    return photos


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(files))


def _refuse_collisions(photos: Sequence[PhotoFile]) -> None:
    first: dict[tuple[Path, str], Path] = {}
    for photo in photos:
        other = first.setdefault((photo.output_dir, photo.stem), photo.path)
        if other != photo.path:
            raise SourceError(
                f"{other} and {photo.path} would both write {photo.output_dir / photo.stem}.*: "
                "name their folder instead (its tree is mirrored), or run them one by one"
            )

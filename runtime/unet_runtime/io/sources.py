"""What the user named -> the photos and videos to segment, each with the place its results go to."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unet_runtime.core.errors import SourceError
from unet_runtime.io.sinks import RESULT_SUFFIXES

PHOTO_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".avif"}
)
"""Files of a folder that are taken for photos; a file named on its own may have any name."""

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".flv", ".3gp", ".ogv"}
)
"""Files that are taken for videos."""

FOLDER_RESULTS = "-segmented"
"""Without an output folder, the results of folder ``pets`` go to ``pets-segmented`` beside it."""

STDIN = Path("-")
"""Names standard input, which gives one photo."""

_STDIN_STEM = "stdin"
_MAGIC = frozenset("*?[")


@dataclass(frozen=True)
class PhotoFile:
    path: Path
    """``STDIN`` for standard input."""
    output_dir: Path
    """Folder of its results."""
    stem: str
    """Their names' first part: ``photo`` of ``photo.mask.png``."""
    is_video: bool = False
    problem: str = ""
    """Why there is nothing to read: the input fails, the others do not."""


def find_photos(inputs: Sequence[Path], output_dir: Path | None, *, strict: bool = True) -> list[PhotoFile]:
    """The photos behind ``inputs``, in order, without repeats.

    Args:
        inputs: files (photos of any name, or videos), folders (searched recursively for photos; links to folders are
            not followed), patterns with ``*``, ``**``, ``?`` and ``[...]``, and ``STDIN``.
        output_dir: where results go; None: beside a named file, and in a mirrored tree beside a folder.
        strict: whether an input that does not exist, a folder or pattern without a photo, and a folder that cannot be
            read are errors; else they are entries with a ``problem``.

    Returns:
        One entry per photo, no two with the same place for their results: ``a.jpg`` and ``a.png`` in one
        folder give ``a.jpg.mask.png`` and ``a.png.mask.png``.

    Raises:
        SourceError: two photos of different folders would write the same files, or see ``strict``.
    """
    found: dict[Path, PhotoFile] = {}
    folders: dict[Path, Path] = {}  # resolved: each one asks the file system
    for item in inputs:
        for photo in _photos(item, output_dir):
            parent = photo.path.parent
            if parent not in folders:
                folders[parent] = parent.resolve()
            # The file's own name stays: a link to a photo is one more photo, with results of its own.
            found.setdefault(folders[parent] / photo.path.name, photo)
    problems = [photo.problem for photo in found.values() if photo.problem]
    if strict and problems:
        raise SourceError("; ".join(problems))
    photos = _with_own_names(list(found.values()))
    _refuse_collisions(photos)
    return photos


def _photos(item: Path, output_dir: Path | None) -> list[PhotoFile]:
    if item == STDIN:
        return [PhotoFile(STDIN, output_dir or Path(), _STDIN_STEM)]
    if item.is_dir():
        return _folder_photos(item, output_dir)
    if os.path.lexists(item):
        return [_named_photo(item, output_dir or item.parent)]
    if _MAGIC & set(str(item)):
        return _matching_photos(item, output_dir)
    return [_problem(item, "no such file or folder")]


def _problem(path: Path, text: str) -> PhotoFile:
    return PhotoFile(path, path.parent, path.name, problem=f"{path}: {text}")


def _named_photo(path: Path, output_dir: Path) -> PhotoFile:
    return PhotoFile(path, output_dir, path.stem, is_video=path.suffix.lower() in VIDEO_SUFFIXES)


def _matching_photos(pattern: Path, output_dir: Path | None) -> list[PhotoFile]:
    """As a shell would have expanded it; into an output folder, the tree below the pattern's fixed part is mirrored."""
    import glob  # a shell has mostly done its work

    fixed = 0
    while not _MAGIC & set(pattern.parts[fixed]):
        fixed += 1
    photos: list[PhotoFile] = []
    # Not Path.glob: before Python 3.13 its pattern must be relative, and "**" finds folders only:
    # https://github.com/python/cpython/issues/70303
    for match in sorted(glob.glob(str(pattern), recursive=True)):  # noqa: PTH207
        path = Path(match)
        parent = output_dir.joinpath(*path.parent.parts[fixed:]) if output_dir else path.parent
        if path.is_dir():
            photos += _folder_photos(path, parent / path.name if output_dir else None)
        else:
            photos.append(_named_photo(path, parent))
    return photos or [_problem(pattern, "no file matches this pattern")]


def _folder_photos(folder: Path, output_dir: Path | None) -> list[PhotoFile]:
    named = folder if folder.name else folder.resolve()  # "." has no name to add to
    root = output_dir or named.with_name(named.name + FOLDER_RESULTS)
    photos: list[PhotoFile] = []
    unreadable: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=unreadable.append):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if _is_photo(path):
                photos.append(PhotoFile(path, root / path.parent.relative_to(folder), path.stem))
    for error in unreadable:
        photos.append(_problem(Path(error.filename), f"folder cannot be read ({error.strerror})"))
    text = f"no photo in this folder (looked for {', '.join(sorted(PHOTO_SUFFIXES))})"
    return photos or [_problem(folder, text)]


def _is_photo(path: Path) -> bool:
    """Whether a file of a folder is taken for a photo; a broken link is: it fails at once, and is reported."""
    # Hidden files are other programs' ("._photo.jpg"), and results are no photos.
    if path.suffix.lower() not in PHOTO_SUFFIXES or path.name.startswith(".") or path.name.endswith(RESULT_SUFFIXES):
        return False
    try:
        return path.is_file() or path.is_symlink()  # not a pipe, a socket or a device: reading it may wait for ever
    except OSError:
        return True


def _with_own_names(photos: list[PhotoFile]) -> list[PhotoFile]:
    """Where photos of one folder share a stem, each takes its whole name; again where that meets a third's stem."""
    while True:
        taken = Counter((photo.output_dir, photo.stem) for photo in photos)
        renamed = []
        for photo in photos:
            is_shared = taken[photo.output_dir, photo.stem] > 1
            renamed.append(replace(photo, stem=photo.path.name) if is_shared else photo)
        if renamed == photos:
            return photos
        photos = renamed


def _refuse_collisions(photos: Sequence[PhotoFile]) -> None:
    first: dict[tuple[Path, str], Path] = {}
    for photo in photos:
        if photo.problem:
            continue
        other = first.setdefault((photo.output_dir, photo.stem), photo.path)
        if other != photo.path:
            raise SourceError(
                f"{other} and {photo.path} would both write {photo.output_dir / photo.stem}.*: "
                "name their folder instead (its tree is mirrored), or run them one by one"
            )

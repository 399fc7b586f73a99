"""What the user named -> the photos and videos to segment, each with the place its results go to."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
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
        One entry a photo, no two with the same place for their results: ``a.jpg`` and ``a.png`` in one
        folder give ``a.jpg.mask.png`` and ``a.png.mask.png``.

    Raises:
        SourceError: two photos of different folders would write the same files, or see ``strict``.
    """
    found: dict[Path, PhotoFile] = {}
    folders: dict[Path, Path] = {}
    for item in inputs:
        for photo in _photos(item, output_dir):
            # The folder's own name, the file's as it is: a link to a photo is one more photo, with results of its own.
            folder = folders.setdefault(photo.path.parent, _resolved(photo.path.parent, folders))
            found.setdefault(folder / photo.path.name, photo)
    problems = [photo.problem for photo in found.values() if photo.problem]
    if strict and problems:
        raise SourceError("; ".join(problems))
    photos = _with_own_names(list(found.values()))
    _refuse_collisions(photos)
    return photos


def _resolved(folder: Path, known: dict[Path, Path]) -> Path:
    return known.get(folder) or folder.resolve()


def _photos(item: Path, output_dir: Path | None) -> list[PhotoFile]:
    if item == STDIN:
        return [PhotoFile(STDIN, output_dir or Path(), _STDIN_STEM)]
    if item.is_dir():
        return _folder_photos(item, output_dir)
    if not os.path.lexists(item):
        if _MAGIC & set(str(item)):
            return _matching_photos(item, output_dir)
        return [_problem(item, "no such file or folder")]
    return [_named_photo(item, output_dir or item.parent)]


def _problem(path: Path, text: str) -> PhotoFile:
    return PhotoFile(path, path.parent, path.name, problem=f"{path}: {text}")


def _named_photo(path: Path, output_dir: Path) -> PhotoFile:
    return PhotoFile(path, output_dir, path.stem, is_video=_is_video(path))


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _matching_photos(pattern: Path, output_dir: Path | None) -> list[PhotoFile]:
    """As a shell would have expanded it; into an output folder, the tree below the pattern's fixed part is mirrored."""
    import glob  # a shell has mostly done its work

    fixed = len(list(_fixed_parts(pattern)))
    # Not Path.glob: before Python 3.13 its pattern must be relative, and "**" finds folders only.
    matches = [Path(match) for match in sorted(glob.glob(str(pattern), recursive=True))]  # noqa: PTH207
    photos: list[PhotoFile] = []
    for path in matches:
        parent = output_dir.joinpath(*path.parent.parts[fixed:]) if output_dir else path.parent
        if path.is_dir():
            photos += _folder_photos(path, parent / path.name if output_dir else None)
        else:
            photos.append(_named_photo(path, parent))
    return photos or [_problem(pattern, "no file matches this pattern")]


def _fixed_parts(pattern: Path) -> Iterator[str]:
    for part in pattern.parts:
        if _MAGIC & set(part):
            return
        yield part


def _folder_photos(folder: Path, output_dir: Path | None) -> list[PhotoFile]:
    named = folder if folder.name else folder.resolve()  # "." has no name to add to
    root = output_dir or named.with_name(named.name + FOLDER_RESULTS)
    unreadable: list[OSError] = []
    photos = [
        PhotoFile(path, root / path.parent.relative_to(folder), path.stem)
        for path in _walk(folder, unreadable)
        if path.suffix.lower() in PHOTO_SUFFIXES
        # Hidden files are other programs' litter ("._photo.jpg"); our own results are no photos.
        and not path.name.startswith(".")
        and not path.name.endswith(RESULT_SUFFIXES)
        and _may_be_read(path)
    ]
    photos += [_problem(Path(error.filename), f"folder cannot be read ({error.strerror})") for error in unreadable]
    text = f"no photo in this folder (looked for {', '.join(sorted(PHOTO_SUFFIXES))})"
    return photos or [_problem(folder, text)]


def _may_be_read(path: Path) -> bool:
    """Not so a pipe, a socket or a device: reading it may wait for ever. A broken link may: it fails at once."""
    try:
        return path.is_file() or path.is_symlink()
    except OSError:
        return True


def _walk(folder: Path, unreadable: list[OSError]) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, onerror=unreadable.append):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(files))


def _with_own_names(photos: list[PhotoFile]) -> list[PhotoFile]:
    """Where photos of one folder share a stem, each takes its whole name; again where that meets a third's stem."""
    while True:
        taken = Counter((photo.output_dir, photo.stem) for photo in photos)
        renamed = [
            replace(photo, stem=photo.path.name) if taken[photo.output_dir, photo.stem] > 1 else photo
            for photo in photos
        ]
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

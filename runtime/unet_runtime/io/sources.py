"""What the user named -> the photos and videos to segment, each with the place its results go to."""

from __future__ import annotations

import logging
import os
import re
import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from unet_runtime.core.decoders import PHOTO_SUFFIXES, left_out
from unet_runtime.core.errors import SourceError
from unet_runtime.io.sinks import RESULT_SUFFIXES

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts", ".m2ts", ".wmv", ".flv", ".3gp", ".ogv"}
    | {".ts", ".m2t", ".h264", ".264", ".h265", ".265", ".hevc", ".mjpeg", ".mjpg", ".m2v", ".vob", ".asf", ".3g2"}
    | {".f4v"}
)
"""Files that are taken for videos."""

_ALSO_CODE = frozenset({".ts"})
"""Suffixes of videos that are mostly something else inside a folder: TypeScript."""

_CLIP = ("video", "segmented only where the file itself is named")
"""Kind and reason of a video inside a folder: see ``LeftOut``."""

FOLDER_RESULTS = "-segmented"
"""Without an output folder, the results of folder ``pets`` go to ``pets-segmented`` beside it."""

STDIN = Path("-")
"""Names standard input, which gives one photo."""

_STDIN_STEM = "stdin"
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)  # a path has lost one of two slashes
_STEM_BYTES = 200  # and what results add: .probabilities.npz
_DIGEST_CHARACTERS = 8
_OPEN_HERE = ("/dev/fd/", "/proc/self/fd/")


class PhotoFile(NamedTuple):
    path: Path
    """``STDIN`` for standard input."""
    output_dir: Path
    """Folder of its results."""
    stem: str
    """Their names' first part: ``photo`` of ``photo.mask.png``."""
    is_video: bool = False
    problem: str = ""
    """Why there is nothing to read: the input fails, the others do not."""


class LeftOut(NamedTuple):
    """Pictures of folders that are not segmented, all for one reason."""

    kind: str
    """``HEIC``, ``camera raw``, ..."""
    reason: str
    """Why, and what to do."""
    paths: tuple[Path, ...]

    def __str__(self) -> str:
        count = f"{len(self.paths)} files" if len(self.paths) > 1 else "1 file"
        more = ", ..." if len(self.paths) > 1 else ""
        return f"left out: {self.kind}, {count} ({self.paths[0]}{more}): {self.reason}"


class Found(NamedTuple):
    photos: list[PhotoFile]
    left_out: list[LeftOut]


def find_photos(inputs: Sequence[Path], output_dir: Path | None, *, strict: bool = True) -> list[PhotoFile]:
    """As ``find``, and what folders leave out is logged: a line for each kind."""
    found = find(inputs, output_dir, strict=strict)
    for kind in found.left_out:
        logger.warning("%s", kind)
    return found.photos


def find(inputs: Sequence[Path], output_dir: Path | None, *, strict: bool = True) -> Found:
    """The photos behind ``inputs``, in order, without repeats, and what folders leave out.

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
    others = _Others()
    for item in inputs:
        for photo in _photos(item, output_dir, others):
            parent = photo.path.parent
            if parent not in folders:
                folders[parent] = Path(os.path.realpath(parent))  # unlike Path.resolve it takes links that go round
            # The file's own name stays: a link to a photo is one more photo, with results of its own.
            found.setdefault(folders[parent] / photo.path.name, photo)
    problems = [photo.problem for photo in found.values() if photo.problem]
    if strict and problems:
        raise SourceError("; ".join(problems))
    photos = _with_own_names(list(found.values()))
    _refuse_collisions(photos)
    return Found(photos, others.by_kind())


class _Others:
    """Collects the pictures of folders that are not segmented."""

    def __init__(self) -> None:
        self.count = 0
        self._paths: dict[tuple[str, str], dict[Path, None]] = {}
        self._answers: dict[str, tuple[str, str]] = {}

    def takes(self, path: Path) -> bool:
        """Whether a file is such a picture; it is kept then."""
        suffix = path.suffix.lower()
        if suffix not in self._answers:
            # One look for each: it may search for a package.
            self._answers[suffix] = _CLIP if suffix in VIDEO_SUFFIXES - _ALSO_CODE else left_out(suffix)
        kind, reason = self._answers[suffix]
        if not kind or path.name.startswith("."):
            return False
        self._paths.setdefault((kind, reason), {})[path] = None
        self.count += 1
        return True

    def by_kind(self) -> list[LeftOut]:
        result = []
        for (kind, reason), paths in self._paths.items():
            result.append(LeftOut(kind, reason, tuple(paths)))
        return result


def _photos(item: Path, output_dir: Path | None, others: _Others) -> list[PhotoFile]:
    if item == STDIN:
        return [PhotoFile(STDIN, output_dir or Path(), _STDIN_STEM)]
    if os.path.isdir(item):  # noqa: PTH112 - Path.is_dir raises where a name is too long, or a folder not ours
        return _folder_photos(item, output_dir, others)
    if os.path.lexists(item):
        return [named_photo(item, output_dir or item.parent)]
    from unet_runtime.io.patterns import MAGIC  # no photo that is there needs it

    if MAGIC & set(str(item)):
        return _matching_photos(item, output_dir, others)
    return [_problem(item, _why_absent(item))]


def _why_absent(path: Path) -> str:
    """Why the system finds nothing there: absent, a name that is too long, a folder that may not be read."""
    try:
        path.lstat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    return "no such file or folder"


def _problem(path: Path, text: str) -> PhotoFile:
    shown = str(path)
    if _ADDRESS.match(shown):
        from unet_runtime.io.addresses import meant_address, named_file, shown_address  # which no photo needs

        advice = "download it first, photos are read from files; a camera's address goes with --webcam"
        if named_file(shown):
            advice = f"name the file itself: {named_file(shown)}"
        shown, text = shown_address(meant_address(shown)), f"{text}; {advice}"
    return PhotoFile(path, path.parent, path.name, problem=f"{shown}: {text}")


def named_photo(path: Path, output_dir: Path) -> PhotoFile:
    """The photo or video of a path that the user named."""
    if _may_wait(path):
        return _problem(
            path, 'is a pipe or a device, expected a file: send a photo through "-", as in: unet-run - < FILE'
        )
    return PhotoFile(path, output_dir, path.stem, is_video=path.suffix.lower() in VIDEO_SUFFIXES)


def _matching_photos(pattern: Path, output_dir: Path | None, others: _Others) -> list[PhotoFile]:
    """As a shell would have expanded it; into an output folder, the tree below the pattern's fixed part is mirrored."""
    from unet_runtime.io.patterns import expand, fixed_parts

    fixed = fixed_parts(pattern)
    photos: list[PhotoFile] = []
    for path in expand(pattern):
        parent = output_dir.joinpath(*path.parent.parts[fixed:]) if output_dir else path.parent
        if os.path.isdir(path):  # noqa: PTH112
            photos += _folder_photos(path, parent / path.name if output_dir else None, others)
        else:
            photos.append(named_photo(path, parent))
    return photos or [_problem(pattern, "no file matches this pattern")]


def _folder_photos(folder: Path, output_dir: Path | None, others: _Others) -> list[PhotoFile]:
    from unet_runtime.io.patterns import walk

    named = folder if folder.name not in ("", "..") else Path(os.path.realpath(folder))  # "." has no name to add to
    if output_dir is None and not named.name:
        return [_problem(folder, "is the whole disk: say where the results go, with --output")]
    root = output_dir or named.with_name(named.name + FOLDER_RESULTS)
    photos: list[PhotoFile] = []
    unreadable: list[OSError] = []
    left_out_before = others.count
    for parent, names in walk(str(folder), unreadable.append):
        for name in names:
            path = Path(parent, name)
            if not others.takes(path) and _is_photo(path):
                photos.append(PhotoFile(path, root / path.parent.relative_to(folder), path.stem))
    for error in unreadable:
        photos.append(_problem(Path(error.filename), f"folder cannot be read ({error.strerror})"))
    text = f"no photo in this folder (looked for {', '.join(sorted(PHOTO_SUFFIXES))})"
    if others.count > left_out_before:
        text = f"no photo in this folder that can be read ({'; '.join(map(str, others.by_kind()))})"
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
    """Where photos of one folder share a stem, each takes its whole name; again where that meets a third's stem.

    Names that differ in case only, or in the form of Unicode, count as one, as they do on the disks of macOS, Windows
    and cameras. Where the whole names are one as well, all but the first take a digest of theirs.
    """
    photos = [photo._replace(stem=short_stem(photo.stem)) for photo in photos]
    while True:
        taken = Counter(map(_place, photos))
        renamed = []
        for photo in photos:
            stem = short_stem(photo.path.name)
            renamed.append(photo._replace(stem=stem) if taken[_place(photo)] > 1 and photo.stem != stem else photo)
        if renamed == photos:
            return _with_digests(photos)
        photos = renamed


def _place(photo: PhotoFile) -> str:
    """Folder and first part of a photo's results, equal where some disk takes their names for one."""
    name = f"{photo.output_dir}/{photo.stem}"
    if name.isascii():
        return name.lower()
    import unicodedata  # most names are ASCII

    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _with_digests(photos: list[PhotoFile]) -> list[PhotoFile]:
    first: dict[str, PhotoFile] = {}
    result = []
    for photo in photos:
        other = first.setdefault(_place(photo), photo)
        is_alike = (other.output_dir, other.stem) != (photo.output_dir, photo.stem)
        result.append(photo._replace(stem=f"{photo.stem}~{_digest(str(photo.path))}") if is_alike else photo)
    return result


def short_stem(stem: str) -> str:
    """The stem itself, or one so short that a result's name is within the 255 bytes that a name may have."""
    name = os.fsencode(stem)
    if len(name) <= _STEM_BYTES:
        return stem
    beginning = stem
    while len(os.fsencode(beginning)) > _STEM_BYTES - _DIGEST_CHARACTERS - 1:
        beginning = beginning[:-1]
    return f"{beginning}~{_digest(stem)}"


def _digest(name: str) -> str:
    import hashlib  # few names need it

    return hashlib.sha256(os.fsencode(name)).hexdigest()[:_DIGEST_CHARACTERS]


def _may_wait(path: Path) -> bool:
    """Whether reading it may wait for ever, or never end: a pipe or a device with a name, not one of this process."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    is_open_here = path.as_posix().startswith(_OPEN_HERE)  # as a shell passes <(command)
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or (stat.S_ISFIFO(mode) and is_open_here))


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

"""Results -> files, each whole or not at all. A new kind of result is one file, and one entry of ``KINDS``."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

from unet_runtime.core.errors import OutputError
from unet_runtime.core.files import replacing
from unet_runtime.core.segmentation import Result
from unet_runtime.io.coco import JSON
from unet_runtime.io.kind import STAMP_KEY, Checkpoint, Metadata
from unet_runtime.io.pictures import CUTOUT, MASK, OVERLAY
from unet_runtime.io.probabilities import PROBABILITIES

KINDS = {"mask": MASK, "overlay": OVERLAY, "cutout": CUTOUT, "probabilities": PROBABILITIES, "json": JSON}
"""What can be saved, by name."""

RESULTS = tuple(KINDS)

VIDEO_KINDS = {name: kind.frame for name, kind in KINDS.items() if kind.frame is not None}
"""What a video can show, by name: see ``Kind.frame``."""

RESULT_SUFFIXES = tuple(kind.suffix for kind in KINDS.values() if kind.suffix.endswith(".png"))
"""Show which files in a folder of photos are results."""

STAMP_REACH = 512
"""Bytes at a file's beginning and at its end among which its stamp is."""


def _continue() -> None:
    """The checkpoint of a run that nobody stops."""


def result_path(kind: str, output_dir: Path, stem: str) -> Path:
    """``photo.mask.png`` for kind ``mask`` and stem ``photo``."""
    return output_dir / (stem + KINDS[kind].suffix)


def save(
    result: Result,
    kinds: Sequence[str],
    output_dir: Path,
    stem: str,
    metadata: Metadata | None = None,
    checkpoint: Checkpoint = _continue,
) -> list[Path]:
    """Write the result of each kind into ``output_dir``, which is made if need be.

    Args:
        result: of one photo.
        kinds: some of ``KINDS``.
        output_dir: folder.
        stem: first part of the files' names.
        metadata: what the files record about their origin.
        checkpoint: called before each file and each band of rows; may raise to stop.

    Returns:
        The paths written, in the order of ``kinds``.

    Raises:
        OutputError: the folder or a file cannot be written; a ``.json`` of that name is not one of ours.
    """
    paths = []
    for name in kinds:
        checkpoint()
        path = result_path(name, output_dir, stem)
        if KINDS[name].is_common_name:
            _refuse_foreign(path)
        with replacing(path, "see --output-dir", durable=False) as file:
            KINDS[name].write(result, file, metadata or Metadata(), checkpoint)
        paths.append(path)
    return paths


def encode(result: Result, kind: str, metadata: Metadata | None = None) -> bytes:
    """The bytes of the file that ``save`` writes for one kind, for a pipe."""
    buffer = io.BytesIO()
    KINDS[kind].write(result, buffer, metadata or Metadata(), _continue)
    return buffer.getvalue()


def stamp(spec_json: str, **options: object) -> str:
    """16 hexadecimal digits that change with the model (its spec names its weights) or an option."""
    import hashlib  # imported already where a model has been read

    lines = [spec_json]
    for name in sorted(options):
        lines.append(f"{name}={options[name]}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def is_current(photo: Path, paths: Sequence[Path], stamp: str) -> bool:
    """Whether every result is there, not older than the photo, and carries this stamp."""
    try:
        changed = photo.stat().st_mtime_ns
        return all(path.stat().st_mtime_ns >= changed and stamp.encode() in _ends(path) for path in paths)
    except OSError:  # missing or unreadable: to be made
        return False


def _refuse_foreign(path: Path) -> None:
    """A ``photo.json`` beside a photo may be the work of a label tool."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if path.is_file() and STAMP_KEY.encode() not in _ends(path):
            raise OutputError(
                f"{path}: exists, and was not made by unet-run: move it away, or name another folder with --output-dir"
            )


def _ends(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(STAMP_REACH)
        file.seek(max(0, file.seek(0, os.SEEK_END) - STAMP_REACH))
        return head + b"\n" + file.read()

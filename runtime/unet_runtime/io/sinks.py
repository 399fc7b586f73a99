"""Results -> files, each whole or not at all. A new kind of result is one file, and one entry of ``KINDS``."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from unet_runtime.core.files import replacing
from unet_runtime.core.segmentation import Result
from unet_runtime.io.coco import JSON
from unet_runtime.io.formats import write_picture
from unet_runtime.io.kind import Checkpoint, Metadata
from unet_runtime.io.pictures import CUTOUT, MASK, OVERLAY, PALETTE
from unet_runtime.io.places import Places
from unet_runtime.io.probabilities import PROBABILITIES

KINDS = {
    "mask": MASK,
    "palette": PALETTE,
    "overlay": OVERLAY,
    "cutout": CUTOUT,
    "probabilities": PROBABILITIES,
    "json": JSON,
}
"""What can be saved, by name."""

RESULTS = tuple(KINDS)

VIDEO_KINDS = {name: kind.frame for name, kind in KINDS.items() if kind.frame is not None}
"""What a video can show, by name: see ``Kind.frame``."""

RESULT_SUFFIXES = tuple(kind.suffix for kind in KINDS.values() if kind.suffix.endswith(".png"))
"""Show which files in a folder of photos are results."""

_OURS = Places()


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
    places: Places = _OURS,
) -> list[Path]:
    """Write the result of each kind into ``output_dir``, which is made if need be.

    Args:
        result: of one photo.
        kinds: some of ``KINDS``.
        output_dir: folder.
        stem: first part of the files' names.
        metadata: what the files record about their origin.
        checkpoint: called before each file and each band of rows; may raise to stop.
        places: says which files may be replaced: by default those of ours alone.

    Returns:
        The paths written, in the order of ``kinds``.

    Raises:
        OutputError: the folder or a file cannot be written, or one of that name must stay; then none is written.
    """
    paths = [result_path(name, output_dir, stem) for name in kinds]
    for path in paths:
        places.check(path)
    for name, path in zip(kinds, paths, strict=True):
        checkpoint()
        with replacing(path, "see --output-dir", durable=False) as file:
            KINDS[name].write(result, file, metadata or Metadata(), checkpoint)
    return paths


def encode(result: Result, kind: str, metadata: Metadata | None = None, suffix: str = "") -> bytes:
    """The bytes of a file of one kind, for a pipe or a file that the user names.

    Args:
        result: of one photo.
        kind: one of ``KINDS``.
        metadata: what the file records about its origin.
        suffix: one of the kind's ``suffixes``, which chooses the format; any other: the one that ``save`` writes.

    Raises:
        OutputError: the format cannot hold such a picture.
    """
    chosen, metadata = KINDS[kind], metadata or Metadata()
    buffer = io.BytesIO()
    if chosen.picture is not None and suffix.lower() in chosen.other_suffixes:
        write_picture(chosen.picture(result), suffix.lower(), buffer, metadata.stamp)
    else:
        chosen.write(result, buffer, metadata, _continue)
    return buffer.getvalue()

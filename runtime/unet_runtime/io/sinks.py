"""Results -> files. Each is written under a temporary name and moved into place: whole or not at all."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from unet_runtime.core import render
from unet_runtime.core.errors import OutputError
from unet_runtime.core.files import replacing
from unet_runtime.core.segmentation import Result
from unet_runtime.io.png import write_png

_BAND_PIXELS = 1 << 18
_STAMP = "unet-edge"
_STAMP_REACH = 512  # bytes at a file's head and tail among which its stamp is

_numbers = itertools.count()

Checkpoint = Callable[[], None]
"""Called between two steps; raises to stop."""


def _go_on() -> None:
    """The checkpoint of whoever is never stopped."""


@dataclass(frozen=True)
class About:
    """What a result file says of where it comes from."""

    file_name: str = ""
    """The photo's."""
    engine: str = ""
    """What ran the model, for people."""
    contours: str = "polygons"
    """How ``json`` shows outlines: one of ``annotations.CONTOURS``."""
    stamp: str = ""
    """Of the model and what else decides the result, see ``stamp``: a result with another is not up to date."""


def _write_mask(result: Result, file: BinaryIO, about: About, checkpoint: Checkpoint) -> None:
    def band(top: int, bottom: int) -> npt.NDArray[np.uint8]:
        return result.mask[top:bottom, :, np.newaxis]

    _write_picture(result, file, about, checkpoint, band, palette=render.palette(result.spec))


def _write_overlay(result: Result, file: BinaryIO, about: About, checkpoint: Checkpoint) -> None:
    def band(top: int, bottom: int) -> npt.NDArray[np.uint8]:
        rows = result.photo.crop((0, top, result.photo.width, bottom))
        return np.asarray(render.overlay(rows, result.mask[top:bottom], result.spec))

    _write_picture(result, file, about, checkpoint, band)


def _write_cutout(result: Result, file: BinaryIO, about: About, checkpoint: Checkpoint) -> None:
    def band(top: int, bottom: int) -> npt.NDArray[np.uint8]:
        rows = result.photo.crop((0, top, result.photo.width, bottom))
        return np.asarray(render.cutout(rows, result.opacity[top:bottom]))

    _write_picture(result, file, about, checkpoint, band)


def _write_picture(
    result: Result,
    file: BinaryIO,
    about: About,
    checkpoint: Checkpoint,
    band: Callable[[int, int], npt.NDArray[np.uint8]],
    palette: bytes = b"",
) -> None:
    width, height = result.photo.size
    rows = max(1, _BAND_PIXELS // width)

    def bands() -> Iterator[npt.NDArray[np.uint8]]:
        for top in range(0, height, rows):
            checkpoint()
            yield band(top, min(top + rows, height))

    write_png(file, (width, height), bands(), palette=palette, text={_STAMP: about.stamp} if about.stamp else None)


def _write_probabilities(result: Result, file: BinaryIO, about: About, checkpoint: Checkpoint) -> None:
    """What ``numpy.load`` opens: ``probabilities`` float16 (H, W, C), and the ``classes``' names."""
    import zipfile  # 10 ms that pictures do not need

    from numpy.lib import format as npy

    width, height = result.photo.size
    names = np.array(result.spec.class_names)
    header = {"descr": "<f2", "fortran_order": False, "shape": (height, width, len(names))}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.comment = f"{_STAMP}\0{about.stamp}".encode("ascii")
        with archive.open("classes.npy", "w") as entry:
            npy.write_array(entry, names, allow_pickle=False)
        with archive.open("probabilities.npy", "w", force_zip64=True) as entry:
            npy.write_array_header_1_0(entry, header)
            for _, band in result.probability_bands():
                checkpoint()
                entry.write(band.astype("<f2").tobytes())


def _write_json(result: Result, file: BinaryIO, about: About, checkpoint: Checkpoint) -> None:
    import json

    from unet_runtime.io.coco import coco

    document = coco(result, about.file_name, engine=about.engine, contours=about.contours)
    document = {_STAMP: about.stamp, **document}  # first, where ``is_current`` looks
    file.write(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")


@dataclass(frozen=True)
class _Kind:
    suffix: str
    write: Callable[[Result, BinaryIO, About, Checkpoint], None]


_KINDS = {
    "mask": _Kind(".mask.png", _write_mask),
    "overlay": _Kind(".overlay.png", _write_overlay),
    "cutout": _Kind(".cutout.png", _write_cutout),
    "probabilities": _Kind(".probabilities.npz", _write_probabilities),
    "json": _Kind(".json", _write_json),
}

RESULTS = tuple(_KINDS)
"""What can be saved, by name."""

RESULT_SUFFIXES = tuple(kind.suffix for kind in _KINDS.values() if kind.suffix.endswith(".png"))
"""Ends of names by which results in a folder of photos are known as such."""


def result_path(kind: str, output_dir: Path, stem: str) -> Path:
    """``photo.mask.png`` for kind ``mask`` and stem ``photo``."""
    return output_dir / (stem + _KINDS[kind].suffix)


def save(
    result: Result,
    kinds: Sequence[str],
    output_dir: Path,
    stem: str,
    about: About | None = None,
    checkpoint: Checkpoint = _go_on,
) -> list[Path]:
    """Write the result of each kind into ``output_dir``, which is made if need be.

    Args:
        result: of one photo.
        kinds: some of ``RESULTS``.
        output_dir: folder.
        stem: first part of the files' names.
        about: what the files say of where they come from.
        checkpoint: called before each file and each band of rows; may raise to stop.

    Returns:
        The paths written, in the order of ``kinds``.

    Raises:
        OutputError: the folder or a file cannot be written; a ``.json`` of that name is not one of ours.
    """
    paths = [result_path(kind, output_dir, stem) for kind in kinds]
    for kind, path in zip(kinds, paths, strict=True):
        checkpoint()
        if kind == "json":
            _refuse_foreign(path)
        with replacing(path, "see --output-dir", durable=False) as file:
            _KINDS[kind].write(result, file, about or About(), checkpoint)
    return paths


def encode(result: Result, kind: str, about: About | None = None) -> bytes:
    """The bytes of the file that ``save`` writes for one kind, for a pipe."""
    buffer = io.BytesIO()
    _KINDS[kind].write(result, buffer, about or About(), _go_on)
    return buffer.getvalue()


def stamp(spec_json: str, **options: object) -> str:
    """16 hexadecimal digits that change with the model (its spec names its weights) or an option."""
    import hashlib  # imported already where a model has been read

    text = "\n".join([spec_json, *(f"{name}={value}" for name, value in sorted(options.items()))])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def is_current(photo: Path, paths: Sequence[Path], stamp: str) -> bool:
    """Whether every result is there, not older than the photo, and carries this stamp."""
    try:
        changed = photo.stat().st_mtime_ns
        return all(path.stat().st_mtime_ns >= changed and stamp.encode() in _ends(path) for path in paths)
    except OSError:  # not there, or out of reach: to be made
        return False


def _refuse_foreign(path: Path) -> None:
    """A ``photo.json`` beside a photo may be the work of a label tool."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        if path.is_file() and _STAMP.encode() not in _ends(path):
            raise OutputError(
                f"{path}: exists, and was not made by unet-run: move it away, or name another folder with --output-dir"
            )


def _ends(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(_STAMP_REACH)
        file.seek(max(0, file.seek(0, os.SEEK_END) - _STAMP_REACH))
        return head + b"\n" + file.read()

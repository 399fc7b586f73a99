"""Results -> files. Each is written under a temporary name and moved into place: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from unet_runtime.errors import OutputError
from unet_runtime.segmenter import Segmentation

RESULTS: dict[str, Callable[[Segmentation], Image.Image]] = {
    "mask": Segmentation.mask_image,
    "overlay": Segmentation.overlay,
    "cutout": Segmentation.cutout,
}
"""What can be saved, by name."""

RESULT_SUFFIXES = tuple(f".{name}.png" for name in RESULTS)

_COMPRESSION = 1
"""zlib's level: a photo-like PNG shrinks little more above it, and takes several times longer."""


def save(result: Segmentation, kinds: Sequence[str], output_dir: Path, stem: str) -> list[Path]:
    """Write ``stem.<kind>.png`` for each kind into ``output_dir``, which is made if need be.

    Returns:
        The paths written, in the order of ``kinds``.

    Raises:
        OutputError: the folder or a file cannot be written.
    """
    paths = []
    for kind in kinds:
        path = output_dir / f"{stem}.{kind}.png"
        _write_png(RESULTS[kind](result), path)
        paths.append(path)
    return paths


def _write_png(image: Image.Image, path: Path) -> None:
    # Ends in .png: told a format instead, Pillow would import all its common ones first.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part.png")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            image.save(temporary, compress_level=_COMPRESSION)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}): see --output-dir") from error

"""One COCO data set of many photos: ids are unique, names relative to one folder, and memory stays bounded.

Entries are made where the photos are segmented, by several threads; ``DataSet`` numbers them in the order in which it
gets them, keeps their text in files without a name, which no crash leaves behind, and puts it together at the end.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from unet_runtime.core.errors import OutputError
from unet_runtime.core.files import is_stream, replacing
from unet_runtime.core.spec import ModelSpec
from unet_runtime.io.coco import JSON, annotate, categories, info, to_json
from unet_runtime.io.kind import STAMP_KEY, Metadata
from unet_runtime.io.pictures import MASK, PALETTE

STDIN_NAME = "stdin"
"""Name of the photo that has none."""

_STDIN = Path("-")

logger = logging.getLogger(__name__)


class Entry(NamedTuple):
    """One photo of a data set, before it has an id."""

    width: int
    """Pixels."""
    height: int
    annotations: tuple[bytes, ...]
    """JSON objects without their ids."""


def _mask_of(path: Path, classes: int) -> npt.NDArray[np.uint8]:
    with Image.open(path, formats=("PNG",)) as image:
        mask = np.asarray(image)
    if mask.ndim != 2 or mask.dtype != np.uint8 or mask.max(initial=0) >= classes:
        raise ValueError(f"{path}: no mask of this model")
    return mask


def _entry_of_json(path: Path) -> Entry:
    document = json.loads(path.read_bytes())
    (image,) = document["images"]
    texts = []
    for annotation in document["annotations"]:
        del annotation["id"], annotation["image_id"]
        texts.append(to_json(annotation))
    return Entry(int(image["width"]), int(image["height"]), tuple(texts))


def names_root(inputs: Sequence[Path], photos: Sequence[Path]) -> Path:
    """The folder that names in a data set are relative to: the only one that was named, else the deepest of all."""
    if len(inputs) == 1 and inputs[0].is_dir():
        return Path(os.path.abspath(inputs[0]))  # noqa: PTH100  # not resolved: a link keeps the name it was given
    parents = {os.path.abspath(photo.parent) for photo in photos}  # noqa: PTH100
    try:
        return Path(os.path.commonpath(parents))
    except ValueError:  # no photo, or drives that have nothing in common
        return Path(os.path.abspath(os.sep))  # noqa: PTH100


class DataSet:
    """A data set being written: whole at its place when it is closed, or not at all.

    Args:
        path: the JSON file.
        spec: of the model.
        metadata: engine, contours and stamp.
        root: what the photos' names are relative to, see ``names_root``.

    Raises:
        OutputError: the folder of ``path`` cannot be written.
    """

    def __init__(self, path: Path, spec: ModelSpec, metadata: Metadata, root: Path) -> None:
        self.path = path
        self._spec = spec
        self._contours = metadata.contours
        self._root = root
        self.photos = self.annotations = 0
        self._failure: OutputError | None = None
        self._head = {STAMP_KEY: metadata.stamp, "info": info(spec, metadata), "categories": categories(spec)}
        self._opened = ExitStack()
        folder = None if is_stream(path) else path.parent
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
            self._images = self._opened.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
            self._annotations = self._opened.enter_context(tempfile.TemporaryFile(dir=folder))  # noqa: SIM115
        except OSError as error:
            self.discard()
            raise self._error(error) from error

    def entry(self, mask: npt.NDArray[np.uint8]) -> Entry:
        """The entry of a photo with these class ids, uint8 (H, W); for any thread.

        Raises:
            MissingDependencyError: ``rle`` without pycocotools.
        """
        texts = []
        for annotation in annotate(mask, self._spec, self._contours):
            texts.append(to_json(annotation))
        return Entry(mask.shape[1], mask.shape[0], tuple(texts))

    def known_entry(self, results: Iterable[Path]) -> Entry | None:
        """The entry of a photo that was segmented before; None where its results have no whole mask or JSON."""
        for path in results:
            try:
                if path.name.endswith((MASK.suffix, PALETTE.suffix)):
                    return self.entry(_mask_of(path, len(self._spec.classes)))
                if path.name.endswith(JSON.suffix):
                    return _entry_of_json(path)
            except (OSError, SyntaxError, ValueError, TypeError, LookupError):  # damaged, or changed by hand
                return None
        return None

    def add(self, photo: Path, entry: Entry) -> None:
        """Add a photo; ``-`` has come through standard input. An error, as of a full disk, is kept for ``close``."""
        if self._failure is not None:
            return
        self.photos += 1
        # With slashes on every system.
        name = STDIN_NAME if photo == _STDIN else os.path.relpath(photo, self._root).replace(os.sep, "/")
        image = {"id": self.photos, "file_name": name, "width": entry.width, "height": entry.height}
        try:
            self._images.write(_separator(self.photos) + to_json(image))
            for text in entry.annotations:
                self.annotations += 1
                ids = f'{{"id":{self.annotations},"image_id":{self.photos},'.encode()
                self._annotations.write(_separator(self.annotations) + ids + text[1:])
        except OSError as error:
            self._failure = self._error(error)
            logger.warning("%s; the run goes on without it", self._failure)

    def close(self) -> None:
        """Move the data set into place.

        Raises:
            OutputError: it cannot be written.
        """
        try:
            if self._failure is not None:
                raise self._failure
            with replacing(self.path, "see --coco") as file:
                file.write(to_json(self._head)[:-1])
                for key, part in (("images", self._images), ("annotations", self._annotations)):
                    file.write(f',"{key}":['.encode())
                    part.seek(0)
                    shutil.copyfileobj(part, file)
                    file.write(b"\n]")
                file.write(b"}\n")
        finally:
            self.discard()

    def discard(self) -> None:
        """Drop what was added."""
        with suppress(OSError):  # a full disk, once more
            self._opened.close()

    def _error(self, error: OSError) -> OutputError:
        return OutputError(f"{self.path}: cannot be written ({error.strerror or error}): see --coco")


def _separator(number: int) -> bytes:
    return b"\n" if number == 1 else b",\n"

"""Which photos an export is calibrated and proven on: from a dataset's split, or from the user's own folders.

No photo may be in both, whatever its name: a gate that runs on what was calibrated on proves little.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import filterfalse
from pathlib import Path

import numpy as np
import numpy.typing as npt

import unet_runtime
from unet_export.errors import ExportError
from unet_runtime.core.datasets import (
    Dataset,
    Labels,
    Part,
    Sample,
    detect_layout,
    evenly,
    open_dataset,
    open_for_model,
    read_split,
)
from unet_runtime.core.datasets.base import Options
from unet_runtime.core.datasets.classes import IGNORE
from unet_runtime.core.errors import SourceError
from unet_runtime.core.geometry import model_input
from unet_runtime.core.photo import open_photo
from unet_runtime.core.spec import InputSpec, ModelSpec
from unet_runtime.io.sources import find_photos

logger = logging.getLogger(__name__)

MIN_CALIBRATION = 200
"""Fewer photos do not show a network the range of what it will see."""

MIN_PARITY = 64
"""Fewer do not tell half a point of IoU from chance."""

TRIAL_PICTURES = 8
"""Pictures of a comparison without data."""

KEPT_BYTES = 2**28
"""Model inputs that are kept in memory, bytes: a thousand photos at 256x256. Photos beyond are decoded when needed."""


@dataclass(frozen=True)
class Photo:
    """A photo on disk, with its truth and perhaps with what the model sees of it."""

    name: str
    path: Path
    labels: Labels | None
    """None in a folder of photos without truth."""
    pixels: npt.NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)
    """The model's input, uint8 (h, w, 3), where ``choose_photos`` kept it."""


@dataclass(frozen=True)
class PhotoSets:
    """The photos of one export."""

    calibration: Sequence[Photo]
    reserve: Sequence[Photo]
    """Further calibration photos, for a repair; empty where none was asked for."""
    parity: Sequence[Photo]
    split: str
    """Split of the dataset; empty for the user's own folders."""


@dataclass(frozen=True)
class PhotoSource:
    """Where the user says that photos are."""

    data: Path | None = None
    """A dataset's folder: its trainval part calibrates, its test part proves."""
    split: str = ""
    """Split of ``data``; empty: the model's own."""
    calibration: Path | None = None
    """A folder in place of ``data``'s trainval part."""
    parity: Path | None = None
    """A folder in place of ``data``'s test part; its labels are used where it is a dataset."""
    calibration_count: int = MIN_CALIBRATION
    reserve: int = 0
    """Further calibration photos, where there are any."""
    parity_count: int = 128


def choose_photos(source: PhotoSource, spec: ModelSpec) -> PhotoSets:
    """The photos of both sets, evenly chosen, none in both; each is decoded once.

    Two are the same photo when the model sees the same pixels. ``spec``: of the model; it names the split that it was
    trained on, and the order of the classes.

    Raises:
        SourceError: a folder, list or part that is missing or has no photo.
        ImageError: a photo that cannot be read.
        ExportError: nothing says which photos to take; folders that share photos; calibration photos without content.
        ValueError: a count below its minimum.
    """
    split = source.split or spec.provenance.split
    pool = _part(source, source.calibration, spec, "trainval", "calibration")
    proof = _part(source, source.parity, spec, "test", "parity")
    proof = _spread(proof, source.parity_count, MIN_PARITY, "proving")
    chosen = _spread(pool, source.calibration_count, MIN_CALIBRATION, "calibrating")
    rest = list(filterfalse(set(chosen).__contains__, pool))
    digests: dict[Photo, bytes] = {}
    parity = _decoded(proof, spec.input, digests)
    proven = set(digests.values())
    calibration = _decoded(chosen, spec.input, digests)
    reserve = _decoded(evenly(rest, source.reserve), spec.input, digests)
    shared = {photo for photo in (*calibration, *reserve) if digests[photo] in proven}
    if shared:
        names = sorted(photo.name for photo in shared)
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        if source.calibration or source.parity:
            raise ExportError(
                f"{len(names)} calibration photos are among those of the proof ({listed}): name folders that share no "
                "photo, under whatever name"
            )
        if shared.issuperset(calibration):
            raise ExportError(
                f"{source.data}: its test part has the pixels of all {len(calibration)} photos of the training part "
                f"({listed}), so none is left for calibration: expected others in the two parts, or name a folder with "
                "--calibration"
            )
        # A dataset's own duplicates are not the user's fault.
        logger.warning("%d calibration photos are left out, the test part has the same pixels: %s", len(names), listed)
        calibration = list(filterfalse(shared.__contains__, calibration))
        reserve = list(filterfalse(shared.__contains__, reserve))
    return PhotoSets(calibration, reserve, parity, "" if source.calibration and source.parity else split)


def inputs(photos: Sequence[Photo], spec: InputSpec) -> npt.NDArray[np.uint8]:
    """What the model sees of ``photos``: uint8 (n, h, w, 3), RGB in 0..255, NHWC. Raises ImageError."""
    return np.stack([_pixels(photo, spec) for photo in photos])


def _pixels(photo: Photo, spec: InputSpec) -> npt.NDArray[np.uint8]:
    return model_input(open_photo(photo.path), spec)[0] if photo.pixels is None else photo.pixels


def _decoded(photos: Sequence[Photo], spec: InputSpec, digests: dict[Photo, bytes]) -> list[Photo]:
    """The photos with their pixels, as far as ``KEPT_BYTES`` allow; the SHA-256 of these goes into ``digests``."""
    decoded = []
    for photo in photos:
        pixels = _pixels(photo, spec)
        digests[photo] = hashlib.sha256(pixels.tobytes()).digest()
        fits = len(digests) * pixels.nbytes <= KEPT_BYTES
        decoded.append(replace(photo, pixels=pixels) if fits else photo)
    return decoded


def _part(source: PhotoSource, folder: Path | None, spec: ModelSpec, part: Part, purpose: str) -> list[Photo]:
    if folder is not None:
        return _folder_photos(folder, spec)
    if source.data is None:
        raise ExportError(f"no photos for {purpose}: name a dataset with --data, or a folder with --{purpose}")
    split = source.split or spec.provenance.split
    if not split:
        raise ExportError(
            f"the model does not say which photos of {source.data} it was trained on: name the --split, or train it "
            "with unet-train, which records it"
        )
    return labelled(read_split(_dataset(source.data, spec), split, part))


def _dataset(root: Path, spec: ModelSpec) -> Dataset:
    """A dataset with the model's class ids.

    Of a model that says nothing of its training, whose classes are some of the dataset's, the others say nothing: a
    model of pet and background can be measured on labels that have a border besides.
    """
    try:
        return open_for_model(root, spec)
    except SourceError:
        found = open_dataset(root) if root.is_dir() and not spec.provenance.recipe else None
        if found is None or not set(spec.class_names) < set(found.class_names):
            raise
    others = [name for name in found.class_names if name not in spec.class_names]
    logger.info("%s: pixels of %s, no class of the model, are not measured", root, ", ".join(others))
    return found.chosen(Options(classes=spec.classes, unlabelled=IGNORE))


def labelled(entries: Sequence[Sample]) -> list[Photo]:
    """Photos of a dataset, with their truth."""
    return [Photo(*entry) for entry in entries]


def _folder_photos(folder: Path, spec: ModelSpec) -> list[Photo]:
    """All photos of a folder; with their truth where it is a dataset."""
    if not folder.is_dir():
        raise SourceError(f"{folder}: no such folder, expected one with photos")
    if detect_layout(folder):
        return labelled(_dataset(folder, spec).samples)
    return [Photo(entry.path.relative_to(folder).as_posix(), entry.path, None) for entry in find_photos([folder], None)]


def _spread(photos: list[Photo], count: int, minimum: int, purpose: str) -> list[Photo]:
    """``count`` photos spread over the part, or all photos of a smaller part."""
    if count < minimum:
        raise ValueError(f"{count} photos for {purpose}, expected at least {minimum}")
    if len(photos) < count:
        logger.info("%s on all %d photos of the part: %d were asked for", purpose, len(photos), count)
    return evenly(photos, count)


def calibration_images(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """A copy of ``images``, uint8 (n, h, w, 3), RGB in 0..255, NHWC, in which 0 and 255 both occur.

    A converter takes the input's range from what it sees. Only 0..255 in full gives scale 1 and zero point 0, so where
    the photos lack one of the two, a corner pixel of the first photo is set to it. Raises ExportError where every photo
    is of one colour: ranges measured on them would fit no real photo.
    """
    flat = images.reshape(len(images), -1, images.shape[-1])
    if (flat == flat[:, :1]).all():
        raise ExportError(
            f"all {len(images)} calibration photos are of one colour each: expected real photos, of the kind that the "
            "model will see"
        )
    images = images.copy()
    if images.min() > 0:
        images[0, 0, 0] = 0
    if images.max() < 255:
        images[0, -1, -1] = 255
    return images


def sha256(images: npt.NDArray[np.uint8]) -> str:
    """SHA-256 of the pixels, photo after photo, as the spec's provenance records it."""
    return hashlib.sha256(images.tobytes()).hexdigest()


def trial_pictures(spec: ModelSpec) -> npt.NDArray[np.uint8]:
    """Pictures for a comparison without data: the runtime's photo, mirrored, darker, and noise; uint8 (n, h, w, 3)."""
    sample = Path(unet_runtime.__file__).parent / "samples" / "chelsea.jpg"
    picture = model_input(open_photo(sample), spec.input)[0]
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (TRIAL_PICTURES - 4, *picture.shape), np.uint8)
    dark = (picture // 3).astype(np.uint8)
    return np.stack([picture, picture[:, ::-1], picture[::-1], dark, *noise])

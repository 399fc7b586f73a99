"""Oxford-IIIT Pet: download, split, load, feed.

O. M. Parkhi, A. Vedaldi, A. Zisserman, C. V. Jawahar, "Cats and Dogs", CVPR 2012.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pooch

from unet_runtime.labelled import LabelledPhoto, read_split
from unet_runtime.spec import InputSpec
from unet_training.augment import Augmenter
from unet_training.cache import PhotoCache
from unet_training.errors import DatasetError
from unet_training.pairs import Labelled, decode

BASE_URL = "https://www.robots.ox.ac.uk/~vgg/data/pets/data/"
ARCHIVES = {
    "images.tar.gz": "md5:5c4f3ee8e5d25df40f4fd59a7f44e54c",
    "annotations.tar.gz": "md5:95a8c909bbe2e81eed6a22bccdf3f68f",
}


def ensure_dataset(root: Path) -> None:
    """Download and unpack the two official archives into ``root`` unless it is there.

    Raises:
        DatasetError: no network, a wrong checksum, or a folder that holds something else.
    """
    if (root / "images").is_dir() and (root / "annotations" / "trimaps").is_dir():
        return
    if root.exists() and not (root.is_dir() and not any(root.iterdir())):
        found = sorted(entry.name for entry in root.iterdir())[:5] if root.is_dir() else "a file"
        raise DatasetError(
            f"{root}: expected images/ and annotations/trimaps/ as Oxford-IIIT Pet unpacks, found "
            f"{found}: set PETS_DIR to the dataset's folder"
        )
    # Beside root, and moved in one step once all is unpacked and verified: a killed download never looks
    # like a dataset, and the archives it had finished are used again.
    download = root.with_name(f".{root.name}.download")
    unpacked = download / "unpacked"
    try:
        shutil.rmtree(unpacked, ignore_errors=True)  # of a killed run: its last file may be half a file
        for archive, checksum in ARCHIVES.items():
            pooch.retrieve(
                BASE_URL + archive, known_hash=checksum, fname=archive, path=download,
                processor=pooch.Untar(extract_dir=unpacked.name), progressbar=True,
            )  # fmt: skip
        if root.is_dir():
            root.rmdir()
        unpacked.replace(root)
    except (OSError, ValueError) as error:
        # pooch raises requests' errors (OSError) without network, ValueError on a wrong checksum.
        raise DatasetError(
            f"cannot download Oxford-IIIT Pet from {BASE_URL} into {root} ({error}). Without network, put the "
            "unpacked dataset somewhere and name its folder with --data or the environment variable PETS_DIR"
        ) from error
    shutil.rmtree(download)


@dataclass(frozen=True)
class Split:
    """Which photos train, which choose the checkpoint, which are measured once at the end."""

    train: list[LabelledPhoto]
    validation: list[LabelledPhoto]
    test: list[LabelledPhoto]


def split_dataset(root: Path, split: str, validation: int, seed: int) -> Split:
    """``official``: ``validation`` random photos of trainval choose checkpoints, the test list is kept for the end.
    ``article``: the last 1,000 by name do both, as in the article (``validation`` is not used).

    Raises:
        SourceError: a list is missing.
        DatasetError: photos are in both lists.
    """
    trainval, test = read_split(root, split, "trainval"), read_split(root, split, "test")
    if leaked := sorted({photo.name for photo in trainval} & {photo.name for photo in test}):
        raise DatasetError(
            f"{root}: {len(leaked)} photos are in trainval.txt and in test.txt ({', '.join(leaked[:5])}), expected in "
            "one of them: figures on photos that were trained on say nothing. Restore the official lists"
        )
    if split == "article":
        return Split(trainval, test, test)
    count = min(validation, len(trainval) // 4)
    chosen = set(np.random.default_rng(seed).choice(len(trainval), count, replace=False).tolist())
    return Split(
        train=[photo for index, photo in enumerate(trainval) if index not in chosen],
        validation=[photo for index, photo in enumerate(trainval) if index in chosen],
        test=test,
    )


def load(photos: Sequence[LabelledPhoto], spec: InputSpec, cache: PhotoCache | None = None) -> Labelled:
    """Photos and trimaps at the model's size; what cannot be used is left out and named.

    Args:
        photos: in the order wanted.
        spec: the model's input.
        cache: where given, what an earlier call has decoded is not decoded again.

    Raises:
        DatasetError: nothing usable is left.
    """
    return decode(photos, spec) if cache is None else cache.load(photos, spec)


class Batches(keras.utils.PyDataset):
    """Batches for ``fit``: (uint8 photos (n, h, w, 3), uint8 masks (n, h, w)).

    Args:
        data: decoded photos.
        batch_size: photos a batch.
        augment: where given, pictures are augmented.
        seed: where given (training), the order is drawn anew each epoch and a smaller last batch is
            dropped: a batch of one photo upsets BatchNormalization. Without (evaluation), the photos
            come in their own order and all of them.
    """

    def __init__(self, data: Labelled, batch_size: int, augment: Augmenter | None = None, seed: int | None = None):
        super().__init__()
        self._data, self._batch_size, self._augment, self._seed = data, batch_size, augment, seed
        self._epoch = 0
        self._order = np.arange(len(data))
        self._shuffle()

    def _shuffle(self) -> None:
        if self._seed is not None:
            self._order = np.random.default_rng((self._seed, self._epoch)).permutation(len(self._data))

    def on_epoch_end(self) -> None:
        self._epoch += 1
        self._shuffle()

    def __len__(self) -> int:
        whole, rest = divmod(len(self._data), self._batch_size)
        return max(1, whole) if self._seed is not None else whole + (rest > 0)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        chosen = self._order[index * self._batch_size : (index + 1) * self._batch_size]
        photos, masks = self._data.photos[chosen], self._data.masks[chosen]
        return (photos, masks) if self._augment is None else self._augment(photos, masks)
